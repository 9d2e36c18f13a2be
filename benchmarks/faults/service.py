"""A process of a contender as a program, for the live world: `python -m benchmarks.faults.service CONTENDER`.

Which process it is, and where its database is, it finds in its environment (docs/live.md).
"""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import import_module

from benchmarks.faults.crew import produce
from benchmarks.faults.handler import Handler
from benchmarks.faults.index import contender_called
from benchmarks.faults.model import PRODUCER, Contender
from faultproof.prove.live.history import INCARNATION_VARIABLE, PROCESS_VARIABLE, URL_VARIABLE, note


async def _run(contender: Contender, handler: Handler, url: str) -> None:
    if handler.process == PRODUCER:
        await produce(contender, handler, url)
    else:
        handler.wait_for_all()
        note("works", handler.process)  # from here on faults strike
        await contender.work(url, handler)


def main() -> None:
    """Be the producer or a worker."""
    contender = contender_called(sys.argv[1])
    for module in contender.modules:  # now, or faults would strike while they are being imported
        import_module(module)
    url = os.environ[URL_VARIABLE]
    handler = Handler(url, os.environ[PROCESS_VARIABLE], int(os.environ[INCARNATION_VARIABLE]))
    asyncio.run(_run(contender, handler, url))


if __name__ == "__main__":
    main()

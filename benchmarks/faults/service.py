"""One process of a contender's service: `python -m benchmarks.faults.service CONTENDER`.

It learns from its environment which process it is, and where its database is.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

from benchmarks.faults.handler import Handler
from benchmarks.faults.index import contender_called
from benchmarks.faults.model import Contender

URL, PROCESS, LIFE = "FAULTPROOF_URL", "FAULTPROOF_PROCESS", "FAULTPROOF_INCARNATION"
PRODUCER = "producer"
_PR_SET_PDEATHSIG = 1


async def produce(contender: Contender, url: str, handler: Handler) -> None:
    """Install the library's tables, and enqueue all jobs."""
    if not handler.is_enqueued():
        await contender.install(url)
        await contender.enqueue(url, range(1, handler.trial.jobs + 1))
        handler.enqueued()


def main() -> None:
    """Be the producer or a worker."""
    # Whoever started us may be killed itself.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    contender = contender_called(sys.argv[1])
    url, process = os.environ[URL], os.environ[PROCESS]
    handler = Handler(url, process, int(os.environ[LIFE]))
    if process == PRODUCER:
        asyncio.run(produce(contender, url, handler))
        return
    handler.here(len(handler.trial.workers))
    asyncio.run(_work(contender, url, handler))


async def _work(contender: Contender, url: str, handler: Handler) -> None:
    await contender.work(url, handler)


if __name__ == "__main__":
    main()

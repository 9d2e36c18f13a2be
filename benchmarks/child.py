"""One contestant in a process of its own: `python -m benchmarks.child MODULE BENCHMARK CONTESTANT`, driven by `contest.py`.

A process each, so that one contestant's event loop, caches, idle connections and memory are not another's. It reads
where to work, then a line for each round; it answers with one JSON document a line, and ends when its input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from typing import Any, BinaryIO

import msgspec

from benchmarks.model import Contestant, Place


async def serve(contestant: Contestant, place: Place, orders: BinaryIO, answers: BinaryIO) -> None:
    """Open, say so, and measure a round for each line."""

    def answer(document: dict[str, Any]) -> None:
        answers.write(msgspec.json.encode(document) + b"\n")
        answers.flush()

    async with contestant.open(place) as ready:
        answer({"settings": dict(ready.settings), "versions": {name: version(name) for name in contestant.packages}})
        while await asyncio.to_thread(orders.readline):
            answer({"figures": dict(await ready.measure())})


def main() -> None:
    """Run one contestant."""
    module, benchmark, name = sys.argv[1:]
    contestants = import_module(module).BENCHMARKS[benchmark].contestants
    contestant = next(each for each in contestants if each.name == name)
    orders = sys.stdin.buffer
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    place = Place(**msgspec.json.decode(orders.readline()))
    with asyncio.Runner(loop_factory=_uvloop() if contestant.uvloop else None) as runner:
        runner.run(serve(contestant, place, orders, answers))


def _uvloop() -> Any:
    import uvloop

    return uvloop.new_event_loop


def order(place: Place) -> bytes:
    """The first line that a child reads."""
    return msgspec.json.encode(asdict(place)) + b"\n"


if __name__ == "__main__":
    main()

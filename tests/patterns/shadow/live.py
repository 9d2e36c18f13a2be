"""Callers of a real process, by turns with a shadow whose candidate burns a core and without any.

`python -m tests.patterns.shadow.live MODE ROUNDS` prints JSON: for each pair of turns the 99th percentiles in milliseconds, without and with, and which part of a core the
candidate had meanwhile. MODE is `processes`, or what a shadow must not do, for comparison: `loop`, `thread`.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import faultproof as fp
from tests.patterns.shadow.candidates import burns

CALLERS = 8
ADDITIONS = 200_000
"""Of the candidate for one request: about 10 ms."""
SHARE = 0.2
TURN_S = 0.5

Call = Callable[[int], Awaitable[int]]


async def primary(request: int) -> int:
    """Something remote, and something of its own."""
    await asyncio.sleep(0.002)  # sleeps: the remote part of an answer
    sum(range(500))
    return request


async def in_loop(request: int) -> int:
    burns(ADDITIONS)
    return request


async def in_thread(request: int) -> int:
    await asyncio.to_thread(burns, ADDITIONS)
    return request


async def turn(call: Call) -> float:
    """The 99th percentile of the callers' latencies, in milliseconds."""
    until, took = monotonic() + TURN_S, list[float]()

    async def caller() -> None:
        while monotonic() < until:
            began = perf_counter()
            await call(ADDITIONS)
            took.append(perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took.sort()
    return 1e3 * took[int(0.99 * len(took))]


def burned_s(processes: fp.ShadowProcesses) -> float:
    """Of processor time, so far."""
    ticks = 0
    for pid in processes.pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


async def main(mode: str, rounds: int) -> None:
    async with fp.ShadowProcesses(burns) as processes:
        if mode == "processes":
            await processes.start()
        candidate: Any = {"processes": processes, "loop": in_loop, "thread": in_thread}[mode]
        policy = fp.ShadowPolicy(concurrency=1, queue=1)
        shadow = fp.Shadow[int, int](candidate, share=SHARE, is_safe=lambda request: True, policy=policy)
        turns: dict[str, Call] = {"without": primary, "with": partial(shadow.call, primary)}
        for call in turns.values():
            await turn(call)  # both once, to be warm
        found: dict[str, list[float]] = {"without": [], "with": []}
        burned = 0.0
        for number in range(rounds):
            for name in ("without", "with") if number % 2 else ("with", "without"):
                before = burned_s(processes)
                found[name].append(await turn(turns[name]))
                burned += burned_s(processes) - before if name == "with" else 0.0
                await shadow.drain()
        report = shadow.report()
        print(
            json.dumps({**found, "core": burned / (rounds * TURN_S), "same": report.same, "mirrored": report.mirrored})
        )
        await shadow.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

"""Callers of a real process, by turns with a shadow whose candidate burns a core and without any.

`python -m tests.patterns.shadow.live MODE ROUNDS` prints JSON: for each pair of turns the 99th percentiles in milliseconds,
without and with, which part of a core the candidate had, and which part of all of them others had meanwhile. MODE is
`processes`, or what a shadow must not do, for comparison: `loop`, `thread`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import faultproof as fp
from tests.patterns.shadow.candidates import burns

CALLERS = 8
ADDITIONS = 1_000_000
"""Of the candidate for one request: some 20 ms."""
SHARE = 0.02
"""Of some 2,000 requests in a second: with 20 ms for each the candidate is never idle for long."""
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


def burned_s(*pids: int) -> float:
    """Of processor time, so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def busy_s() -> float:
    """Of all processors, so far: user, nice, system, interrupts and what other machines took."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[n]) for n in (0, 1, 2, 5, 6, 7)) / 100


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
        burned, began = 0.0, (monotonic(), busy_s() - burned_s(os.getpid(), *processes.pids))
        for number in range(rounds):
            for name in ("without", "with") if number % 2 else ("with", "without"):
                before = burned_s(*processes.pids)
                found[name].append(await turn(turns[name]))
                burned += burned_s(*processes.pids) - before if name == "with" else 0.0
                await shadow.drain()
        others = busy_s() - burned_s(os.getpid(), *processes.pids) - began[1]
        report = shadow.report()
        told = {
            "core": burned / (rounds * TURN_S),
            "others": others / (monotonic() - began[0]) / (os.cpu_count() or 1),
            "same": report.same,
            "mirrored": report.mirrored,
        }
        print(json.dumps({**found, **told}))
        await shadow.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

"""From a commit in one process to a handler in another: the sender's side, the receiver's, and the clock between them."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.model import Place
from benchmarks.spread import p50, p99
from benchmarks.task import spawn

P50, P99, IDLE = "p50", "p99", "idle worker"
MESSAGES = 60
IDLE_S = 2.0
SETTLED_S = 0.5
"""After its start a worker takes leases and opens connections."""
SPREAD_S = 0.05
"""Messages come at random moments of a poll's interval, or polls would look better or worse than they are."""
ARRIVES_S = 30.0

Send = Callable[[], Awaitable[float]]
"""Commits one message; the wall clock from just before the COMMIT left."""


async def sending(send: Send) -> None:
    """The sender's process: commits one message for each line that it reads, and answers with the time."""
    while await asyncio.to_thread(sys.stdin.readline):
        print(await send(), flush=True)


class Arrivals:
    """The receiver's side: call it in the handler."""

    def __init__(self) -> None:
        self._moments: asyncio.Queue[float] = asyncio.Queue(maxsize=2 * MESSAGES)

    def __call__(self) -> None:
        """A message has arrived."""
        self._moments.put_nowait(time.time())

    async def measured(self, place: Place, *sender: str) -> dict[str, float]:
        """Idle for a while, then message after message from `sender` (`module:function`, and what it
        is given before the URL)."""
        if not place.quick:
            await asyncio.sleep(SETTLED_S)
        process, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(IDLE_S if not place.quick else 0.1)
        idle = (time.process_time() - process) / (time.perf_counter() - wall)
        delays = await self._delays(place, sender)
        return {P50: p50(delays), P99: p99(delays), IDLE: idle * 100}

    async def _delays(self, place: Place, sender: tuple[str, ...]) -> list[float]:
        other = await spawn(*sender, place.url)
        assert other.stdin is not None
        assert other.stdout is not None
        moments = random.Random(1)  # noqa: S311  # the same for all
        found = []
        for number in range(place.size(MESSAGES, 3) + 1):
            await asyncio.sleep(moments.uniform(0, SPREAD_S))
            other.stdin.write(b"\n")
            committed = float(await other.stdout.readline())
            async with asyncio.timeout(ARRIVES_S):
                arrived = await self._moments.get()
            if number:  # the first one opened connections and prepared statements
                found.append((arrived - committed) * 1e3)
        other.stdin.close()
        await other.wait()
        return found

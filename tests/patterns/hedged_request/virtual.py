"""An event loop whose time goes from one timer to the next at once: hours of load in seconds, and the same each time."""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from faultproof.clock import Alarm

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing in it may wait for anything but its timers."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers = self._scheduled  # type: ignore[attr-defined]
        if not self._ready:  # type: ignore[attr-defined]
            while timers and timers[0].cancelled():
                heapq.heappop(timers)._scheduled = False
                self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            if timers:
                self.now = max(self.now, timers[0].when())
        super()._run_once()  # type: ignore[misc]


class VirtualClock:
    """Of that loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def wall_us(self) -> int:
        return round(self._loop.now * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = self._loop.create_future()
        self._loop.call_later(seconds, _wake, woken)
        await woken

    def alarm(self, seconds: float, ring: Callable[[], object], *, context: Context | None = None) -> Alarm:
        return self._loop.call_later(seconds, ring, context=context)


def _wake(sleeping: asyncio.Future[None]) -> None:
    if not sleeping.done():
        sleeping.set_result(None)


def run(loop: VirtualLoop, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives."""
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()

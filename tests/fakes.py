"""What a test puts into an `Env` to own time, chance and signals; and how it waits: bounded, and never for a while."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from typing import Any, TypeVar

from faultproof.clock import Alarm, Env, SystemClock
from faultproof.signals import Attributes, Signal, Signals

T = TypeVar("T")

WAIT_S = 20.0
"""How long a test waits for what must come: generous, because a machine may be busy, and never spent when all is well."""
_LOOK_S = 0.002


class _Unset:
    """An alarm: who waits for a future, and is called instead of woken."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def cancel(self) -> None:
        self._future.cancel()


class ManualClock:
    """Time that moves when the test says so (`advance`), or, if it `flows`, by exactly what is slept.

    `on_sleep` hears of each sleep when it begins.
    """

    def __init__(self, *, flows: bool = False, on_sleep: Callable[[float], None] = lambda seconds: None) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []
        self._flows = flows
        self._on_sleep = on_sleep
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def wall_us(self) -> int:
        return 1_700_000_000_000_000 + round(self.now * 1_000_000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self._on_sleep(seconds)
        if seconds <= 0 or self._flows:
            self.slept += [seconds] if seconds > 0 else []
            self.now += max(0.0, seconds)
            await asyncio.sleep(0)
            return
        self.slept.append(seconds)
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), future))
        await future

    def alarm(self, seconds: float, ring: Callable[[], object], *, context: Context | None = None) -> Alarm:
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda woken: None if woken.cancelled() else ring(), context=context)
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), future))
        return _Unset(future)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake who slept that long."""
        self.now += seconds
        while self._sleepers and self._sleepers[0][0] <= self.now + 1e-9:
            _wake(heapq.heappop(self._sleepers)[2])


class ShiftedClock(SystemClock):
    """The machine's clocks, set ahead by as much as the test likes: leases expire and events come due at once."""

    def __init__(self) -> None:
        self.shift_s = 0.0
        self._sleepers: dict[asyncio.Future[None], float] = {}

    def wall_us(self) -> int:
        return super().wall_us() + round(self.shift_s * 1_000_000)

    def monotonic(self) -> float:
        return super().monotonic() + self.shift_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return await super().sleep(seconds)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._sleepers[future] = self.monotonic() + seconds
        timer = loop.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            timer.cancel()
            del self._sleepers[future]

    def alarm(self, seconds: float, ring: Callable[[], object], *, context: Context | None = None) -> Alarm:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._sleepers[future] = self.monotonic() + seconds
        timer = loop.call_later(seconds, _wake, future)

        def done(woken: asyncio.Future[None]) -> None:
            timer.cancel()
            del self._sleepers[future]
            if not woken.cancelled():
                ring()

        future.add_done_callback(done, context=context)
        return _Unset(future)

    def advance(self, seconds: float) -> None:
        """Set them further ahead; who slept until then wakes."""
        self.shift_s += seconds
        now = self.monotonic()
        for future, until in self._sleepers.items():
            if until <= now:
                _wake(future)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class FixedRng:
    """The same numbers again and again."""

    def __init__(self, *values: float) -> None:
        self._values: Iterator[float] = itertools.cycle(values or (0.5,))

    def random(self) -> float:
        return next(self._values)


class Recorder:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.emitted: list[tuple[Signal, float, Attributes]] = []

    def __call__(self, signal: Signal, value: float, attributes: Attributes) -> None:
        self.emitted.append((signal, value, attributes))

    def values(self, signal: Signal, **attributes: str | int) -> list[float]:
        """Of one signal, those that carry these attributes."""
        return [v for s, v, a in self.emitted if s is signal and attributes.items() <= a.items()]


def env_of(**given: Any) -> Env:
    """An `Env` with what is given, and silent unless signals are."""
    return Env(**{"signals": Signals(sinks=()), **given})


async def within(awaitable: Awaitable[T], seconds: float = WAIT_S) -> T:
    """Wait, but not for ever."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def until(look: Callable[[], Awaitable[T]] | Callable[[], T], seconds: float = WAIT_S) -> T:
    """Look again and again until something true is seen: for what can be seen and does not call.

    What calls (a line on a pipe, an event, news) is waited for by name; the architecture tests know no other sleep.
    """
    async with asyncio.timeout(seconds):
        while True:
            seen = look()
            found: Any = await seen if isinstance(seen, Awaitable) else seen
            if found:
                return found  # type: ignore[no-any-return]
            await asyncio.sleep(_LOOK_S)  # sleeps: between two looks, bounded above


def eventually(happened: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
    """`until` where there is no event loop."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(_LOOK_S)  # sleeps: between two looks, bounded above


async def settle() -> None:
    """Let every task run that can."""
    for _ in range(50):
        await asyncio.sleep(0)

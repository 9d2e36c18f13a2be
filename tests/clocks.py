"""Clocks that a test owns."""

import asyncio
from collections.abc import Callable

from faultproof.clock import SystemClock


class ShiftedClock(SystemClock):
    """The machine's clocks, of which the wall clock can be moved on: leases expire without anybody waiting."""

    def __init__(self) -> None:
        self.shift_us = 0

    def wall_us(self) -> int:
        return super().wall_us() + self.shift_us


class ManualClock:
    """Time that passes only when somebody sleeps, and then at once. `on_sleep` hears how long each sleep was."""

    def __init__(self, on_sleep: Callable[[float], None] = lambda seconds: None) -> None:
        self.on_sleep = on_sleep
        self._elapsed = 0.0

    def wall_us(self) -> int:
        return 1_700_000_000_000_000 + round(self._elapsed * 1_000_000)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self._elapsed += seconds
        self.on_sleep(seconds)
        await asyncio.sleep(0)


class StoppedClock(SystemClock):
    """Every sleep lasts for ever: what happens with it happens without any poll."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.get_running_loop().create_future()


class UnmovedClock(SystemClock):
    """Sleeps are real and the monotonic clock stands still: what is due after a while never is."""

    def monotonic(self) -> float:
        return 0.0

"""Time, randomness, ids and signals, injected: whoever owns an `Env` owns everything that is not determined.

The simulator hands out an `Env` drawn from its choice tape; production uses `system()`. Nothing under `patterns/`
or `primitives/` reads a clock by any other way (rule 2 of the house).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Protocol

from faultproof.signals import Signals


class Alarm(Protocol):
    """What has been set with `Clock.alarm`."""

    def cancel(self) -> None:
        """It rings no more."""
        ...


class Clock(Protocol):
    """Two clocks, because they answer different questions."""

    def wall_us(self) -> int:
        """Microseconds since 1970 UTC: for what is stored and compared between processes."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back: for intervals inside this process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait at least this long."""
        ...

    def alarm(self, seconds: float, ring: Callable[[], object], *, context: Context | None = None) -> Alarm:
        """Call `ring` in this event loop after so long, in that context: for bounds that are nearly always kept, and cost
        no task."""
        ...


class Rng(Protocol):
    """Randomness for jitter and sampling; never for secrets."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...


class Ids(Protocol):
    """Identifiers that no other process makes."""

    def new(self) -> str:
        """32 lower-case hexadecimal digits, unique with 128 random bits."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def alarm(self, seconds: float, ring: Callable[[], object], *, context: Context | None = None) -> Alarm:
        return asyncio.get_running_loop().call_later(seconds, ring, context=context)


class SystemIds:
    """Ids from the operating system's randomness, drawn in blocks: one call of the system for 64 of them.

    Threads may share one (a list's `pop` is atomic), and a forked process does not repeat its parent's. A virtual
    machine that is cloned while it runs may repeat what was left of a block: at most 64 ids.
    """

    def __init__(self) -> None:
        self._block: list[str] = []
        self._pid = os.getpid()

    def new(self) -> str:
        if self._pid != os.getpid():
            self._block, self._pid = [], os.getpid()
        try:
            return self._block.pop()
        except IndexError:
            drawn = os.urandom(16 * 64).hex()
            fresh = [drawn[at : at + 32] for at in range(0, len(drawn), 32)]
            mine = fresh.pop()
            self._block.extend(fresh)
            return mine


@dataclass(frozen=True, kw_only=True)
class Env:
    """What a database and the patterns on it take from outside: time, randomness, ids, and where signals go."""

    clock: Clock = field(default_factory=SystemClock)
    rng: Rng = field(default_factory=random.SystemRandom)
    ids: Ids = field(default_factory=SystemIds)
    signals: Signals = field(default_factory=Signals)
    process: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    """Who this is, as operators see it beside a lease."""


def system() -> Env:
    """The production environment."""
    return Env()

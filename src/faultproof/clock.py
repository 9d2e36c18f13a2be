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
from dataclasses import dataclass, field
from typing import Protocol

from faultproof.signals import Signals


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


class SystemIds:
    """Ids from the operating system's randomness, so that forked or cloned processes do not repeat each other."""

    def new(self) -> str:
        return os.urandom(16).hex()


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

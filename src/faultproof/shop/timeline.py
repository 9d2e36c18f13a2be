"""What happened when, in seconds from the beginning of a run: for people to look at. The audit reads none of it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

BINS = 120
"""A plot has no more points than this."""


class Kill(NamedTuple):
    """A process was killed."""

    at: float
    role: str
    slot: int
    state: str
    """What it was doing."""


class Sample(NamedTuple):
    """A value at a moment."""

    at: float
    value: float


class Bin(NamedTuple):
    """The answers of a stretch of time. Latencies in milliseconds, 0 where nothing was answered."""

    at: float
    """Its middle."""
    per_second: float
    p50: float
    p99: float


@dataclass
class Timeline:
    """Bounded by the orders, by the kills of a run, and by two samples of each kind a second."""

    began: float = field(default_factory=time.monotonic)
    answered: array[float] = field(default_factory=lambda: array("d"))
    """When each order was answered …"""
    took: array[float] = field(default_factory=lambda: array("d"))
    """… and how long its customer had waited, from the first time it was sent."""
    kills: list[Kill] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    lag: list[Sample] = field(default_factory=list)
    sagas: list[Sample] = field(default_factory=list)

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def answer(self, took: float) -> None:
        """An order was answered just now."""
        self.answered.append(self.now())
        self.took.append(took)

    def bins(self, seconds: float) -> list[Bin]:
        """The answers, in stretches of equal length."""
        width = max(seconds / BINS, 0.1)
        groups: dict[int, list[float]] = {}
        for at, took in zip(self.answered, self.took, strict=True):
            groups.setdefault(int(at / width), []).append(took * 1_000)
        return [_bin(number, width, sorted(groups.get(number, ()))) for number in range(int(seconds / width) + 1)]


def _bin(number: int, width: float, took: Sequence[float]) -> Bin:
    middle = (number + 0.5) * width
    if not took:
        return Bin(middle, 0.0, 0.0, 0.0)
    return Bin(middle, len(took) / width, took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))])


def lanes(kills: Iterable[Kill]) -> list[tuple[str, int]]:
    """The processes that were killed: role and slot, as the lanes of a picture."""
    return sorted({(kill.role, kill.slot) for kill in kills})

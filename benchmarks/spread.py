"""Medians, with how far the rounds lay apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Spread:
    """What several rounds gave: the middle, the ends, and each of them in order."""

    median: float
    low: float
    high: float
    values: list[float]


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values), list(values))


def ratios(of: Spread, over: Sequence[Spread], *, better: Literal["more", "less"] = "more") -> Spread:
    """Round by round `of` divided by the best of `over`: what slows a whole round down cancels.

    The best is the one with the best median: whoever picked the best of every single round would compare with a
    contestant that does not exist. Rounds that somebody lacks do not count.
    """
    best = (max if better == "more" else min)(over, key=lambda each: each.median)
    return spread([mine / theirs for mine, theirs in zip(of.values, best.values, strict=False)])


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    """What 99 of 100 stay under, by nearest rank."""
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)]

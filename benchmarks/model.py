"""The language of benchmarks: who is measured, in what, and what we want to reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal

Engine = Literal["postgresql", "sqlite", "none"]
Side = Literal["ours", "peer", "peer, as it comes", "by hand"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one contestant works: a database of its own, empty when it comes."""

    url: str
    """`postgresql://…`, the path of a file that does not exist yet, or nothing."""
    quick: bool
    """Tiny sizes, to see that everything works; the figures mean nothing."""

    def size(self, full: int, quick: int) -> int:
        """How many of something this run takes."""
        return quick if self.quick else full


Figures = Mapping[str, float]
"""What one round gave, by the names of the benchmark's figures."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A contestant that can be measured: tables are there, connections open, nothing runs between rounds."""

    measure: Callable[[], Awaitable[Figures]]
    """One round, from filling to cleaning up; only what belongs to the figures is on the clock."""
    settings: Mapping[str, str]
    """Durability in effect, as the server or the file answered on this contestant's own connection."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One of those who are compared."""

    name: str
    side: Side
    configured: str
    """What was set, in words; shown with the figures."""
    open: Callable[[Place], AbstractAsyncContextManager[Ready]]
    packages: tuple[str, ...] = ()
    """Distributions whose versions are shown."""
    uvloop: bool = False
    """On uvloop, because this peer's own command line runs on it."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One thing that is measured."""

    name: str
    unit: str
    better: Literal["more", "less"] = "more"


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What we want to reach: a contestant's figure, or its ratio to the best of some others in the same round."""

    figure: str
    of: str
    over: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One comparison."""

    name: str
    engine: Engine
    measures: str
    """What is on the clock, in one or two sentences."""
    figures: tuple[Figure, ...]
    contestants: tuple[Contestant, ...]
    aims: tuple[Aim, ...] = ()
    rounds: int = 5
    round_timeout: float = 120.0
    """Seconds after which a round has failed."""
    notes: tuple[str, ...] = ()
    """What a reader must know to read it fairly."""
    compared: str | None = None
    """The figure in which the first contestant is set against each of the others, if in any."""
    home: str = "benchmarks.index"
    """The module in whose `BENCHMARKS` the contestants' processes find it."""

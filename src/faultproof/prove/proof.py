"""A proof: a claim, a workload, the faults it holds under, and planted bugs that show it can fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from faultproof.ports.database import Database
from faultproof.prove.simulated.world import World


class Scenario(Protocol):
    """One run's workload, after its processes have been spawned."""

    def done(self) -> bool:
        """Everything that was asked for has happened."""
        ...

    def violations(self) -> list[str]:
        """What is wrong with the outcome, judged from the rows and from what the outside world was told."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A bug planted by hand. `variant` is handed to the workload, which breaks itself accordingly."""

    name: str
    breaks: str
    """Which guard is missing, and what must therefore go wrong."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is claimed, how it is tried, and what was not tried."""

    name: str
    claim: str
    faults: tuple[str, ...]
    assumptions: tuple[str, ...]
    not_tested: tuple[str, ...]
    prepare: Callable[[Database], Awaitable[None]]
    """Makes the tables, once; every run begins from a copy."""
    start: Callable[[World, str | None], Scenario]
    """Spawns the processes; the second argument names a planted bug, or none."""
    plants: tuple[Plant, ...] = field(default=())

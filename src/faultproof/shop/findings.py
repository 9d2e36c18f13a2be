"""What a check of the audit has found."""

from __future__ import annotations

from dataclasses import dataclass, field

WHERE_MAX = 5
"""Rows that a check names; the rest is counted."""


@dataclass(frozen=True)
class Check:
    """One comparison."""

    name: str
    """As in the JSON document."""
    claim: str
    examined: int
    violations: int
    where: list[str]
    """The first few."""


@dataclass
class Findings:
    """What one check has found so far."""

    examined: int = 0
    violations: int = 0
    where: list[str] = field(default_factory=list)

    def add(self, where: str, count: int = 1) -> None:
        """Something is wrong there."""
        self.violations += count
        if len(self.where) < WHERE_MAX:
            self.where.append(where)

    def check(self, name: str, claim: str) -> Check:
        """All of it."""
        return Check(name, claim, self.examined, self.violations, self.where)

"""How several are asked at once. All times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.primitives.hedging import HedgePolicy


@dataclass(frozen=True, kw_only=True)
class GatherPolicy:
    """Who has to answer, and by when."""

    deadline: float = 1.0
    """For the whole; earlier where the caller's own deadline is."""
    each: float | None = None
    """For one shard, hedges included; None: as long as there is time for the whole."""
    at_least: int | None = None
    """So many have to answer, or `Incomplete` is raised: None all of them, a number a quorum, 0 as many as can."""
    until_enough: bool = False
    """Return as soon as `at_least` have answered; the others are cut off, and the result says so."""
    at_once: int = 100
    """So many are asked at the same time; the others wait for their turn."""
    hedge: HedgePolicy | None = None
    """A second attempt at stragglers; only for calls that may be made twice."""

    def __post_init__(self) -> None:
        bounds.seconds("deadline", self.deadline)
        bounds.count("at_once", self.at_once)
        if self.each is not None:
            bounds.seconds("each", self.each)
            if self.each > self.deadline:
                raise InvalidInput(f"`each` must be at most `deadline`, got {self.each} and {self.deadline}")
        if self.at_least is not None:
            bounds.count("at_least", self.at_least, least=0)
        if self.until_enough and not self.at_least:
            raise InvalidInput("`until_enough` needs `at_least`, the number of answers that are enough")

"""What came of asking several: who answered, who did not, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from faultproof.errors import TryAgain

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Why: TypeAlias = Literal["failed", "late", "cut off", "not asked"]
"""Its call raised; its time, or that of the whole, ran out; enough others had answered, or the caller left; or it never came
to its turn."""


class Answer(NamedTuple, Generic[T_co]):
    """One shard's."""

    value: T_co
    attempts: int
    """Hedges included."""
    took_s: float


class Missing(NamedTuple):
    """A shard that gave none."""

    why: Why
    error: Exception | None = None
    """What its call raised, where it failed."""

    def __str__(self) -> str:
        return self.why if self.error is None else f"{self.why}: {type(self.error).__name__}: {self.error}"


Outcome: TypeAlias = "Answer[T] | Missing"


@dataclass(frozen=True, slots=True)
class Gathered(Generic[T_co]):
    """Every shard that there was to ask is in `answers` or in `missing`, in the order in which they were given."""

    answers: Mapping[str, Answer[T_co]]
    missing: Mapping[str, Missing]

    @property
    def coverage(self) -> float:
        """The share of shards that answered, from 0 to 1."""
        return len(self.answers) / (len(self.answers) + len(self.missing))

    @property
    def is_complete(self) -> bool:
        """Whether all of them answered."""
        return not self.missing

    @property
    def values(self) -> Mapping[str, T_co]:
        """The answers alone. Look at `is_complete` or `coverage` before you show them to anybody."""
        return {name: answer.value for name, answer in self.answers.items()}


class Incomplete(TryAgain):
    """Fewer answered than had to; `gathered` holds those that did, and why the others did not."""

    gathered: Gathered[object]

    def __init__(self, message: str, *, gathered: Gathered[object]) -> None:
        super().__init__(message)
        self.gathered = gathered


def sorted_out(outcomes: Mapping[str, Outcome[T]]) -> Gathered[T]:
    """Those that answered, and the others."""
    return Gathered(
        {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Answer)},
        {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Missing)},
    )

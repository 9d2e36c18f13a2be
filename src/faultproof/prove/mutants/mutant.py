"""A mutant: what is left out of a proof's scripts and tables. A value, which every world can apply."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from faultproof.ports.script import Call
from faultproof.ports.statement import Statement
from faultproof.prove.mutants.constraints import Constraint
from faultproof.prove.mutants.parsed import changed

Kind: TypeAlias = Literal["statement", "condition", "constraint", "split", "early answer"]
KINDS: tuple[Kind, ...] = ("statement", "condition", "constraint", "split", "early answer")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """Scripts as they run with something left out."""

    name: str
    """The same for as long as the statement, the condition or the constraint reads the same: survivors are listed by it."""
    kind: Kind
    left_out: frozenset[Statement] = frozenset()
    """Not executed: they find nothing, and touch nothing."""
    conditions: Mapping[Statement, frozenset[int]] = field(default_factory=dict)
    """Taken to be true; by their number, as `parsed.conditions` counts."""
    constraints: frozenset[Constraint] = frozenset()
    """Not there, in SQLite's image of the prepared tables."""
    plain: frozenset[Statement] = frozenset()
    """Insertions that hung on such a constraint, without their ON CONFLICT clause."""
    commits_between: frozenset[tuple[Statement, Statement]] = frozenset()
    """Transactions are cut in two where one of them follows the other."""
    answers_after: frozenset[Statement] = frozenset()
    """A transaction that ends with one of them has its result before it is committed."""

    @property
    def label(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}"

    @property
    def key(self) -> Hashable:
        """Equal for what is left out of two proofs alike."""
        return self.kind, self.name, self.constraints

    def rewrite(self, call: Call) -> Call | None:
        """What is executed instead; None: nothing."""
        statement = call.statement
        if statement in self.left_out:
            return None
        instead = self._instead.get(statement)
        return call if instead is None else Call(instead, call.values)

    def cuts(self, before: Statement, after: Statement) -> bool:
        """Whether there is a commit between these two statements of a transaction."""
        return (before, after) in self.commits_between

    def answers_early(self, last: Statement) -> bool:
        """Whether a transaction with this last statement is answered before it is committed."""
        return last in self.answers_after

    @property
    def is_about_transactions(self) -> bool:
        """It changes where they end, and not only what is executed in them."""
        return bool(self.commits_between or self.answers_after)

    def __or__(self, other: Mutant) -> Mutant:
        """Both at once."""
        numbers = {
            statement: self.conditions.get(statement, frozenset()) | other.conditions.get(statement, frozenset())
            for statement in (*self.conditions, *other.conditions)
        }
        return Mutant(
            name=f"{self.name} and {other.name}",
            kind=self.kind,
            left_out=self.left_out | other.left_out,
            conditions=numbers,
            constraints=self.constraints | other.constraints,
            plain=self.plain | other.plain,
            commits_between=self.commits_between | other.commits_between,
            answers_after=self.answers_after | other.answers_after,
        )

    @cached_property
    def _instead(self) -> dict[Statement, Statement]:
        return {
            statement: changed(statement, self.conditions.get(statement, frozenset()), statement in self.plain)
            for statement in (*self.conditions, *self.plain)
        }

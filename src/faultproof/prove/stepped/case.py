"""A case: a few sessions at the same time, what must be true whatever their order, and bugs that it must catch.

Conditions that matter only between two snapshots or two writers cannot be shown in simulation, whose SQLite has one of
each. They are shown here, on PostgreSQL itself; `docs/stepped.md` says how to write one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from faultproof.errors import InvalidInput
from faultproof.ports.database import Database, Tx
from faultproof.ports.script import Call
from faultproof.ports.statement import Statement
from faultproof.prove.harness import HarnessError
from faultproof.prove.proof import Evidence, Plant, Process, Sometimes

T = TypeVar("T")
Isolation = Literal["read committed", "repeatable read", "serializable"]

SESSIONS_MAX = 3
PREEMPTIONS_OF_THREE = 3
"""Three sessions have too many interleavings for all of them; few bugs need more changes of hand than this."""

Rewrite: TypeAlias = Callable[[Call], Call | None]
"""Sees every statement before it is sent: the same, another one, or None to leave it out."""
Cuts: TypeAlias = Callable[[Statement, Statement], bool]
"""Whether a transaction in which the second of them follows the first is committed in between."""


class Stepping(Process, Protocol):
    """What a session's main function is given: what a process has in every world, and transactions of the user's own."""

    async def joined(self, isolation: Isolation, work: Callable[[Tx], Awaitable[T]]) -> T:
        """A transaction of the user's own at that level, on a joined handle that `work` passes on as `tx=`. Begun again a
        few times, as users are told to, when it could not be serialized or was a deadlock's victim; then `Busy`."""
        ...


Main: TypeAlias = Callable[[Stepping], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two or three sessions, and what must hold after each of their interleavings.

    Raises `InvalidInput` where two of its planted bugs have one name, or a rewriting belongs to none of them.
    """

    name: str
    """`pkg.module:NAME`."""
    claim: str
    prepare: Callable[[Database], Awaitable[None]]
    """Makes the tables, once; every interleaving begins from what is in them then."""
    sessions: Callable[[str | None], Mapping[str, Main]]
    """Planted bug (or None) -> name -> main function. A session that ends with an error violates the case."""
    wrong: Callable[[Evidence], list[str]]
    """What is wrong with the outcome, a sentence each."""
    sometimes: tuple[Sometimes, ...] = ()
    plants: tuple[Plant, ...] = ()
    rewrites: Mapping[str, Rewrite] = field(default_factory=dict)
    """Of the planted bugs that are made by rewriting statements: by the plant's name."""
    preemptions: int | None = None
    """How often a session that could go on inside its transaction is interrupted, at most. None: without limit; of three
    sessions, `PREEMPTIONS_OF_THREE`."""

    def __post_init__(self) -> None:
        names = [plant.name for plant in self.plants]
        if len(set(names)) < len(names) or not self.rewrites.keys() <= set(names):
            raise InvalidInput(f"{self.name}: each planted bug has a name of its own, and each rewriting is one's")
        if self.preemptions is not None and self.preemptions < 0:
            raise InvalidInput(f"{self.name}: `preemptions` is a number from 0 on, or None for all")


def replaced(name: str, old: str, new: str) -> Rewrite:
    """A planted bug: in the statement called `name`, `new` stands for `old`.

    The rewriting raises `HarnessError` where the statement has no such part (any more): a bug that cannot be planted shows
    nothing.
    """

    def rewrite(call: Call) -> Call:
        if call.statement.name != name:
            return call
        return call._replace(statement=_with(call.statement, old, new))

    return rewrite


def dropped(name: str) -> Rewrite:
    """A planted bug: the statement called `name` is never sent."""
    return lambda call: None if call.statement.name == name else call


def together(*rewrites: Rewrite) -> Rewrite:
    """A planted bug: all of these, one after the other."""

    def rewrite(call: Call) -> Call | None:
        rewritten: Call | None = call
        for each in rewrites:
            rewritten = None if rewritten is None else each(rewritten)
        return rewritten

    return rewrite


@functools.cache  # bounded: by the planted bugs; and engines keep what they rendered of each statement
def _with(statement: Statement, old: str, new: str) -> Statement:
    text = statement.postgres or statement.text
    if old not in text:
        raise HarnessError(f"{statement.name} has no {old!r} to plant a bug in: {text}")
    return dataclasses.replace(statement, postgres=text.replace(old, new))

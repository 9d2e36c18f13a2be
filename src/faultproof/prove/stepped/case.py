"""A case: a few sessions at the same time, what must be true whatever their order, and bugs that it must catch.

Conditions that matter only between two snapshots or two writers cannot be shown in simulation, whose SQLite has one of
each. They are shown here, on PostgreSQL itself; `docs/stepped.md` says how to write one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from faultproof.clock import Env
from faultproof.errors import InvalidInput
from faultproof.ports.database import Database
from faultproof.ports.script import Call
from faultproof.ports.statement import Statement
from faultproof.prove.proof import Plant

if TYPE_CHECKING:
    from faultproof.prove.stepped.database import SteppedDatabase

T = TypeVar("T")

SESSIONS_MAX = 3
PREEMPTIONS_OF_THREE = 3
"""Three sessions have too many interleavings for all of them; few bugs need more changes of hand than this."""

Rewrite = Callable[[Call], Call | None]
"""Sees every statement before it is sent: the same, another one, or None to leave it out."""


class Process(Protocol):
    """What a session's main function is given."""

    name: str
    incarnation: int
    env: Env

    def database(self) -> SteppedDatabase:
        """The database, over a connection of this session's own."""
        ...

    def note(self, kind: str, *facts: Any) -> None:
        """Tell the outside world something that cannot be taken back: an answer to a client."""
        ...

    async def outside(self, what: str, act: Callable[[dict[str, Any]], T]) -> T:
        """A request to a service outside, which keeps its own state; a step of its own."""
        ...


Main = Callable[[Process], Coroutine[Any, Any, None]]


class Evidence(Protocol):
    """What is judged, once all sessions have ended."""

    @property
    def notes(self) -> Sequence[tuple[Any, ...]]:
        """What was noted, in order: the kind, and the facts."""
        ...

    @property
    def outside(self) -> Mapping[str, Any]:
        """The states of the services outside."""
        ...

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """A query on what is committed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sometimes:
    """The interesting thing that has to happen in some interleaving, or the case has shown nothing."""

    claim: str
    happened: Callable[[Evidence], bool]


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

    The rewriting raises `InvalidInput` where the statement has no such part (any more): a bug that cannot be planted would
    be survived by everything.
    """

    def rewrite(call: Call) -> Call:
        if call.statement.name != name:
            return call
        return call._replace(statement=_with(call.statement, old, new))

    return rewrite


def dropped(name: str) -> Rewrite:
    """A planted bug: the statement called `name` is never sent."""
    return lambda call: None if call.statement.name == name else call


@functools.cache  # bounded: by the planted bugs; and engines keep what they rendered of each statement
def _with(statement: Statement, old: str, new: str) -> Statement:
    text = statement.postgres or statement.text
    if old not in text:
        raise InvalidInput(f"{statement.name} has no {old!r} to plant a bug in: {text}")
    return dataclasses.replace(statement, postgres=text.replace(old, new))

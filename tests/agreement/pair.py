"""Two databases that must give the same answers: a history is played on both, and all that either says is compared.

Time is the engines' own, and PostgreSQL's cannot be set. So no operation asks for anything that a few seconds more or
less decide: leases and delays are an hour, and `ELAPSE_S` passes by making what is stored older, in both.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import faultproof as fp
from faultproof.clock import Env, SystemClock
from faultproof.errors import FaultproofError
from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import Script
from tests.fakes import FixedRng, env_of

T = TypeVar("T")

HOUR_US = 3_600_000_000
ELAPSE_S = 5_400
"""What `elapse` lets pass: more than the hour of a lease or delay, and so far from any sum of them that seconds do not
matter."""
_GRAIN_US = 1_800_000_000


class Operation(NamedTuple):
    """One step of a history: a method of the world that it is played in, and its arguments."""

    name: str
    arguments: tuple[Any, ...]


History = Sequence[Operation]


class World(Protocol):
    """What histories of one kind are played in: a method for each operation, and these."""

    async def begin(self) -> None:
        """Make what every history starts with."""
        ...

    async def tables(self) -> object:
        """What is stored at the end, without times and whatever else may differ."""
        ...


Make = Callable[[Database, str], World]


class Disagreement(AssertionError):
    """The engines did not answer alike."""


class Later(SystemClock):
    """The machine's clock, but for intervals, which are as long as a history says."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.shift_s


class Numbered:
    """Ids by number, from the beginning for each history: the partition of an event without a key depends on its id."""

    def __init__(self) -> None:
        self.restart()

    def restart(self, at: int = 0) -> None:
        self._numbers = itertools.count(at)

    def new(self) -> str:
        return f"{next(self._numbers):032x}"


def env() -> Env:
    """The same for both."""
    return env_of(clock=Later(), ids=Numbered(), rng=FixedRng(0.5), process="p")


class Pair:
    """The two databases, and names that no history has had before."""

    def __init__(self, *databases: Database) -> None:
        self.databases = databases
        self.played = 0
        self.operations = 0
        self._names = (f"h{number}" for number in itertools.count())

    async def agree(self, make: Make, history: History) -> None:
        """Play the history on both. Raises `Disagreement` at the first answer that differs."""
        name = next(self._names)
        ours, theirs = await asyncio.gather(*(_played(make, database, name, history) for database in self.databases))
        for step, mine, other in zip([*history, "tables"], ours, theirs, strict=True):
            if mine != other:
                raise Disagreement(f"{step}: SQLite says {mine}, PostgreSQL {other}")
        self.played += 1
        self.operations += len(history)


@asynccontextmanager
async def connected(sqlite: str, postgres: str) -> AsyncIterator[Pair]:
    """Both databases, with commits that need not survive the machine: what is compared is what they answer."""
    options = "options=-csynchronous_commit%3Doff"
    async with (
        fp.connect(f"sqlite:///{sqlite}?synchronous=normal", env=env()) as one,
        fp.connect(f"{postgres}?{options}", env=env()) as other,
    ):
        yield Pair(one, other)


async def _played(make: Make, database: Database, name: str, history: History) -> list[object]:
    ids = database.env.ids
    assert isinstance(ids, Numbered)
    ids.restart()
    world = make(database, name)
    await world.begin()
    ids.restart(at=1_000)  # a transaction that was begun again may have drawn some twice
    answers = [await told(getattr(world, step.name)(*step.arguments)) for step in history]
    return [*answers, await world.tables()]


async def told(call: Awaitable[object]) -> object:
    """What a caller gets: an answer, or the kind of an error."""
    try:
        return await call
    except FaultproofError as error:
        return type(error).__name__


class Undo(Exception):
    """Rolls a transaction back."""


async def in_one_transaction(
    database: Database, scripts: Sequence[Callable[[], Script[object]]], *, commit: bool
) -> list[object]:
    """The answers of several scripts in one transaction, which is then committed or rolled back."""
    answers: list[object] = []
    try:
        async with database.transaction() as tx:
            for script in scripts:
                answers.append(await told(_run(tx, script)))
            if not commit:
                raise Undo
    except Undo:
        answers.append("rolled back")
    return answers


async def _run(tx: Transaction, script: Callable[[], Script[T]]) -> T:
    return await tx.run(script())


def coarse(us: int | None) -> int | None:
    """A time or an age, in half hours: so coarse that both engines' clocks agree."""
    return None if us is None else round(us / _GRAIN_US)

"""A proof: a claim, a workload, the faults it holds under, properties to judge, and planted bugs that show it can fail.

One proof runs in several worlds, so it says nothing about how it is run: its processes get what they need from the
`Process` they are given, and its properties are pure functions of the `Evidence` that a run leaves behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from faultproof.clock import Env
from faultproof.ports.database import Database

T = TypeVar("T")


class Process(Protocol):
    """What a process's main function is given, in every world.

    A process that dies, of a fault or of its own error, is started again from the beginning of its main function, as a
    supervisor would: so what it asks for must be idempotent.
    """

    @property
    def name(self) -> str:
        """The same after each death; `env.process` tells one life from the next."""
        ...

    @property
    def incarnation(self) -> int:
        """Lives of this name before this one."""
        ...

    @property
    def env(self) -> Env:
        """Clock, randomness and ids: the only ones it may use."""
        ...

    def database(self) -> Database:
        """The world's database."""
        ...

    def note(self, kind: str, *facts: Any) -> None:
        """Tell the outside something that cannot be taken back: an answer to a client, an e-mail sent. Facts are what JSON
        can carry."""
        ...

    async def outside(self, what: str, act: Callable[[dict[str, Any]], T]) -> T:
        """A request to a service outside, named for the report: `act` reads and changes that service's own state at once
        (what JSON can carry). Who asks may die before it arrives, or before its answer does; in some runs the answer is lost
        (`OutcomeUnknown`) or the request arrives twice."""
        ...


class Evidence(Protocol):
    """What a run leaves behind, to be judged."""

    @property
    def notes(self) -> Sequence[tuple[Any, ...]]:
        """Everything that was told to the outside, in order: kind and facts."""
        ...

    @property
    def outside(self) -> Mapping[str, Any]:
        """The state of the services outside."""
        ...

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """A query on what is committed."""
        ...


Main: TypeAlias = Callable[[Process], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Always:
    """What must hold after every commit (in simulation; between commits, again and again, elsewhere)."""

    claim: str
    wrong: Callable[[Evidence], list[str]]
    """A sentence for whatever is not as claimed."""


@dataclass(frozen=True, kw_only=True)
class Eventually:
    """What must hold once no fault strikes any more and all work is done, within the limits of the run."""

    claim: str
    wrong: Callable[[Evidence], list[str]]


@dataclass(frozen=True, kw_only=True)
class Sometimes:
    """What must have happened in one run at least, or the proof has not shown what it seems to."""

    claim: str
    happened: Callable[[Evidence], bool]


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A bug planted by hand. Its name is handed to the workload, which breaks itself accordingly."""

    name: str
    breaks: str
    """Which guard is missing, and what must therefore go wrong."""


@dataclass(frozen=True, kw_only=True)
class Survivor:
    """Derived mutants (`prove.mutants`) that a proof does not notice, and why that is no fault of the proof's."""

    mutants: tuple[str, ...]
    """By kind and name, as `faultproof prove --mutants` prints them."""
    reason: str
    twin: str | None = None
    """Another mutant, whose guard does the same work: without both of them at once the proof must notice."""
    stepped: str | None = None
    """`pkg.module:CASE`, the case of the stepped world that does notice: what matters only between two writers or two
    snapshots, of which simulated SQLite has one each."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is claimed, how it is tried, and what was not tried."""

    name: str
    """`pkg.module:NAME`, where it can be imported from."""
    claim: str
    faults: tuple[str, ...]
    assumptions: tuple[str, ...]
    not_tested: tuple[str, ...]
    prepare: Callable[[Database], Awaitable[None]]
    """Makes the tables, once; every run begins from a copy."""
    processes: Callable[[str | None], Mapping[str, Main]]
    """Each process's main function by its name, broken by the planted bug that is named, if any."""
    done: Callable[[Evidence], bool]
    """Whether everything that was asked for has happened. It must come, whatever faults have struck."""
    always: tuple[Always, ...] = ()
    eventually: tuple[Eventually, ...]
    sometimes: tuple[Sometimes, ...]
    plants: tuple[Plant, ...] = ()
    survivors: tuple[Survivor, ...] = ()
    answers_for: tuple[str, ...] = ()
    """Modules outside its own package whose statements its mutants are made of too, as the names of these begin."""


ANY_FAULT = (
    "a process dies before or after any commit, request or answer, and is started again",
    "it is frozen there for longer than any lease, replaced, and wakes up",
    "in random runs: no answer to a commit or a request, carried out or not; connections lost, processes cut off, a slow "
    "database; messages lost, late or doubled; clocks that jump or differ; power failures",
)
"""What simulation does to every proof."""


def noted(evidence: Evidence, kind: str) -> set[Any]:
    """The first fact of every note of a kind."""
    return {note[1] for note in evidence.notes if note[0] == kind}

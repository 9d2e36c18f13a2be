"""A proof without mutants: what it does, beside neighbours, in the runs that every mutant is tried in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

from faultproof.prove.harness import HarnessError
from faultproof.prove.mutants.images import opened
from faultproof.prove.mutants.neighbours import Neighbourhood, neighbourhood
from faultproof.prove.mutants.observe import Observed, observing
from faultproof.prove.proof import Proof
from faultproof.prove.simulated.explore import Explorer, Variation, prepared
from faultproof.prove.simulated.lanes import MemoryStore, NestedConnection
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.simulated.world import Limits, World


class Work(NamedTuple):
    """What the undisturbed run asks of the database."""

    instructions: int
    """Of SQLite's virtual machine."""
    milliseconds: int
    """Of virtual time."""


class Reference(NamedTuple):
    """A proof that holds, and what its mutants are made from and measured by."""

    proof: Proof
    image: bytes
    """The prepared database, with neighbours."""
    neighbours: Neighbourhood
    observed: Observed
    limits: Limits
    """Ample for every run that was made."""
    work: Work
    seen: frozenset[str]
    """The claims of those `Sometimes` that happened in these runs."""


class Run(NamedTuple):
    """One of those that every mutant is tried in, and what came of it."""

    how: str
    """It was chosen."""
    world: World | None
    """As it ended; None if the proof's own code could not judge it."""
    faults: tuple[str, ...]
    wrong: list[str]


Runs = Callable[[Explorer], Iterator[Run]]


def reference(proof: Proof, runs: Runs) -> Reference:
    """Raises `HarnessError` if the proof does not hold by itself: then nothing can be said about its mutants."""
    image, seen = prepared(proof), Observed(moments=[])
    store = partial(MemoryStore, connection=observing(seen))
    Explorer(proof, variation=Variation(image=image, store=store)).run(Tape(), faults_max=0)
    neighbours = neighbourhood(image, seen)
    image = neighbours.populated(image, seen.moments or [])

    observed = Observed()
    explorer = Explorer(proof, variation=beside(neighbours, image, observing(observed)))
    claims = {each.claim for each in proof.sometimes}
    missing = set(claims)
    for run in runs(explorer):
        missing -= happened(proof, missing, run)
        if run.wrong:
            raise HarnessError(
                f"{proof.name} does not hold beside neighbours ({run.how}, {run.faults}): {run.wrong[0]}"
            )
    limits = Limits(steps=4 * explorer.longest.steps + 2_000, seconds=3 * explorer.longest.seconds + 5)
    return Reference(proof, image, neighbours, observed, limits, worked(explorer), frozenset(claims - missing))


def happened(proof: Proof, claims: Set[str], run: Run) -> set[str]:
    """Which of these claims of the proof's `sometimes` did happen in this run."""
    world = run.world
    if world is None:
        return set()
    return {each.claim for each in proof.sometimes if each.claim in claims and each.happened(world)}


class _Neighbourly(MemoryStore):
    """A database with neighbours, whom those who judge do not see."""

    def __init__(self, image: bytes, *, neighbours: Neighbourhood, connection: type[NestedConnection]) -> None:
        super().__init__(image, connection=connection)
        self.is_judged = False
        """At this moment: by somebody who is no part of what is judged."""
        self._neighbours = neighbours

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        with self.judged():
            return super().fetch(self._neighbours.hidden(sql))

    @contextmanager
    def judged(self) -> Iterator[None]:
        self.is_judged = True
        try:
            yield
        finally:
            self.is_judged = False


def beside(neighbours: Neighbourhood, image: bytes, connection: type[NestedConnection]) -> Variation:
    """A world with neighbours: whoever judges does not see them, and they must be untouched at the end."""
    with closing(opened(image)) as database:
        before = neighbours.of(database)

    def judge(store: MemoryStore) -> list[str]:
        assert isinstance(store, _Neighbourly)
        with store.judged():
            after = neighbours.of(store.raw)
        return [f"neighbours in {table} were touched" for table in before if before[table] != after[table]]

    return Variation(
        image=image, store=partial(_Neighbourly, neighbours=neighbours, connection=connection), judge=judge
    )


def worked(explorer: Explorer) -> Work:
    """The undisturbed run's, but for what judging it takes."""
    instructions, store = 0, explorer.store
    assert isinstance(store, _Neighbourly)

    def count() -> int:
        nonlocal instructions
        instructions += not store.is_judged
        return 0

    store.raw.set_progress_handler(count, 1)
    world, _ = explorer.run(Tape(), faults_max=0)
    store.raw.set_progress_handler(None, 0)
    return Work(instructions, round(world.loop.now * 1000))

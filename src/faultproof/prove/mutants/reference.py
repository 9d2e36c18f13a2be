"""A proof without mutants: what it does, beside neighbours, in the runs that every mutant is tried in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
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
from faultproof.prove.simulated.world import Limits


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


Runs = Callable[[Explorer], Iterator[tuple[str, tuple[str, ...], list[str]]]]


def reference(proof: Proof, runs: Runs) -> Reference:
    """Raises `HarnessError` if the proof does not hold by itself: then nothing can be said about its mutants."""
    image, seen = prepared(proof), Observed(moments=[])
    store = partial(MemoryStore, connection=observing(seen))
    Explorer(proof, variation=Variation(image=image, store=store)).run(Tape(), faults_max=0)
    neighbours = neighbourhood(image, seen)
    image = neighbours.populated(image, seen.moments or [])

    observed = Observed()
    explorer = Explorer(proof, variation=beside(neighbours, image, observing(observed)))
    for how, faults, wrong in runs(explorer):
        if wrong:
            raise HarnessError(f"{proof.name} does not hold beside neighbours ({how}: {faults}): {'; '.join(wrong)}")
    limits = Limits(steps=4 * explorer.longest.steps + 2_000, seconds=3 * explorer.longest.seconds + 5)
    return Reference(proof, image, neighbours, observed, limits, worked(explorer))


def beside(neighbours: Neighbourhood, image: bytes, connection: type[NestedConnection]) -> Variation:
    """A world with neighbours: whoever judges does not see them, and they must be untouched at the end."""
    with closing(opened(image)) as database:
        before = neighbours.of(database)

    class Neighbourly(MemoryStore):
        def fetch(self, sql: str) -> list[tuple[Any, ...]]:
            return super().fetch(neighbours.hidden(sql))

    def judge(store: MemoryStore) -> list[str]:
        after = neighbours.of(store.raw)
        return [f"neighbours in {table} were touched" for table in before if before[table] != after[table]]

    return Variation(image=image, store=partial(Neighbourly, connection=connection), judge=judge)


def worked(explorer: Explorer) -> Work:
    """The undisturbed run's."""
    instructions = 0

    def count() -> int:
        nonlocal instructions
        instructions += 1
        return 0

    explorer.store.raw.set_progress_handler(count, 1)
    world, _ = explorer.run(Tape(), faults_max=0)
    explorer.store.raw.set_progress_handler(None, 0)
    return Work(instructions, round(world.loop.now * 1000))

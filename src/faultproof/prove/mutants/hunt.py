"""Exploring mutants until each is killed: the same runs for all of them, cheap ones first, and an end to trying.

A mutant is killed by the first run whose outcome the proof calls wrong. The very same runs without any mutant must hold;
they also tell how long a run may take, so that a mutant which only never ends is not waited for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias

from faultproof.prove.harness import Tell, in_processes
from faultproof.prove.mutants.constraints import relaxed, would_refuse
from faultproof.prove.mutants.mutant import Mutant
from faultproof.prove.mutants.reference import Reference, Run, Work, beside, happened, worked
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer, Variation, worth_striking
from faultproof.prove.simulated.faults import CRASH, EVERY, FREEZE, Fault
from faultproof.prove.simulated.lanes import MemoryStore
from faultproof.prove.simulated.mutated import AFTER_CUT, BEHIND_ANSWER, Difference, connected, laid
from faultproof.prove.simulated.tape import Tape


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a mutant is tried on each proof, after the undisturbed run."""

    points: int | None = 16
    """At how many points, evenly spread, each fault strikes alone; None: at all."""
    seeds: int = 14
    """Random schedules with up to three random faults."""
    pairs: int = 0
    """Of crashes, chosen at random among all."""


class Killed(NamedTuple):
    """The run that a mutant did not survive."""

    proof: str
    how: str
    faults: tuple[str, ...]
    sentence: str


Fate: TypeAlias = Literal["killed", "dearer", "idle", "survived"]
FATES: tuple[Fate, ...] = ("killed", "dearer", "idle", "survived")


class Outcome(NamedTuple):
    """What became of a mutant."""

    mutant: str
    kind: str
    killed: Killed | None
    dearer: str | None
    """How much more work the undisturbed run was, if that is all that could be seen."""
    is_idle: bool
    """In none of its runs did it change what any statement answered, or what any table held or was told too early: what
    the guard is there for did not come up."""
    schedules: int

    @property
    def label(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.mutant}"

    @property
    def fate(self) -> Fate:
        """In a word."""
        return "killed" if self.killed else "dearer" if self.dearer else "idle" if self.is_idle else "survived"


@dataclass(frozen=True)
class Target:
    """A mutant, and the proofs in whose runs its statements are executed."""

    mutant: Mutant
    references: tuple[Reference, ...]


def hunt(
    targets: Sequence[Target], effort: Effort, *, processes: int = 2, progress: Tell | None = None
) -> list[Outcome]:
    """What becomes of each, in the order given. `progress` hears how many have been tried.

    Raises `HarnessError` when a run could not be carried out.
    """

    def job(part: int, tell: Tell) -> list[tuple[int, Outcome]]:
        found = []
        with no_escapes():
            for number in range(part, len(targets), processes):
                found.append((number, tried(targets[number], effort)))
                tell(len(found))
        return found

    parts = in_processes(job, processes, progress or (lambda count: None))
    return [outcome for _, outcome in sorted(pair for part in parts for pair in part)]


def tried(target: Target, effort: Effort) -> Outcome:
    """Run it on each of its proofs until one notices, or all of the effort is spent."""
    mutant, schedules, dearer, difference = target.mutant, 0, None, Difference()
    for reference in target.references:
        explorer, proof = hunting(mutant, reference, difference), reference.proof
        missing = set(reference.seen)
        for run in runs(explorer, effort):
            schedules += 1
            missing -= happened(proof, missing, run)
            if run.wrong:
                killed = Killed(proof.name, run.how, run.faults, run.wrong[0])
                return Outcome(mutant.name, mutant.kind, killed, None, False, schedules)
        if missing:  # a proof that has become vacuous is inconclusive, which is another way of noticing
            killed = Killed(proof.name, "vacuity", (), f"never happened: {'; '.join(sorted(missing))}")
            return Outcome(mutant.name, mutant.kind, killed, None, False, schedules)
        if mutant.kind in ("statement", "condition"):
            with difference.unobserved():
                dearer = dearer or _dearer(worked(explorer), reference.work)
    return Outcome(mutant.name, mutant.kind, None, dearer, not difference.made, schedules)


def hunting(mutant: Mutant, on: Reference, difference: Difference) -> Explorer:
    """What runs the proof with that mutant, beside its neighbours."""
    image = relaxed(on.image, mutant.constraints) if mutant.constraints else on.image
    variation = beside(on.neighbours, image, connected(mutant, difference))
    if mutant.constraints:
        variation = replace(variation, judge=_refusing(variation, mutant, on, difference))
    if mutant.is_about_transactions:
        variation = replace(variation, lane=laid(mutant, difference))
    return Explorer(on.proof, variation=replace(variation, limits=on.limits))


def _refusing(
    variation: Variation, mutant: Mutant, on: Reference, difference: Difference
) -> Callable[[MemoryStore], list[str]]:
    def judge(store: MemoryStore) -> list[str]:
        difference.made = difference.made or would_refuse(on.image, mutant.constraints, store.raw)
        return variation.judge(store) if variation.judge else []

    return judge


def _dearer(work: Work, usual: Work) -> str | None:
    """A hundredth more at least, or what it saves itself would count."""
    for name, now, before in zip(Work._fields, work, usual, strict=True):
        if now > before and now * 100 >= before * 101:
            return f"{now:,} {name} instead of {before:,}"
    return None


_CHANCES = (0.0, 0.02, 0.05)
"""That a fault strikes at a place where it could: also none, since most mutants need only another order."""
_FAULTS_MAX = 3
_CUTS_MAX = 40


def runs(explorer: Explorer, effort: Effort) -> Iterator[Run]:
    """Without a fault; then some at random, since most mutants are killed by most runs; then in order."""
    undisturbed = _run(explorer, "no fault", Tape())
    yield undisturbed
    if undisturbed.world is None:
        return
    points = undisturbed.world.points
    strikes = list(worth_striking(points, (CRASH, FREEZE)))
    # Where a mutant has cut a transaction is where it can be struck.
    cuts = [point for point in points if point.label in (AFTER_CUT, BEHIND_ANSWER) and point.when == "before"]
    first = islice(worth_striking(cuts, (FREEZE, CRASH, Fault.SLOW)), _CUTS_MAX)
    yield from (_run(explorer, "one fault", Tape({at: fault})) for at, fault in first)
    few = min(12, effort.seeds)
    yield from (_at_random(explorer, seed) for seed in range(few))
    step = max(1, len(strikes) // effort.points) if effort.points else 1
    yield from (_run(explorer, "one fault", Tape({at: fault})) for at, fault in strikes[::step])
    yield from (_at_random(explorer, seed) for seed in range(few, effort.seeds))
    crashes = [at for at, fault in strikes if fault == CRASH]
    yield from (_run(explorer, "two faults", tape) for tape in _pairs(crashes, effort.pairs))


def _at_random(explorer: Explorer, seed: int) -> Run:
    return _run(explorer, "chance", *explorer.schedule(seed, _CHANCES[seed % 3]))


def _pairs(crashes: list[int], count: int) -> Iterator[Tape]:
    rng = random.Random(count)  # noqa: S311  # a schedule, not a secret
    for _ in range(count if crashes else 0):
        first = rng.choice(crashes)
        yield Tape({first: CRASH, first + rng.randrange(1, 1 + crashes[-1]): CRASH})


def _run(explorer: Explorer, how: str, tape: Tape, faults: frozenset[Fault] = EVERY) -> Run:
    try:
        world, wrong = explorer.run(tape, faults_max=_FAULTS_MAX, faults=faults)
    except Exception as error:  # rows are such that the proof's own code cannot read them: it has noticed
        return Run(how, None, (), [f"judging ended in {error!r}"])
    return Run(how, world, tuple(world.faults), wrong)

"""Exploring a proof in simulation: every point once, every pair of points, then at random.

Depth 1 strikes with each fault at each point of the undisturbed run. Depth 2 takes each of those runs and strikes again
at each point that it passes afterwards: also while the first crash is being recovered from. Equivalent points (see
`world.Point`) are tried once; both counts are reported. Work is split over processes by the first point.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from faultproof.engines.sqlite.connection import Synchronous
from faultproof.errors import OutcomeUnknown, TryAgain
from faultproof.prove.harness import Tell, in_processes
from faultproof.prove.proof import Process, Proof
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.faults import CRASH, EVERY, FREEZE, Fault, Point
from faultproof.prove.simulated.lanes import FileStore, MemoryStore, SimLane, Store
from faultproof.prove.simulated.looking import Looking, judged
from faultproof.prove.simulated.loop import StepLimit
from faultproof.prove.simulated.process import Process as SimProcess
from faultproof.prove.simulated.tape import Priorities, Tape, shrink
from faultproof.prove.simulated.world import Granularity, Limits, World


class Violation(NamedTuple):
    """A run whose outcome was wrong: what was wrong, which faults struck, and the tape that repeats it."""

    sentences: tuple[str, ...]
    faults: tuple[str, ...]
    answers: dict[int, int]


@dataclass
class Report:
    """What an exploration did."""

    schedules: int = 0
    """Runs made: crash (or freeze), recover, check."""
    points: int = 0
    """Faults that could strike: places times kinds, summed over the runs that were branched from."""
    distinct: int = 0
    """Those left when equivalent ones are counted once; each was tried (in random runs: the faults that struck)."""
    first_points: int = 0
    """Of the points, those of the undisturbed run."""
    first_distinct: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """The claims of those `Sometimes` that did happen."""
    fired: set[Fault] = field(default_factory=set)
    """Kinds of faults that struck at least once."""
    offered: set[Fault] = field(default_factory=set)
    """Kinds that could have struck, in random runs."""

    @property
    def unstruck(self) -> list[str]:
        """Kinds that could have struck, and never did: what random runs show nothing about."""
        return [fault.name.lower() for fault in sorted(self.offered - self.fired)]

    def add(self, other: Report) -> None:
        """Count another part of the same exploration."""
        self.schedules += other.schedules
        self.points += other.points
        self.distinct += other.distinct
        self.first_points += other.first_points
        self.first_distinct += other.first_distinct
        self.violations.extend(other.violations)
        self.seen |= other.seen
        self.fired |= other.fired
        self.offered |= other.offered

    @property
    def rate(self) -> float:
        """Schedules a second."""
        return self.schedules / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Another world for the same proof: a mutant's, or one in which statements are written down."""

    image: bytes | None = None
    """Instead of what the proof prepares."""
    store: Callable[[bytes], MemoryStore] = MemoryStore
    judge: Callable[[MemoryStore], list[str]] | None = None
    """What else must be true at the end."""
    lane: Callable[[SimProcess, Store, str], SimLane] = SimLane
    limits: Limits | None = None


PCT_DEPTH = 3
"""How many events in one order a bug may need that random priorities are likely to find."""
VIOLATIONS_MAX = 20
TELL_EVERY = 20
"""Schedules after which a process says how far it is: several times a second."""


class Explorer:
    """Runs one proof, or one of its planted bugs, again and again in one operating-system process."""

    def __init__(
        self,
        proof: Proof,
        plant: str | None = None,
        *,
        granularity: Granularity = "commit",
        tell: Tell | None = None,
        world: Callable[..., World] = World,
        variation: Variation | None = None,
    ) -> None:
        self._proof = proof
        self._variation = variation or Variation()
        self._plant = plant
        self._granularity = granularity
        self._tell = tell
        self._world = world
        self._runs = 0
        self.longest = Limits(steps=0, seconds=0.0)
        """What the longest of the runs so far have taken."""
        self.image = self._variation.image or prepared(proof)
        self.store = self._variation.store(self.image)

    def run(
        self,
        tape: Tape,
        *,
        faults_max: int,
        faults: frozenset[Fault] = EVERY,
        files: Path | None = None,
        synchronous: Synchronous = "full",
    ) -> tuple[World, list[str]]:
        """One run; the world as it ended, and what is wrong with it. With `files`, on real WAL files there."""
        store: Store
        store = self.store if files is None else FileStore(files, self.image, synchronous=synchronous)
        world = self._world(
            store,
            tape,
            granularity=self._granularity,
            faults_max=faults_max,
            faults=faults,
            limits=self._variation.limits,
            lane=self._variation.lane,
        )
        store.reset(world.wall_us)
        proof, wrong = self._proof, list[str]()
        if proof.always:
            world.watchers.append(Looking(proof.always, world, wrong))
        try:
            for name, main in proof.processes(self._plant).items():
                world.spawn(name, main)
            try:
                # Whoever died of its own error has violated the claim, and might do so for ever.
                world.run(lambda: bool(_deaths(world)) or proof.done(world))
            except StepLimit as error:
                return world, [*wrong, f"not finished: {error}"]
            wrong += _deaths(world)
            if self._variation.judge is not None:
                wrong += self._variation.judge(self.store)
            return world, wrong + judged(proof.eventually, world)
        finally:
            self._count(world)
            world.close()
            if isinstance(store, FileStore):
                store.close()

    def _count(self, world: World) -> None:
        self._runs += 1
        longest, loop = self.longest, world.loop
        if loop.steps > longest.steps or loop.now > longest.seconds:
            self.longest = Limits(steps=max(loop.steps, longest.steps), seconds=max(loop.now, longest.seconds))
        if self._tell is not None and self._runs % TELL_EVERY == 0:
            self._tell(self._runs)

    def strike(self, report: Report, answers: Mapping[int, int], *, faults_max: int) -> World:
        """One run from given answers, counted."""
        return self._counted(report, Tape(dict(answers)), faults_max=faults_max)

    def _counted(self, report: Report, tape: Tape, *, faults_max: int, faults: frozenset[Fault] = EVERY) -> World:
        world, wrong = self.run(tape, faults_max=faults_max, faults=faults)
        report.schedules += 1
        if wrong and len(report.violations) < VIOLATIONS_MAX:
            report.violations.append(Violation(tuple(wrong), tuple(world.faults), dict(tape.answers)))
        report.fired |= world.fired
        report.offered |= world.offered
        for each in self._proof.sometimes:
            if each.claim not in report.seen and each.happened(world):
                report.seen.add(each.claim)
        return world

    def depth(self, depth: int, *, part: int, parts: int, faults: Iterable[int]) -> Report:
        """Every point up to `depth` faults deep, of which this process takes each `parts`-th first point."""
        report, faults = Report(), tuple(faults)
        world = self.strike(report, {}, faults_max=1)
        strikes = list(worth_striking(world.points, faults))
        if part == 0:
            report.points = report.first_points = _places(world.points, faults)
            report.distinct = report.first_distinct = len(strikes)
        else:
            report.schedules = 0  # the undisturbed run is counted once
        for position, fault in strikes[part::parts]:
            self._deeper(report, {position: fault}, depth, faults)
        return report

    def _deeper(self, report: Report, answers: dict[int, int], depth: int, faults: tuple[int, ...]) -> None:
        world = self.strike(report, answers, faults_max=depth)
        if len(answers) == depth:
            return
        last = max(answers)
        points = [point for point in world.points if point.position > last]
        strikes = list(worth_striking(points, faults))
        report.points += _places(points, faults)
        report.distinct += len(strikes)
        for position, fault in strikes:
            self._deeper(report, {**answers, position: fault}, depth, faults)

    def sample(self, seeds: Iterable[int], *, faults_max: int = 3, chance: float = 0.02) -> Report:
        """Random schedules, random faults.

        Every second schedule is by priorities (`tape.Priorities`), the others are uniformly random. In each run a random half
        of the kinds of faults may strike, so that rare ones are not drowned by common ones (Groce, Zhang, Eide, Chen,
        Regehr: Swarm Testing, ISSTA 2012).
        """
        report = Report()
        for seed in seeds:
            tape, faults = self.schedule(seed, chance)
            world = self._counted(report, tape, faults_max=faults_max, faults=faults)
            report.points += len(world.points)
            report.distinct += len(world.faults)
        return report

    def strike_what_never_did(self, report: Report, seed: int) -> Report:
        """One run more for each kind of fault that could have struck in a random run and never has, at a random place: a few
        schedules would leave it to chance which faults they show anything about."""
        rng = random.Random(seed)  # noqa: S311  # not a secret
        more = Report()
        world, _ = self.run(Tape(), faults_max=1)
        for fault in sorted(report.offered - report.fired):
            places = [position for position, _ in worth_striking(world.points, (fault,))]
            if places:
                more.distinct += len(self.strike(more, {rng.choice(places): fault}, faults_max=1).faults)
        return more

    def schedule(self, seed: int, chance: float) -> tuple[Tape, frozenset[Fault]]:
        """A random one, and the kinds of faults that may strike in it."""
        rng = random.Random(seed)  # noqa: S311  # not a secret
        faults = frozenset(fault for fault in sorted(EVERY) if rng.random() < 0.5)
        priorities = Priorities(rng, depth=PCT_DEPTH, length=self.length) if seed % 2 else None
        return Tape(rng=rng, chance=chance, priorities=priorities), faults

    @cached_property
    def length(self) -> int:
        """Operations of the undisturbed run."""
        world, _ = self.run(Tape(), faults_max=0)
        return sum(process.operations for process in world.processes)

    def shrunk(self, violation: Violation, *, faults_max: int = 8) -> Violation:
        """A violation from the smallest tape found: one fault alone if any does it, or else what shrinking leaves."""

        def fails(answers: Mapping[int, int]) -> bool:
            return bool(self.run(Tape(dict(answers)), faults_max=faults_max)[1])

        start, wrong = self.run(Tape(), faults_max=1)
        kinds = sorted({CRASH, FREEZE} | (set(violation.answers.values()) & EVERY))
        singles = [{position: fault} for position, fault in worth_striking(start.points, kinds)]
        for single in [dict[int, int]()] * bool(wrong) + singles:
            if fails(single):
                world, wrong = self.run(Tape(single), faults_max=faults_max)
                return Violation(tuple(wrong), tuple(world.faults), dict(single))
        if not fails(violation.answers):  # it depended on how many faults were allowed
            return violation
        answers = shrink(violation.answers, fails)
        world, wrong = self.run(Tape(answers), faults_max=faults_max)
        return Violation(tuple(wrong), tuple(world.faults), answers)


def _deaths(world: World) -> list[str]:
    return [f"{name} died of {error!r}" for name, error in world.deaths if not _is_let_crash(error, world)]


def _is_let_crash(error: BaseException, world: World) -> bool:
    """Whether a process died of what the network did to it. Its supervisor has started it again, and it has asked again."""
    return bool(world.faults) and isinstance(error, TryAgain | OutcomeUnknown)


def prepared(proof: Proof) -> bytes:
    """The database that every run begins with."""
    store = MemoryStore()
    world = World(store, Tape())
    store.now = world.wall_us
    ready: list[bool] = []

    async def main(process: Process) -> None:
        await proof.prepare(process.database())
        ready.append(True)

    world.spawn("prepare", main)
    world.run(lambda: bool(ready) or bool(world.deaths))
    world.close()
    if world.deaths:
        raise world.deaths[0][1]
    return store.image()


def explore(
    proof: Proof,
    *,
    depth: int = 1,
    seeds: range | None = None,
    plant: str | None = None,
    granularity: Granularity = "commit",
    faults: Iterable[int] = (CRASH, FREEZE),
    processes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Explore exhaustively to `depth`, or the given seeds at random, on all cores; and then once more with each kind of fault
    that no random run was struck by.

    `progress` is told several times a second how many schedules have been run. Raises `HarnessError` when the proof
    itself fails: its tables cannot be made, or its code reaches for the real world.
    """
    parts = processes or min(2, os.cpu_count() or 1)
    faults = tuple(faults)

    def job(part: int, tell: Tell) -> Report:
        explorer = Explorer(proof, plant, granularity=granularity, tell=tell)
        with _keeping_memory(), no_escapes():
            if seeds is not None:
                return explorer.sample(seeds[part::parts])
            return explorer.depth(depth, part=part, parts=parts, faults=faults)

    def missing(seed: int) -> Report:
        with no_escapes():
            return Explorer(proof, plant, granularity=granularity).strike_what_never_did(report, seed)

    began, report = time.perf_counter(), Report()
    for part in in_processes(job, parts, progress or (lambda schedules: None)):
        report.add(part)
    if seeds and report.offered - report.fired and not report.violations:
        (more,) = in_processes(lambda part, tell: missing(seeds[0]), 1, lambda schedules: None)
        report.add(more)
    report.seconds = time.perf_counter() - began
    return report


@contextmanager
def _keeping_memory() -> Iterator[None]:
    """A run leaves little garbage; looking for it all the time costs a twentieth. And it takes memory that the next one takes
    again: glibc keeps what is freed, and gives none back to the system each time, once a block so large has been freed."""
    bytes(1 << 24)
    gc.collect()
    gc.freeze()  # what is here now stays; collections need not look at it again for each schedule
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _places(points: Iterable[Point], faults: tuple[int, ...]) -> int:
    return sum(fault in point.kinds for point in points for fault in faults)


def worth_striking(points: Iterable[Point], faults: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Tape position and fault, once for each set of equivalent places."""
    seen = set()
    for point in points:
        for fault in faults:
            key = (fault, point.key(fault))
            if fault in point.kinds and key not in seen:
                seen.add(key)
                yield point.position, fault

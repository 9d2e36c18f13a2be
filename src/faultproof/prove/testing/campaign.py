"""All schedules of one simulated test: undisturbed, every point once, then at random; the first that fails is shrunk."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import zip_longest
from random import Random
from typing import TypeVar

from faultproof.prove.simulated.explore import PCT_DEPTH
from faultproof.prove.simulated.faults import EVERY, Fault, Point
from faultproof.prove.simulated.loop import Escape
from faultproof.prove.simulated.tape import Priorities, Tape, shrink
from faultproof.prove.simulated.world import Limits
from faultproof.prove.testing.clocks import watched_clocks
from faultproof.prove.testing.trial import Run, Trial
from faultproof.prove.testing.words import shortened, spelled, struck
from faultproof.prove.testing.world import Body

T = TypeVar("T")

KINDS = tuple(sorted(EVERY - {Fault.POWER}))
"""The power would fail for the test as well."""
FAULTS_MAX = 3
"""Faults that may strike in one random schedule."""
CHANCE = 0.05
"""The probability that one strikes at a point of a random schedule."""
SHRINKING_RUNS_MAX = 300
SHRINKING_S = 10.0
"""Real seconds after which shrinking takes what it has."""
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_VACUOUS = (
    "No fault could strike: no process did anything between the beginning and the end of this test. Give the work to "
    "processes with `world.spawn`, wait with `await world.finished()`, and let them use the database of their own "
    "`process`; what the test does through `world.database()` is spared."
)


class NothingShown(Exception):
    """The test passed in every schedule, and that says nothing; the message says why."""


@dataclass
class Asked:
    """What whoever runs the test wants of it, and is told about it."""

    replay: str | None = None
    """The command that repeats one schedule of this test, up to the tape."""
    tape: Mapping[int, int] | None = None
    """Run this schedule alone."""
    said: list[str] = field(default_factory=list)
    """What was tried, in a sentence."""


ASKED: ContextVar[Asked | None] = ContextVar("faultproof_asked", default=None)
"""Set by the pytest plugin around each test; without it a test runs all the same."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How hard to try."""

    schedules: int
    tape: Mapping[int, int] | None
    limits: Limits


class Campaign:
    """Runs a test's schedules; raises what the first that fails raised, with the story of that schedule as a note."""

    def __init__(self, body: Body, plan: Plan) -> None:
        self._trial = Trial(body, plan.limits)
        self._plan = plan
        self._asked = ASKED.get() or Asked()
        self._done = 0
        self._claims: dict[str, bool] = {}

    def run(self) -> None:
        """All of them, or the one whose tape was given."""
        __tracebackhide__ = True
        try:
            self._run()
        finally:
            self._trial.close()

    def _run(self) -> None:
        __tracebackhide__ = True
        tape = self._plan.tape if self._asked.tape is None else self._asked.tape
        if tape is not None:
            self._replay(tape)
            return
        began = time.perf_counter()
        undisturbed = self._undisturbed()
        places = list(_places(undisturbed.world.points))
        if not places:
            raise NothingShown(_VACUOUS)
        left = self._plan.schedules - self._done
        chosen = spread(places, left)
        for position, fault in chosen:
            self._try(Tape({position: fault}), faults_max=1)
        seeds = range(left - len(chosen))
        for seed in seeds:
            self._at_random(seed, length=undisturbed.length)
        every = "every one" if len(chosen) == len(places) else f"{len(chosen):,}"
        tried = f"{every} of {len(places):,} places struck by a fault, {len(seeds):,} schedules at random"
        self._asked.said.append(f"{self._done:,} schedules in {time.perf_counter() - began:.1f} s: {tried}")
        never = [claim for claim, happened in self._claims.items() if not happened]
        if never:
            raise NothingShown(
                f"What was to happen sometimes never did, in {self._done} schedules: {'; '.join(never)}."
            )

    # -- the schedules ----------------------------------------------------------------------------------------------

    def _undisturbed(self) -> Run:
        """The schedule without a fault: twice, since no other could be repeated if these two differed."""
        __tracebackhide__ = True
        with watched_clocks() as asked:
            first = self._try(Tape(), faults_max=1)
        if asked:
            raise NothingShown(f"{asked[0]}: take the time from `process.env.clock`, or no schedule could be repeated.")
        lines = self._left_by(first)
        second = self._left_by(self._try(Tape(), faults_max=1))
        for one, other in zip_longest(lines, second):
            if one != other:
                raise NothingShown(
                    "No schedule of this test can be repeated: two undisturbed ones differ. Something in it draws real "
                    f"randomness, or keeps state from one schedule to the next (a global, a fixture).\n  once  {one}\n"
                    f"  then  {other}"
                )
        return first

    def _at_random(self, seed: int, *, length: int) -> None:
        """As an exploration of a proof does: every second by priorities, each with a random half of the kinds of faults."""
        __tracebackhide__ = True
        rng = Random(seed)  # noqa: S311  # a schedule, not a secret
        kinds = frozenset(kind for kind in KINDS if rng.random() < 0.5)
        priorities = Priorities(rng, depth=PCT_DEPTH, length=length) if seed % 2 else None
        tape = Tape(rng=rng, chance=CHANCE, priorities=priorities)
        self._try(tape, faults_max=FAULTS_MAX, kinds=kinds)

    def _left_by(self, run: Run) -> list[str]:
        """What happened, and the database at the end; to be asked before the next schedule."""
        return [_ADDRESS.sub("0x…", line) for line in (*run.world.lines(), *run.world.store.dump())]

    def _try(self, tape: Tape, *, faults_max: int, kinds: frozenset[Fault] = EVERY) -> Run:
        __tracebackhide__ = True
        run = self._trial.run(tape, faults_max=faults_max, kinds=kinds)
        self._done += 1
        for claim, happened in run.claims.items():
            self._claims[claim] = self._claims.get(claim, False) or happened
        if run.failure is not None:
            self._fail(run)
        return run

    def _replay(self, answers: Mapping[int, int]) -> None:
        __tracebackhide__ = True
        run, lines = self._trial.told(answers)
        print(*lines, sep="\n")
        if run.failure is not None:
            self._fail(run)
        if run.answers != answers:
            raise NothingShown(
                f"The tape does not fit: of its {len(answers)} answers {len(run.answers)} were asked for. It belongs to "
                "the code on which it was recorded; run the test without it."
            )
        self._asked.said.append(f"one schedule again, struck by {struck(run.world)}")

    # -- what comes of them -----------------------------------------------------------------------------------------

    def _fail(self, found: Run) -> None:
        """Raise what the smallest schedule raises that fails in the same way."""
        __tracebackhide__ = True
        answers = self._shrunk(found) if isinstance(found.failure, Exception | Escape) else found.answers
        run, lines = self._trial.told(answers)
        failure = run.failure or found.failure
        assert failure is not None
        failure.add_note(self._note(run, lines))
        raise failure

    def _shrunk(self, found: Run) -> dict[int, int]:
        ends = time.perf_counter() + SHRINKING_S

        def fails(answers: Mapping[int, int]) -> bool:
            if time.perf_counter() > ends:
                return False
            run = self._trial.run(Tape(dict(answers)), faults_max=len(answers))
            return type(run.failure) is type(found.failure)

        return shrink(found.answers, fails, runs_max=SHRINKING_RUNS_MAX)

    def _note(self, run: Run, lines: list[str]) -> str:
        said = ["", f"faultproof: struck by {struck(run.world)} ({self._which()})"]
        said += [f"  {line}" for line in shortened(lines)]
        if run.answers:
            tape = spelled(run.answers)
            said.append(
                f"replay: {self._asked.replay}{tape}" if self._asked.replay else f'replay: @simulated(tape="{tape}")'
            )
        return "\n".join(said)

    def _which(self) -> str:
        return f"schedule {self._done} of {self._plan.schedules}" if self._done else "replayed"


def _places(points: Sequence[Point]) -> Iterator[tuple[int, int]]:
    """Tape position and fault, once for each set of places where it leaves the same world behind; the plainest faults first,
    since the first that makes the test fail is the one that is shown."""
    seen = set()
    for kind in KINDS:
        for point in points:
            key = (kind, point.key(kind))
            if kind in point.kinds and key not in seen:
                seen.add(key)
                yield point.position, kind


def spread(places: Sequence[T], most: int) -> Sequence[T]:
    """At most so many, evenly from all of them: of every kind of fault, early and late."""
    return places if len(places) <= most else [places[n * len(places) // most] for n in range(most)]


@contextmanager
def asked(*, replay: str, tape: Mapping[int, int] | None) -> Iterator[Asked]:
    """Run the test inside with this wish."""
    wish = Asked(replay, tape)
    token = ASKED.set(wish)
    try:
        yield wish
    finally:
        ASKED.reset(token)

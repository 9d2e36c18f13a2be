"""Every interleaving of a case, once each: depth first over the choices that there were.

After a run, the last choice that has another answer left is given that, and what follows is chosen anew. Nothing is pruned:
two statements that would commute are tried both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from faultproof.prove.harness import HarnessError, ShowsNothing
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.stepped.case import Case, Cuts, Rewrite
from faultproof.prove.stepped.runs import Run, Stepped
from faultproof.prove.stepped.world import World

DEADLOCK, NOT_SERIALIZED = "40P01", "40001"
VIOLATIONS_MAX = 20
INTERLEAVINGS_MAX = 200_000
"""More would take longer than anybody waits: shorter sessions, or fewer preemptions."""
REPEATS_MAX = 3
"""How often a run is repeated in which the same choices led to other statements: a machine that stood still for half a
second makes the server look for a deadlock earlier than it would."""
TELL_EVERY = 20


class SteppedViolation(NamedTuple):
    """An interleaving whose outcome was wrong."""

    sentences: tuple[str, ...]
    steps: tuple[Stepped, ...]
    answers: dict[int, int]
    """The tape that repeats it."""

    @property
    def schedule(self) -> str:
        """As `A1 A2 B1 (waits) A3`."""
        return " ".join(step.short for step in self.steps)

    def lines(self) -> Iterator[str]:
        """The schedule, a statement in each line; what was wrong; and the tape."""
        for step in self.steps:
            yield f"{step.short:<12} {step.what}{f' ({step.refused})' if step.refused else ''}"
        yield from self.sentences
        yield f"tape {sorted(self.answers.items())}"


@dataclass
class SteppedReport:
    """What an exploration did."""

    case: str
    sessions: int
    preemptions: int | None
    """The limit that was kept to; None: there was none."""
    interleavings: int = 0
    with_wait: int = 0
    with_deadlock: int = 0
    with_failure: int = 0
    """In which a transaction could not be serialized."""
    seconds: float = 0.0
    violations: list[SteppedViolation] = field(default_factory=list)
    """The first `VIOLATIONS_MAX` of them."""
    violated: int = 0
    """How many interleavings were."""
    never: tuple[str, ...] = ()
    """Claims of `sometimes` that held in none."""
    is_complete: bool = True
    """No: it was ended at the first violation, as is done for planted bugs."""

    def __str__(self) -> str:
        """The numbers, in words."""
        limited = "" if self.preemptions is None else f" with at most {self.preemptions} preemptions"
        words = [f"{_count(self.interleavings, 'interleaving')} of {self.sessions} sessions{limited}"]
        words += [
            f"{number:,} with a {what}"
            for number, what in (
                (self.with_wait, "wait"),
                (self.with_deadlock, "deadlock"),
                (self.with_failure, "serialization failure"),
            )
            if number
        ]
        return ", ".join(words)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def explore_stepped(
    case: Case,
    url: str,
    *,
    plant: str | None = None,
    rewrite: Rewrite | None = None,
    preemptions: int | None = None,
    until_violated: bool | None = None,
    progress: Callable[[int], object] | None = None,
) -> SteppedReport:
    """Step through every interleaving of the case on the PostgreSQL server at `url`.

    In a schema of its own, which is dropped at the end; nothing else there is touched. With a planted bug or a `rewrite` of
    the statements it stops at the first violation unless `until_violated` is False. `preemptions`: instead of the case's own
    limit, as a sample of what has very many interleavings. `progress` is told now and then how many interleavings have been
    run. Raises `HarnessError` for a case that cannot be carried out, `InvalidInput` for a planted bug that the case does not
    have, `TryAgain` where the server cannot be reached, `CannotOpen` where no schema may be made.
    """
    if preemptions is not None:
        case = replace(case, preemptions=preemptions)
    with World(case, url) as world:
        return explore(world, plant=plant, rewrite=rewrite, until_violated=until_violated, progress=progress)


def explore(
    world: World,
    *,
    plant: str | None = None,
    rewrite: Rewrite | None = None,
    cuts: Cuts | None = None,
    until_violated: bool | None = None,
    progress: Callable[[int], object] | None = None,
) -> SteppedReport:
    """The same on ground that is prepared already, for whoever tries many planted bugs: making it takes longer than most of
    them live. After a `HarnessError` the world can still be used."""
    case = world.case
    broken = plant is not None or rewrite is not None or cuts is not None
    stops = broken if until_violated is None else until_violated
    world.break_by(plant, rewrite, cuts)
    report = SteppedReport(case.name, len(world.sessions), world.preemptions)
    began, happened = time.perf_counter(), [False] * len(case.sometimes)
    for run in interleavings(world):
        _add(report, run)
        happened = [before or now for before, now in zip(happened, run.happened, strict=True)]
        if progress is not None and report.interleavings % TELL_EVERY == 0:
            progress(report.interleavings)
        if run.wrong and stops:
            report.is_complete = False
            break
    report.never = tuple(each.claim for each, once in zip(case.sometimes, happened, strict=True) if not once)
    report.seconds = time.perf_counter() - began
    return report


def replay_stepped(
    case: Case, url: str, answers: Mapping[int, int], *, plant: str | None = None, rewrite: Rewrite | None = None
) -> Run:
    """The interleaving of that tape once more."""
    with World(case, url) as world:
        world.break_by(plant, rewrite)
        return world.run(Tape(dict(answers)))


def interleavings(world: World) -> Iterator[Run]:
    """Each of them, once. Raises `ShowsNothing` where the same choices do not lead to the same statements."""
    answers: list[int] = []
    widths: list[int] = []
    for _ in range(INTERLEAVINGS_MAX):
        run = _run(world, answers, widths)
        yield run
        answers, widths = list(run.taken), list(run.widths)
        while answers and answers[-1] + 1 == widths[-1]:
            answers.pop()
            widths.pop()
        if not answers:
            return
        answers[-1] += 1
    raise HarnessError(f"{world.case.name} has more than {INTERLEAVINGS_MAX:,} interleavings: limit its `preemptions`")


def _run(world: World, answers: list[int], widths: list[int]) -> Run:
    for _ in range(REPEATS_MAX):
        run = world.run(Tape({position: answer for position, answer in enumerate(answers) if answer}))
        if run.taken[: len(answers)] == answers and run.widths[: len(widths)] == widths:
            return run
    raise ShowsNothing(f"{world.case.name}: the same choices lead to other statements each time, as in {run.schedule}")


def _add(report: SteppedReport, run: Run) -> None:
    report.interleavings += 1
    report.with_wait += run.waited
    report.with_deadlock += DEADLOCK in run.refused
    report.with_failure += NOT_SERIALIZED in run.refused
    if run.wrong:
        report.violated += 1
        if len(report.violations) < VIOLATIONS_MAX:
            report.violations.append(SteppedViolation(tuple(run.wrong), run.steps, run.answers))

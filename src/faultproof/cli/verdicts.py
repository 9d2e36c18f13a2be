"""What became of a proof, for people at a terminal: within 25 lines."""

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faultproof.cli.output import one_line
from faultproof.cli.tapes import replay_command
from faultproof.errors import InvalidInput
from faultproof.prove.proof import Proof
from faultproof.prove.reports.facts import Run, WorldVerdict
from faultproof.prove.reports.lines import expected_and_seen, operations, struck
from faultproof.prove.simulated.explore import Report, Violation
from faultproof.prove.story import Story

WIDTH_PIPED = 120
"""A claim is prose; narrower, a proof would take more than 25 lines."""
LINES_MAX = 25
"""What a proof takes on a terminal, unless its own prose takes more."""
_SEEN_MAX = 2


class Status(IntEnum):
    """Exit statuses of the proving verbs; of several proofs the worst counts, in the order of `WORST_FIRST`."""

    HELD = 0
    VIOLATED = 1
    INCONCLUSIVE = 3
    ERROR = 4


WORST_FIRST = (Status.ERROR, Status.VIOLATED, Status.INCONCLUSIVE, Status.HELD)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How hard to try."""

    depth: int
    random: int
    seed: int
    plants: bool
    save: Path | None
    html: Path | None = None

    def __post_init__(self) -> None:
        if self.depth not in (1, 2):
            raise InvalidInput(f"--depth is 1 (every fault) or 2 (every pair of faults), not {self.depth}")
        if self.random < 0:
            raise InvalidInput(f"--random is a number of schedules, not {self.random}")
        if self.seed < 0:  # Python's generator takes it for the positive number
            raise InvalidInput(f"--seed is a whole number from 0 on, not {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """How a proof fared in another world than simulation."""

    verdict: WorldVerdict
    lines: list[str]
    """For people: a few."""


@dataclass(kw_only=True)
class Outcome:
    """What became of a proof, or of one of its planted bugs (then `plant` is set)."""

    proof: Proof
    plant: str | None = None
    exhaustive: Report = field(default_factory=Report)
    sampled: Report = field(default_factory=Report)
    violation: Violation | None = None
    """From the smallest tape found."""
    story: Story | None = None
    """The same run, told in full."""
    tape: Path | None = None
    is_unsaved: bool = False
    """Its tape was asked for, and could not be written."""
    plants: list["Outcome"] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    """What became of it in the other worlds."""
    runs: list[Run] = field(default_factory=list)
    """Of a proof that held: a few that are worth looking at, if a page is to show them."""
    error: str | None = None

    @property
    def status(self) -> Status:
        """A planted bug that survives is as bad as a claim that does not hold."""
        if self.error is not None:
            return Status.ERROR
        others = {each.verdict.verdict for each in self.elsewhere}
        if self.violation is not None or "violated" in others or any(plant.violation is None for plant in self.plants):
            return Status.VIOLATED
        # Held, but not all is there that was asked for: whoever looks for the tapes must be told.
        if any(plant.is_unsaved for plant in self.plants):
            return Status.ERROR
        # If nothing could strike, or what makes the runs interesting never happened, nothing has been shown.
        if not self.exhaustive.distinct or self.never or self.sampled.unstruck or "inconclusive" in others:
            return Status.INCONCLUSIVE
        return Status.HELD

    @property
    def never(self) -> list[str]:
        """What was to happen in one run at least, and did not."""
        seen = self.exhaustive.seen | self.sampled.seen
        return [each.claim for each in self.proof.sometimes if each.claim not in seen]


def print_outcome(outcome: Outcome, options: Options, out: Console) -> None:
    """Print what was claimed, what was tried, and what came of it."""
    out.print(Text(outcome.proof.name, style="bold"), soft_wrap=True)
    last = () if outcome.tape is None else (f"replay        {replay_command(outcome.tape)}",)
    # What explains a violation takes what room there is.
    for room in _ROOMS:
        grid = _grid(outcome, options, room)
        if outcome.story is None or 2 + len(out.render_lines(grid)) + len(last) <= LINES_MAX:
            break
    out.print(grid)
    for line in last:
        out.print(Text(line), soft_wrap=True)
    out.print()


class _Room(NamedTuple):
    """What a violation is explained with."""

    operations: int
    broken: int
    """Properties."""


_ROOMS = (
    _Room(6, 2),
    _Room(5, 2),
    _Room(4, 2),
    _Room(3, 2),
    _Room(5, 1),
    _Room(4, 1),
    _Room(3, 1),
    _Room(2, 1),
    _Room(1, 1),
)
"""From the roomiest on."""


def _grid(outcome: Outcome, options: Options, room: _Room) -> Table:
    proof = outcome.proof
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    _rows(grid, "claim", (proof.claim,))
    if outcome.story is None:
        _rows(grid, "faults", proof.faults)
    _rows(grid, "assuming", proof.assumptions)
    if outcome.story is None:  # what else might be wrong is of no interest then
        _rows(grid, "not tested", proof.not_tested)
    for number, sentence in enumerate(results(outcome, options)):
        style = {Status.HELD: "green", Status.INCONCLUSIVE: "yellow"}.get(outcome.status, "red")
        grid.add_row("" if number else "result", Text(sentence, style=style))
    if outcome.story is not None:
        _add_story(grid, outcome.story, room)
    for other in outcome.elsewhere:
        _rows(grid, other.verdict.world, tuple(other.lines))
    _rows(grid, "planted bugs", tuple(_planted(plant) for plant in outcome.plants))
    return grid


def _add_story(grid: Table, story: Story, room: _Room) -> None:
    """The smallest run that shows the violation: where it was struck, what was done, expected and seen."""
    points = [line for point in struck(story) for line in point if line]
    for label, lines in (
        ("struck by", points or ["no fault at all"]),
        ("operations", operations(story, room.operations)),
    ):
        for number, line in enumerate(lines):
            grid.add_row("" if number else label, Text(one_line(line), no_wrap=True, overflow="ellipsis"))
    broken = list(expected_and_seen(story))
    for expected, seen in broken[: room.broken]:
        more = (f"and {len(seen) - _SEEN_MAX} more",) if len(seen) > _SEEN_MAX else ()
        _rows(grid, "expected", (one_line(expected, 300),))
        _rows(grid, "seen", (*(one_line(sentence, 200) for sentence in seen[:_SEEN_MAX]), *more))
    if len(broken) > room.broken:
        _rows(grid, "", (f"and {len(broken) - room.broken} more claims broken",))


def _rows(grid: Table, label: str, lines: tuple[str, ...]) -> None:
    for number, line in enumerate(lines):
        grid.add_row("" if number else label, Text(line))


def results(outcome: Outcome, options: Options) -> list[str]:
    """What was tried, and what came of it."""
    if outcome.error is not None:
        return ["none: the proof itself failed, see below"]
    report, sampled = outcome.exhaustive, outcome.sampled
    verdict = ": VIOLATED" if report.violations else ", held"
    sentences = [f"{scope(report, options.depth)}: {_speed(report)}{verdict}"]
    if not report.distinct:
        sentences[0] = f"{_speed(report)}; no fault could strike anywhere, so nothing was shown"
    sentences += [f"never happened: {claim}; so this shows little" for claim in outcome.never]
    if sampled.schedules:
        verdict = ": VIOLATED" if sampled.violations else ", held"
        sentences.append(f"{scope_at_random(sampled, options.seed)}, {_speed(sampled)}{verdict}")
    if sampled.unstruck and not sampled.violations:
        sentences.append(f"never struck: {', '.join(sampled.unstruck)}; ask for more with --random")
    return sentences


def scope(report: Report, depth: int) -> str:
    """Where faults struck, exhaustively."""
    where = f"every one of {report.first_points:,} points ({report.first_distinct:,} distinct)"
    if depth == 1:
        return f"{where}, once"
    pairs, distinct = report.points - report.first_points, report.distinct - report.first_distinct
    return f"{where}, twice ({pairs:,} pairs, {distinct:,} distinct)"


def scope_at_random(report: Report, seed: int) -> str:
    """How many faults struck, at random."""
    return f"random from seed {seed}, {report.distinct:,} faults struck"


def _speed(report: Report) -> str:
    return f"{report.schedules:,} schedules in {report.seconds:.1f} s ({report.rate:,.0f}/s)"


def _planted(planted: Outcome) -> str:
    if planted.violation is None:
        schedules = planted.exhaustive.schedules + planted.sampled.schedules
        return f"{planted.plant}: SURVIVED {schedules:,} schedules"
    tape = f" ({planted.tape})" if planted.tape else ""
    return f"{planted.plant}: caught, {' and '.join(planted.violation.faults) or 'without a fault'}{tape}"

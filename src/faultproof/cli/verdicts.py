"""What became of a proof: for people within 25 lines, for machines as a document."""

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faultproof.cli.output import one_line
from faultproof.cli.tapes import replay_command
from faultproof.errors import InvalidInput
from faultproof.prove.proof import Proof
from faultproof.prove.simulated.explore import Report, Violation

WIDTH_PIPED = 120
"""A claim is prose; narrower, a proof would take more than 25 lines."""
_SEEN_MAX = 3


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

    def __post_init__(self) -> None:
        if self.depth not in (1, 2):
            raise InvalidInput(f"--depth is 1 (every fault) or 2 (every pair of faults), not {self.depth}")
        if self.random < 0:
            raise InvalidInput(f"--random is a number of schedules, not {self.random}")
        if self.seed < 0:  # Python's generator takes it for the positive number
            raise InvalidInput(f"--seed is a whole number from 0 on, not {self.seed}")


@dataclass(kw_only=True)
class Outcome:
    """What became of a proof, or of one of its planted bugs (then `plant` is set)."""

    proof: Proof
    plant: str | None = None
    exhaustive: Report = field(default_factory=Report)
    sampled: Report = field(default_factory=Report)
    violation: Violation | None = None
    """From the smallest tape found."""
    tape: Path | None = None
    is_unsaved: bool = False
    """Its tape was asked for, and could not be written."""
    plants: list["Outcome"] = field(default_factory=list)
    error: str | None = None

    @property
    def status(self) -> Status:
        """A planted bug that survives is as bad as a claim that does not hold."""
        if self.error is not None:
            return Status.ERROR
        if self.violation is not None or any(plant.violation is None for plant in self.plants):
            return Status.VIOLATED
        # Held, but not all is there that was asked for: whoever looks for the tapes must be told.
        if any(plant.is_unsaved for plant in self.plants):
            return Status.ERROR
        # If nothing could strike, or what makes the runs interesting never happened, nothing has been shown.
        return Status.INCONCLUSIVE if not self.exhaustive.distinct or self.never else Status.HELD

    @property
    def never(self) -> list[str]:
        """What was to happen in one run at least, and did not."""
        seen = self.exhaustive.seen | self.sampled.seen
        return [each.claim for each in self.proof.sometimes if each.claim not in seen]


def print_outcome(outcome: Outcome, options: Options, out: Console) -> None:
    """Print what was claimed, what was tried, and what came of it."""
    proof = outcome.proof
    out.print(Text(proof.name, style="bold"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    _rows(grid, "claim", (proof.claim,))
    _rows(grid, "faults", proof.faults)
    _rows(grid, "assuming", proof.assumptions)
    _rows(grid, "not tested", proof.not_tested)
    for number, sentence in enumerate(_results(outcome, options)):
        style = {Status.HELD: "green", Status.INCONCLUSIVE: "yellow"}.get(outcome.status, "red")
        grid.add_row("" if number else "result", Text(sentence, style=style))
    if outcome.violation is not None:
        _rows(grid, "struck by", outcome.violation.faults or ("no fault at all",))
        sentences = outcome.violation.sentences
        more = (f"and {len(sentences) - _SEEN_MAX} more",) if len(sentences) > _SEEN_MAX else ()
        _rows(grid, "seen", (*(one_line(sentence, 200) for sentence in sentences[:_SEEN_MAX]), *more))
    _rows(grid, "planted bugs", tuple(_planted(plant) for plant in outcome.plants))
    out.print(grid)
    if outcome.tape is not None:
        out.print(Text(f"tape          {outcome.tape}"), soft_wrap=True)
        out.print(Text(f"replay        {replay_command(outcome.tape)}"), soft_wrap=True)
    out.print()


def _rows(grid: Table, label: str, lines: tuple[str, ...]) -> None:
    for number, line in enumerate(lines):
        grid.add_row("" if number else label, Text(line))


def _results(outcome: Outcome, options: Options) -> list[str]:
    """What was tried, and what came of it."""
    if outcome.error is not None:
        return ["none: the proof itself failed, see below"]
    report, sampled = outcome.exhaustive, outcome.sampled
    pairs = " up to 2 faults deep" if options.depth == 2 else ""
    sentences = [f"every one of {report.points:,} points ({report.distinct:,} distinct){pairs}, {_speed(report)}"]
    if not report.distinct:
        sentences[0] = f"{_speed(report)}; no fault could strike anywhere, so nothing was shown"
    elif not report.violations:
        sentences[0] += ", held"
    else:
        sentences[0] += ": VIOLATED"
    sentences += [f"never happened: {claim}; so this shows little" for claim in outcome.never]
    if sampled.schedules:
        verdict = ": VIOLATED" if sampled.violations else ", held"
        seeds = f"random from seed {options.seed}, {sampled.distinct:,} faults struck"
        sentences.append(f"{seeds}, {_speed(sampled)}{verdict}")
    return sentences


def _speed(report: Report) -> str:
    return f"{report.schedules:,} schedules in {report.seconds:.1f} s ({report.rate:,.0f}/s)"


def _planted(planted: Outcome) -> str:
    if planted.violation is None:
        schedules = planted.exhaustive.schedules + planted.sampled.schedules
        return f"{planted.plant}: SURVIVED {schedules:,} schedules"
    tape = f" ({planted.tape})" if planted.tape else ""
    return f"{planted.plant}: caught, {' and '.join(planted.violation.faults) or 'without a fault'}{tape}"


def document(outcome: Outcome, options: Options) -> dict[str, object]:
    """The same for machines, with nothing cut."""
    proof = outcome.proof
    return {
        "proof": proof.name,
        "outcome": outcome.status.name.lower(),
        "claim": proof.claim,
        "faults": proof.faults,
        "assumptions": proof.assumptions,
        "not_tested": proof.not_tested,
        "depth": options.depth,
        "exhaustive": _numbers(outcome.exhaustive),
        "random": {"seed": options.seed, **_numbers(outcome.sampled)} if outcome.sampled.schedules else None,
        "violation": _violation(outcome),
        "sometimes": [{"claim": each.claim, "happened": each.claim not in outcome.never} for each in proof.sometimes],
        "plants": [
            {"plant": plant.plant, "caught": plant.violation is not None, "violation": _violation(plant)}
            for plant in outcome.plants
        ],
        "error": outcome.error,
    }


def _numbers(report: Report) -> dict[str, object]:
    return {
        "points": report.points,
        "distinct": report.distinct,
        "schedules": report.schedules,
        "seconds": report.seconds,
        "violated": bool(report.violations),
    }


def _violation(outcome: Outcome) -> dict[str, object] | None:
    if outcome.violation is None:
        return None
    tape = outcome.tape
    return {
        "faults": outcome.violation.faults,
        "seen": outcome.violation.sentences,
        "tape": None if tape is None else str(tape),
        "replay": None if tape is None else replay_command(tape),
    }

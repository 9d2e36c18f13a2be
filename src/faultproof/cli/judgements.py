"""What became of a history: for people within 25 lines, for machines as a document."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faultproof.cli.output import one_line
from faultproof.cli.verdicts import Status
from faultproof.prove.checkers.history import History, Key, Operation
from faultproof.prove.checkers.linearizability import Judged, Judgement
from faultproof.prove.checkers.search import Verdict
from faultproof.prove.checkers.shortest import Part
from faultproof.prove.checkers.values import shown

WIDTH_PIPED = 120
_STATUS = {
    Verdict.LINEARIZABLE: Status.HELD,
    Verdict.NOT_LINEARIZABLE: Status.VIOLATED,
    Verdict.UNKNOWN: Status.INCONCLUSIVE,
}
_STYLE = {Verdict.LINEARIZABLE: "green", Verdict.NOT_LINEARIZABLE: "red", Verdict.UNKNOWN: "yellow"}
_OPERATIONS_MAX = 12
_EXPECTED_MAX = 3


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file, and what was found out about it."""

    path: Path
    model: str
    history: History
    judgement: Judgement
    seconds: float

    @property
    def status(self) -> Status:
        return _STATUS[self.judgement.verdict]


def print_checked(checked: Checked, out: Console) -> None:
    """Print what was judged, the verdict, and the first contradiction."""
    objects = checked.judgement.objects
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("operations", Text(_operations(checked)))
    for note in checked.history.notes:
        grid.add_row("note", Text(one_line(note), style="yellow"))
    verdict = checked.judgement.verdict
    grid.add_row("result", Text(_result(checked), style=_STYLE[verdict]))
    for each in [each for each in objects if each.verdict is Verdict.UNKNOWN][:1]:
        grid.add_row("", Text(f"given up{_of(each.key)} {each.why}"))
    for each in [each for each in objects if each.part is not None][:1]:
        _add_part(grid, each)
    more = sum(each.verdict is Verdict.NOT_LINEARIZABLE for each in objects) - 1
    if more > 0:
        grid.add_row("", Text(f"and {more:,} more keys are not linearizable"))
    out.print(Text(f"{one_line(str(checked.path), 200)}: {one_line(checked.model, 200)}", style="bold"), soft_wrap=True)
    out.print(grid)
    out.print()


def _operations(checked: Checked) -> str:
    operations = checked.history.operations
    unanswered = sum(each.returned is None for each in operations)
    failed = checked.history.failed
    parts = (
        [f"{len(operations):,}", f"{unanswered:,} of them never answered"] if unanswered else [f"{len(operations):,}"]
    )
    if failed:
        parts.append(f"{failed:,} more that failed and had no effect")
    return ", ".join(parts)


def _result(checked: Checked) -> str:
    objects = checked.judgement.objects
    if not objects:
        return "UNKNOWN: there is nothing to judge"
    tried = sum(each.configurations for each in objects)
    text = f"{checked.judgement.verdict.value.upper()}, {tried:,} configurations in {checked.seconds:.2f} s"
    if len(objects) > 1:
        counts = Counter(each.verdict.value for each in objects)
        text += f"; of {len(objects):,} keys " + ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
    return text


def _add_part(grid: Table, judged: Judged) -> None:
    part = judged.part
    assert part is not None
    grid.add_row("because", Text(f"no order explains {_how_many(part)}{_of(judged.key)}, {_whatever(part)}:"))
    rows = Table.grid(padding=(0, 2, 0, 0))
    hidden = len(part.operations) - _OPERATIONS_MAX
    if hidden > 0:
        rows.add_row("…", f"{hidden:,} before these")
    for each in part.operations[max(hidden, 0) :]:
        rows.add_row(*(Text(one_line(cell, 100)) for cell in _row(each)))
    grid.add_row("", rows)
    grid.add_row("expected", Text(_expected(part)))
    breaks = part.breaks
    grid.add_row("actual", Text(one_line(f"{breaks.call}, line {breaks.returned}, process {breaks.process}")))


def _how_many(part: Part) -> str:
    count = len(part.operations)
    few = "" if part.is_minimal else "at most "
    return f"{few}{count} operations" if count > 1 else "this operation"


def _whatever(part: Part) -> str:
    """What the contradiction does not depend on."""
    before = f"whatever happened before line {part.cut} and " if part.cut else ""
    return f"{before}whatever all others did"


def _row(operation: Operation) -> tuple[str, ...]:
    if operation.returned is None:
        return (
            f"line {operation.called}",
            f"process {operation.process}",
            str(operation.call),
            "at any time after, or never",
        )
    return f"lines {operation.called}-{operation.returned}", f"process {operation.process}", str(operation.call), ""


def _expected(part: Part) -> str:
    shown_ones = part.expected[:_EXPECTED_MAX]
    more = ", or something else" if len(part.expected) > _EXPECTED_MAX else ""
    return one_line("; or ".join(shown_ones) + more)


def _of(key: Key) -> str:
    return "" if key is None else f" of key {shown(key)}"


def document(checked: Checked) -> dict[str, object]:
    """The same for machines, with nothing cut."""
    operations = checked.history.operations
    return {
        "file": str(checked.path),
        "model": checked.model,
        "verdict": checked.judgement.verdict.value,
        "operations": len(operations),
        "unanswered": sum(each.returned is None for each in operations),
        "failed": checked.history.failed,
        "notes": checked.history.notes,
        "seconds": checked.seconds,
        "objects": [_object(each) for each in checked.judgement.objects],
    }


def _object(judged: Judged) -> dict[str, object]:
    return {
        "key": judged.key,
        "verdict": judged.verdict.value,
        "operations": judged.operations,
        "unanswered": judged.unanswered,
        "configurations": judged.configurations,
        "why_unknown": judged.why or None,
        "part": None if judged.part is None else _part(judged.part),
    }


def _part(part: Part) -> dict[str, object]:
    return {
        "operations": [
            {
                "process": each.process,
                "call": str(each.call),
                "called": each.called,
                "answered": each.returned,
                "can_be_spared": each not in part.core,
            }
            for each in part.operations
        ],
        "expected": part.expected,
        "actual": str(part.breaks.call),
        "answered": part.breaks.returned,
        "whatever_happened_before": part.cut,
        "is_minimal": part.is_minimal,
    }

"""Pictures: of a definition as a mermaid flowchart, and of one saga for a terminal."""

from __future__ import annotations

from faultproof.patterns.saga import operations, sql
from faultproof.patterns.saga.machine import Status
from faultproof.patterns.saga.shape import Shape
from faultproof.ports.script import Script

_MARKS: dict[Status, str] = {
    "idle": "·",
    "begun": "…",
    "pending": "⧖",
    "waiting": "↻",
    "done": "✓",
    "failed": "✗",
    "uncertain": "?",
    "undoing": "…",
    "undo_waiting": "↻",
    "undo_failed": "✗",
    "undone": "↩",
}


def mermaid(shape: Shape) -> str:
    """Actions lead down; broken lines lead from each to its undo."""
    names = list(shape.steps)
    number = {name: index for index, name in enumerate(names)}
    lines = ["flowchart TD", "  begin([start])"]
    for name, step in shape.steps.items():
        left, right = ("{{", "}}") if name == shape.pivot else ("[", "]")
        lines.append(f'  s{number[name]}{left}"{name} ({step.kind})"{right}')
        if step.undo:
            lines.append(f'  u{number[name]}["undo {name}"]')
            lines.append(f"  s{number[name]} -.-> u{number[name]}")
    before = ["begin"]
    for stage in shape.stages:
        here = [f"s{number[step.name]}" for step in stage]
        lines.append(f"  {' & '.join(before)} --> {' & '.join(here)}")
        before = here
    lines.append(f"  {' & '.join(before)} --> finish([completed])")
    return "\n".join(lines)


def of_one(saga: str, id: str) -> Script[str]:
    """A line for each step: a mark, its name, how it stands, attempts and time."""
    found = yield from operations.standing(saga, id)
    journal = yield from sql.entries(saga, [id])
    run = found.run
    lines = [f"{saga} {id}: {run.phase}{f' ({run.reason})' if run.reason else ''}"]
    width = max(len(name) for name in run.steps)
    for number, stage in enumerate(found.shape.stages, 1):
        for step in stage:
            state = run.steps[step.name]
            times = [entry.at_us for entry in journal if entry.step == step.name]
            took = f"{(times[-1] - times[0]) / 1000:,.0f} ms" if times else ""
            tries = f"attempt {state.attempt}" if state.attempt > 1 else ""
            pivot = "pivot" if step.name == found.shape.pivot else ""
            error = state.error or ""
            # Given up, and perhaps it has happened: that is another thing to see to than one that has not.
            status = "uncertain" if state.status == "failed" and state.maybe else state.status
            facts = "  ".join(fact for fact in (status, tries, took, pivot, error) if fact)
            lines.append(f"  {number} {_MARKS[status]} {step.name:<{width}}  {facts}".rstrip())
    return "\n".join(lines)

"""The shape of a saga: its steps by name, kind and order, without their code. It is what a running saga remembers."""

from __future__ import annotations

import difflib
import hashlib
from functools import cached_property

import msgspec

from faultproof.errors import InvalidInput
from faultproof.patterns.saga.steps import Kind, Step

STEPS_MAX = 100


class StepShape(msgspec.Struct, frozen=True, array_like=True):
    """What matters of a step for going on with a saga."""

    name: str
    kind: Kind
    undo: bool
    """There is something to call."""
    undoable: bool
    """It says what undoes it, be it nothing."""


class Shape(msgspec.Struct, frozen=True, dict=True):
    """Stages in order; the steps of one stage run side by side. From the pivot on there is no way back."""

    stages: tuple[tuple[StepShape, ...], ...]
    pivot: str | None = None

    @cached_property
    def steps(self) -> dict[str, StepShape]:
        """All of them, in order."""
        return {step.name: step for stage in self.stages for step in stage}

    @cached_property
    def text(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal shapes."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def lines(self) -> list[str]:
        """One for each step, for people and for a diff."""
        return [
            f"{number}. {step.name} ({step.kind}{', pivot' if step.name == self.pivot else ''}"
            f"{'' if step.undo else ', nothing to undo'})"
            for number, stage in enumerate(self.stages, 1)
            for step in stage
        ]


def shape_of(steps: tuple[tuple[Step[object, object], ...], ...], pivot: Step[object, object] | None) -> Shape:
    """The shape of these stages. Raises `InvalidInput` for one that could not be carried through or undone."""
    names = [step.name for stage in steps for step in stage]
    if not names or len(names) > STEPS_MAX:
        raise InvalidInput(f"a saga has 1 to {STEPS_MAX} steps, got {len(names)}")
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InvalidInput(f"two steps are named {double!r}: the journal tells them apart by name, so give `name=`")
    pivot_stage = len(steps)
    if pivot is not None:
        found = [number for number, stage in enumerate(steps) if any(step is pivot for step in stage)]
        if not found:
            raise InvalidInput(f"the pivot {pivot.name!r} is not among the steps")
        pivot_stage = found[0]
        if len(steps[pivot_stage]) > 1:
            raise InvalidInput(f"the pivot {pivot.name!r} must stand alone: what runs beside it could not be undone")
    for stage in steps[:pivot_stage]:
        for step in stage:
            if not step.is_undoable:
                raise InvalidInput(
                    f"step {step.name!r} has no undo, and the steps after it may fail: give `undo=`, NOTHING_TO_UNDO if it "
                    "leaves nothing behind, or a `pivot` before it"
                )
    return Shape(
        tuple(
            tuple(StepShape(step.name, step.kind, step.undo is not None, step.is_undoable) for step in stage)
            for stage in steps
        ),
        None if pivot is None else pivot.name,
    )


def difference(stored: Shape, version: int, code: Shape, code_version: int) -> str:
    """What changed between the definition that a saga was started with and the one in this process."""
    lines = difflib.unified_diff(
        stored.lines(), code.lines(), f"started with version {version}", f"version {code_version}", lineterm="", n=0
    )
    changes = "\n".join(line for line in lines if not line.startswith("@@"))
    return changes or f"the version is {code_version}, it was started with {version}; the steps are the same"

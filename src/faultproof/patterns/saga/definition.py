"""A definition: the steps of a saga with their code, under a name and a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.patterns.saga.shape import Shape, shape_of
from faultproof.patterns.saga.steps import Step, check_name

Stage = Step[Any, Any] | Sequence[Step[Any, Any]]


class Definition:
    """What a process knows of a kind of saga."""

    def __init__(
        self, name: str, *, version: int, input: Any, steps: Sequence[Stage], pivot: Step[Any, Any] | None
    ) -> None:
        self.name = check_name(name, "a saga")
        bounds.count("version", version)
        self.version = version
        stages = tuple(tuple(stage) if isinstance(stage, (list, tuple)) else (stage,) for stage in steps)
        for step in (step for stage in stages for step in stage):
            if not isinstance(step, Step):
                raise InvalidInput(f"a step is made with Step.remote, Step.local or Step.asynchronous, got {step!r}")
        if any(not stage for stage in stages):
            raise InvalidInput("a group of steps that run side by side needs at least one")
        self.shape: Shape = shape_of(stages, pivot)
        self.steps: dict[str, Step[Any, Any]] = {step.name: step for stage in stages for step in stage}
        try:
            self._input = msgspec.json.Decoder(input)
        except TypeError as error:
            raise InvalidInput(f"the input's type {input!r} cannot be kept as JSON: {error}") from error

    def decode_input(self, text: str) -> Any:
        """An input as it is stored. Raises `ValueError` for one that does not fit the type (any more)."""
        return self._input.decode(text)

    def stored_shape(self, text: str) -> Shape:
        """The shape that a saga was started with."""
        return msgspec.json.decode(text, type=Shape)

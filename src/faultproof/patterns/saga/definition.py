"""A definition: the steps of a saga with their code, under a name and a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput, PayloadTooLarge
from faultproof.patterns.saga.shape import Shape, shape_of
from faultproof.patterns.saga.steps import Step

Stage = Step[Any, Any] | Sequence[Step[Any, Any]]

ID_BYTES_MAX = 200


class Definition:
    """What a process knows of a kind of saga."""

    def __init__(
        self, name: str, *, version: int, input: Any, steps: Sequence[Stage], pivot: Step[Any, Any] | None
    ) -> None:
        self.name = bounds.name("a saga", name)
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

    def encode_input(self, id: str, input: object, bytes_max: int) -> bytes:
        """An input as it is stored. Raises `InvalidInput` for what could not be read back, `PayloadTooLarge` for too much."""
        try:
            encoded = msgspec.json.encode(input, order="deterministic")
            self._input.decode(encoded)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"the input of saga {id!r} cannot be kept as {self.name!r} needs it: {error}") from error
        if len(encoded) > bytes_max:
            raise PayloadTooLarge(
                f"the input of saga {id!r} has {len(encoded)} bytes, the limit is {bytes_max}: pass a reference to it",
                size_bytes=len(encoded),
                limit_bytes=bytes_max,
            )
        if b"\\u0000" in encoded:
            raise InvalidInput(f"the input of saga {id!r} contains a NUL character, which databases cut or refuse")
        return encoded

    def decode_input(self, text: str) -> Any:
        """An input as it is stored. Raises `ValueError` for one that does not fit the type (any more)."""
        return self._input.decode(text)

    def stored_shape(self, text: str) -> Shape:
        """The shape that a saga was started with."""
        return msgspec.json.decode(text, type=Shape)


def check_id(id: object) -> None:
    """Ids are keys in tables, and parts of idempotency keys that travel in headers."""
    if (
        not isinstance(id, str)
        or not id.isprintable()
        or not id.isascii()
        or " " in id
        or not 1 <= len(id.encode()) <= ID_BYTES_MAX
    ):
        raise InvalidInput(
            f"a saga's id is a text of 1 to {ID_BYTES_MAX} printable ASCII characters without spaces, got {id!r}"
        )

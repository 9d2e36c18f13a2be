"""Values of a history as models need them: hashable, never changed, and equal only if they are the same JSON."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec


class Truth(Enum):
    """JSON's true and false. Not Python's: there `True == 1`, and a register that holds 1 would answer a read of true."""

    TRUE = True
    FALSE = False

    def __bool__(self) -> bool:
        return bool(self.value)


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object: its fields by name, sorted."""

    items: tuple[tuple[str, Hashable], ...]


def frozen(value: Any) -> Hashable:
    """A decoded JSON value: lists become tuples, objects `Fields`, true and false `Truth`; 1.0 is 1, as in JSON."""
    match value:
        case bool():
            return Truth(value)
        case float() if value.is_integer():
            return int(value)
        case list() | tuple():
            return tuple(map(frozen, value))
        case dict():
            return Fields(tuple(sorted((str(name), frozen(each)) for name, each in value.items())))
        case _:
            return value  # type: ignore[no-any-return]


def shown(value: object, chars_max: int = 60) -> str:
    """The value as JSON, cut where it would be long."""
    text = msgspec.json.encode(_thawed(value), enc_hook=repr).decode()
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def _thawed(value: object) -> object:
    match value:
        case Truth():
            return bool(value)
        case Fields(items=items):
            return {name: _thawed(each) for name, each in items}
        case tuple():
            return [_thawed(each) for each in value]
        case _:
            return value

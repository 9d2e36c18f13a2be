"""Statements as they are declared: a text, typed parameters, and how to read the answer. `script.py` says how to write one."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NewType, Union, get_args, get_origin, get_type_hints

Changed = NewType("Changed", int)
"""As a statement's return type: the number of rows it inserted, updated or deleted."""


class Answer(NamedTuple):
    """What an engine sends back into a script."""

    rows: Sequence[tuple[Any, ...]]
    changed: int


NOTHING = Answer((), 0)


class Parameter(NamedTuple):
    """One parameter of a statement. `fields` is set for a sequence parameter: the columns of its rows."""

    name: str
    kind: type
    fields: tuple[tuple[str, type], ...] | None

    @property
    def plain(self) -> bool:
        """A sequence of plain values, whose one column is called `value`."""
        return self.fields is not None and self.fields == (("value", self.kind),)


@dataclass(frozen=True, eq=False)
class Statement:
    """A named statement: its text, its typed parameters, and where it was declared."""

    name: str
    text: str
    postgres: str | None
    parameters: tuple[Parameter, ...]
    decode: Callable[[Answer], Any]
    source: str
    columns: int = 0
    """Of a row of its result."""
    deferred: bool = False
    """Its answer is not waited for where that costs a round trip: it goes with the transaction's next statement or with
    its commit, and an error of its shows there."""

    @property
    def reads(self) -> bool:
        """It changes nothing."""
        return self.text.lstrip().upper().startswith(("SELECT", "WITH", "VALUES"))


_PLACEHOLDER = re.compile(r"(?<!:):([a-z_]+)|\{([a-z_]+)\}")
_MACROS = frozenset({"now", "moment", "lock", "lock_or_skip"})


def asked(text: str) -> set[str]:
    """The names of the parameters that stand in it."""
    return {a or b for a, b in _PLACEHOLDER.findall(text)} - _MACROS


def declared_statement(declared: Callable[..., Any], text: str, postgres: str | None, deferred: bool) -> Statement:
    """From a typed function without a body. Raises `TypeError` where text and signature do not fit."""
    hints = get_type_hints(declared)
    result = hints.pop("return")
    if deferred and result is not types.NoneType:
        raise TypeError(f"{declared.__qualname__}: a deferred statement returns nothing, or its answer is waited for")
    parameters = tuple(_parameter(name, hint) for name, hint in hints.items())
    for variant in filter(None, (text, postgres)):
        used = asked(variant)
        if used != set(hints):
            raise TypeError(f"{declared.__qualname__}: the text uses {sorted(used)}, the signature has {sorted(hints)}")
    code = declared.__code__
    module = declared.__module__.removeprefix("faultproof.")
    return Statement(
        name=f"{module}.{declared.__name__}",
        text=" ".join(text.split()),
        postgres=None if postgres is None else " ".join(postgres.split()),
        parameters=parameters,
        decode=decoder(result),
        source=f"{code.co_filename}:{code.co_firstlineno}",
        columns=_columns(result),
        deferred=deferred,
    )


def _parameter(name: str, hint: Any) -> Parameter:
    if get_origin(hint) in (list, tuple, Sequence):
        (item,) = (argument for argument in get_args(hint) if argument is not Ellipsis)
        if hasattr(item, "_fields"):
            fields = tuple((field, _plain(kind)) for field, kind in get_type_hints(item).items())
            return Parameter(name, item, fields)
        return Parameter(name, item, (("value", item),))
    return Parameter(name, _plain(hint), None)


def _plain(hint: Any) -> type:
    """The type of a column: what is left of `X | None` without the None."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (argument for argument in get_args(hint) if argument is not types.NoneType)
    if hint not in (int, str, float, bool, bytes):
        raise TypeError(f"{hint!r} is not a column type: use int, str, float, bool or bytes")
    kind: type = hint
    return kind


def _columns(hint: Any) -> int:
    if hint is types.NoneType or hint is Changed:
        return 0
    for row in (hint, *get_args(hint)):
        if hasattr(row, "_fields"):
            return len(row._fields)
    return 1


def decoder(hint: Any) -> Callable[[Answer], Any]:
    """What reads an answer as a return type says."""
    if hint is types.NoneType:
        return lambda answer: None
    if hint is Changed:
        return lambda answer: answer.changed
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        if hasattr(item, "_make"):
            return lambda answer: [item._make(row) for row in answer.rows]
        return lambda answer: [row[0] for row in answer.rows]
    if get_origin(hint) in (Union, types.UnionType):
        (item,) = (argument for argument in get_args(hint) if argument is not types.NoneType)
        if hasattr(item, "_make"):
            return lambda answer: item._make(answer.rows[0]) if answer.rows else None
        return lambda answer: answer.rows[0][0] if answer.rows else None
    if hasattr(hint, "_make"):
        return lambda answer: hint._make(answer.rows[0])
    return lambda answer: hint(answer.rows[0][0])

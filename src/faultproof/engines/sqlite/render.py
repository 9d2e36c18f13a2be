"""Statements in SQLite's spelling, and their values in the form that SQLite takes them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from faultproof.engines.values import encode_set, refuse_nul
from faultproof.ports.statement import Parameter, Statement

_BRACES = re.compile(r"\{([a-z_]+)\}")


class Rendered(NamedTuple):
    """A statement ready for `sqlite3`."""

    text: str
    takes_now: bool
    sets: tuple[str, ...]
    """Names of the parameters that travel as one JSON array."""
    texts: tuple[str, ...]
    """Names of those that are text."""


@functools.cache  # bounded: statements are declared at import, never made
def render(statement: Statement) -> Rendered:
    """Spell the statement for SQLite. `{now}` is a parameter, because SQLite has no clock that a test can own."""
    sets = {p.name: p for p in statement.parameters if p.fields is not None}

    def spelled(match: re.Match[str]) -> str:
        name = match[1]
        if name in ("now", "moment"):  # nothing waits in the middle of a statement
            return ":now"
        if name in ("lock", "lock_or_skip", "updated"):
            return ""
        if name == "serial":
            return "INTEGER PRIMARY KEY AUTOINCREMENT"
        return _subselect(sets[name])

    text = _BRACES.sub(spelled, statement.text)
    takes_now = "{now}" in statement.text or "{moment}" in statement.text
    texts = tuple(p.name for p in statement.parameters if p.fields is None and p.kind is str)
    return Rendered(text, takes_now, tuple(sets), texts)


_COLUMN = re.compile(r'(^|, )([\w".]+)(?=,|$)')


@functools.cache
def untyped(statement: Statement) -> Rendered:
    """The statement with results that are expressions and not columns.

    A connection made with `detect_types` hands what it reads from a column to the converter registered for the
    column's declared type, and cannot be told not to. An expression has no declared type; a unary plus makes one, and
    changes no value.
    """
    rendered = render(statement)
    changes, returning, columns = rendered.text.rpartition(" RETURNING ")
    if returning:
        return rendered._replace(text=changes + returning + _COLUMN.sub(r"\1+\2", columns))
    if not (statement.reads and statement.columns):
        return rendered
    names = [f"c{number}" for number in range(statement.columns)]
    results = ", ".join(f"+{name}" for name in names)
    text = f"WITH faultproof_result ({', '.join(names)}) AS ({rendered.text}) SELECT {results} FROM faultproof_result"
    return rendered._replace(text=text)


def _subselect(parameter: Parameter) -> str:
    if parameter.plain:
        return f"(SELECT value FROM json_each(:{parameter.name}))"
    assert parameter.fields is not None
    columns = ", ".join(f'value ->> {i} AS "{field}"' for i, (field, _) in enumerate(parameter.fields))
    return f"(SELECT {columns}, key AS ordinal FROM json_each(:{parameter.name})) AS {parameter.name}"


def bind(rendered: Rendered, values: dict[str, Any], now: Callable[[], int]) -> dict[str, Any]:
    """The values as `sqlite3` takes them. Refuses NUL characters."""
    bound = values
    if rendered.sets or rendered.takes_now:
        bound = dict(values)
        for name in rendered.sets:
            bound[name] = encode_set(values[name])
        if rendered.takes_now:
            bound["now"] = now()
    for name in rendered.texts:
        text = values[name]
        if text is not None and "\0" in text:
            refuse_nul(text)
    return bound

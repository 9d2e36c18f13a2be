"""Statements in PostgreSQL's spelling, with a cast from the declared type at every parameter."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from faultproof.engines.values import encode_set, refuse_nul
from faultproof.ports.script import Parameter, Statement

NOW = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
"""One value for a whole statement, and usable by an index; `now()` would be the start of the transaction."""

_MACROS = {
    "now": NOW,
    "lock": "FOR UPDATE",
    # One by one: a session that took several numbers in advance would use low ones late, and mix the intake's order.
    "serial": "BIGINT GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY",
    # Room for the next version of a row in its own page, where no index hears of it; and cleared after so many changes, not
    # after so many per cent: these tables are small, and read all the time.
    "updated": "WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200)",
}
_TYPES: dict[type, str] = {int: "bigint", str: "text", float: "double precision", bool: "boolean", bytes: "bytea"}
_PLACES = re.compile(r"(?<!:):(?P<parameter>[a-z_]+)|(?P<table>\b(?:FROM|JOIN) )?\{(?P<braces>[a-z_]+)\}|%")


class Rendered(NamedTuple):
    """A statement ready for psycopg."""

    text: bytes
    sets: tuple[str, ...]
    """Names of the parameters that travel as one JSON array."""


def render(statement: Statement) -> Rendered:
    """Spell the statement for PostgreSQL."""
    parameters = {parameter.name: parameter for parameter in statement.parameters}

    def spelled(match: re.Match[str]) -> str:
        if match[0] == "%":
            return "%%"
        if name := match["parameter"]:
            return f"%({name})s::{_TYPES[parameters[name].kind]}"
        name, table = match["braces"], match["table"] or ""
        if name in _MACROS:
            return table + _MACROS[name]
        rows = _subselect(parameters[name])
        # Until version 16 a subselect in FROM needs a name, and in `IN {ids}` it cannot have one.
        return f"{table}{rows} AS {name}" if table else rows

    text = _PLACES.sub(spelled, statement.postgres or statement.text)
    return Rendered(text.encode(), tuple(p.name for p in statement.parameters if p.fields is not None))


def _subselect(parameter: Parameter) -> str:
    array = f"jsonb_array_elements(%({parameter.name})s::jsonb)"
    if parameter.plain:
        return f"(SELECT (item #>> '{{}}')::{_TYPES[parameter.kind]} AS value FROM {array} AS item)"
    assert parameter.fields is not None
    columns = ", ".join(
        f'(item ->> {i})::{_TYPES[kind]} AS "{field}"' for i, (field, kind) in enumerate(parameter.fields)
    )
    return f"(SELECT {columns}, number - 1 AS ordinal FROM {array} WITH ORDINALITY AS items (item, number))"


def bind(rendered: Rendered, values: dict[str, Any]) -> dict[str, Any]:
    """The values as psycopg takes them. Refuses NUL characters."""
    bound = dict(values)
    for name in rendered.sets:
        bound[name] = encode_set(values[name])
    for value in values.values():
        if type(value) is str and "\0" in value:
            refuse_nul(value)
    return bound

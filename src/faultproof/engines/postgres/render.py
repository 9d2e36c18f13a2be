"""Statements in PostgreSQL's spelling, with a cast from the declared type at every parameter."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from faultproof.engines.values import encode_set, refuse_nul
from faultproof.ports.statement import Parameter, Statement

NOW = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
"""One value for a whole statement, and usable by an index; `now()` would be the start of the transaction."""

_MACROS = {
    "now": NOW,
    "moment": "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    "lock": "FOR UPDATE",
    "lock_or_skip": "FOR UPDATE SKIP LOCKED",
    # One by one: a session that took several numbers in advance would use low ones late, and mix the intake's order.
    "serial": "BIGINT GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY",
    # Room for the next version of a row in its own page, where no index hears of it; and cleared after so many changes, not
    # after so many per cent: these tables are small, and read all the time.
    "updated": "WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200)",
}
_TYPES: dict[type, str] = {int: "bigint", str: "text", float: "double precision", bool: "boolean", bytes: "bytea"}
_PLACES = re.compile(
    r"(?<!:):(?P<parameter>[a-z_]+)|(?P<before>\b(?:FROM|JOIN|(?<!NOT )IN) )?\{(?P<braces>[a-z_]+)\}|%"
)


class Rendered(NamedTuple):
    """A statement ready for psycopg."""

    text: bytes
    sets: tuple[str, ...]
    """Names of the parameters that travel as one JSON array."""


def render(statement: Statement) -> Rendered:
    """Spell the statement for PostgreSQL, as psycopg takes it."""
    return Rendered(_spelled(statement, lambda name: f"%({name})s", percent="%%").encode(), _sets(statement))


class Numbered(NamedTuple):
    """A statement ready for a driver whose parameters are `$1`, `$2` …"""

    text: str
    sets: tuple[str, ...]
    """Names of the parameters that travel as one JSON array."""
    order: tuple[str, ...]
    """Whose value `$1` is, `$2` …"""


def render_numbered(statement: Statement) -> Numbered:
    """Spell the statement for PostgreSQL, as asyncpg takes it."""
    order = tuple(parameter.name for parameter in statement.parameters)
    places = {name: f"${number}" for number, name in enumerate(order, 1)}
    return Numbered(_spelled(statement, places.__getitem__, percent="%"), _sets(statement), order)


def _sets(statement: Statement) -> tuple[str, ...]:
    return tuple(parameter.name for parameter in statement.parameters if parameter.fields is not None)


def _spelled(statement: Statement, place: Callable[[str], str], *, percent: str) -> str:
    parameters = {parameter.name: parameter for parameter in statement.parameters}

    def spelled(match: re.Match[str]) -> str:
        if match[0] == "%":
            return percent
        if name := match["parameter"]:
            return f"{place(name)}::{_TYPES[parameters[name].kind]}"
        name, before = match["braces"], match["before"] or ""
        if name in _MACROS:
            return before + _MACROS[name]
        rows = _subselect(parameters[name], place(name))
        if before == "IN ":
            # As an array an index can look for all of them. A set that is joined is one of unknown size to the planner, who
            # would rather read all of a table of which nothing is known yet: one that was empty a moment ago.
            return f"= ANY (ARRAY {rows})"
        # Until version 16 a subselect in FROM needs a name, and in `IN {ids}` it cannot have one.
        return f"{before}{rows} AS {name}" if before else rows

    return _PLACES.sub(spelled, statement.postgres or statement.text)


def _subselect(parameter: Parameter, place: str) -> str:
    # By way of text: users give asyncpg codecs of their own for jsonb, and would encode ours once more.
    array = f"jsonb_array_elements({place}::text::jsonb)"
    if parameter.plain:
        # The column is named too: or a table around this with a column `item` would be meant.
        return f"(SELECT (item #>> '{{}}')::{_TYPES[parameter.kind]} AS value FROM {array} AS items (item))"
    assert parameter.fields is not None
    columns = ", ".join(
        f'(item ->> {i})::{_TYPES[kind]} AS "{field}"' for i, (field, kind) in enumerate(parameter.fields)
    )
    return f"(SELECT {columns}, number - 1 AS ordinal FROM {array} WITH ORDINALITY AS items (item, number))"


def bind(rendered: Rendered | Numbered, values: dict[str, Any]) -> dict[str, Any]:
    """The values as the drivers take them. Refuses NUL characters."""
    bound = dict(values)
    for name in rendered.sets:
        bound[name] = encode_set(values[name])
    for value in values.values():
        if type(value) is str and "\0" in value:
            refuse_nul(value)
    return bound

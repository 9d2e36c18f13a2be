"""Constraints that are not there, in the tables of a PostgreSQL schema."""

from __future__ import annotations

import re
from collections.abc import Iterable

from psycopg import sql

from faultproof.prove.harness import ShowsNothing
from faultproof.prove.mutants.constraints import Constraint
from faultproof.prove.stepped.ground import Ground

_INDEX = "UNIQUE INDEX "
_KEYS = """SELECT c.conname, c.contype::text, pg_get_constraintdef(c.oid),
             ARRAY(SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey))
           FROM pg_constraint AS c WHERE c.conrelid = to_regclass(%s)"""
_NOT_NULL = """SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0
                 AND a.attnotnull AND NOT EXISTS (SELECT 1 FROM pg_index AS i
                   WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey))"""
_SAME = re.compile(r"[\s()\"]|::\w+")
"""What PostgreSQL writes otherwise than it read it."""


def relax(ground: Ground, constraints: Iterable[Constraint]) -> None:
    """Drop these. Raises `ShowsNothing` for one that the tables do not have."""
    for constraint in constraints:
        dropped = list(_dropped(ground, constraint))
        if not dropped:
            raise ShowsNothing(f"{constraint.table} has no {constraint.what}")
        for statement in dropped:
            ground.observer.execute(statement)


def _dropped(ground: Ground, constraint: Constraint) -> Iterable[sql.Composed]:
    table = sql.Identifier(constraint.table)
    if constraint.what == "NOT NULL":
        for (column,) in ground.observer.execute(_NOT_NULL, (constraint.table,)).fetchall():
            yield sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(table, sql.Identifier(column))
    elif constraint.what.startswith(_INDEX):
        yield sql.SQL("DROP INDEX {}").format(sql.Identifier(constraint.what.removeprefix(_INDEX)))
    else:
        for name, kind, definition, columns in ground.observer.execute(_KEYS, (constraint.table,)).fetchall():
            is_it = _plain(definition) == _plain(constraint.what) if kind == "c" else constraint.columns == set(columns)
            if is_it and kind in "cpu":
                yield sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(name))


def _plain(definition: str) -> str:
    return _SAME.sub("", definition).lower()

"""The constraints of a prepared database, and the same database without one of them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import NamedTuple, TypeAlias

import sqlglot
from sqlglot import expressions as exp

from faultproof.prove.mutants.images import columns, definitions, insert, opened, rows

_WITHOUT_ROWID = re.compile(r"\s*\bWITHOUT\s+ROWID\s*$", re.IGNORECASE)
_OURS = "faultproof_schema"
"""Read and written when tables are installed, which is no part of a proof."""


class Constraint(NamedTuple):
    """What a table refuses."""

    table: str
    what: str
    """As it is written: `PRIMARY KEY (log, grp)`, `CHECK (available >= 0)`; `NOT NULL` is all that a table has of those."""
    columns: frozenset[str]
    """Of a key."""


def constraints(image: bytes, tables: Iterable[str]) -> list[Constraint]:
    """Those of some tables. Keys that a table makes up for itself (INTEGER PRIMARY KEY) are none: nothing violates them."""
    wanted, found = frozenset(tables), list[Constraint]()
    with closing(opened(image)) as database:
        for kind, name, table, definition in definitions(database):
            if table not in wanted or table == _OURS:
                continue
            if kind == "table":
                found += dict.fromkeys(each for _, each in _of_table(name, _parsed(definition)))
            elif re.match(r"\s*CREATE\s+UNIQUE\b", definition, re.IGNORECASE):
                found.append(_of_index(name, table, definition))
    return found


def relaxed(image: bytes, dropped: frozenset[Constraint]) -> bytes:
    """The same rows in the same tables, without these constraints."""
    with closing(opened(image)) as old, closing(opened()) as new:
        for kind, name, table, definition in definitions(old):
            if kind == "table":
                new.execute(_without(name, definition, dropped))
                insert(new, name, rows(old, name), len(columns(old, name)))
            elif not any(each.table == table and each.what == _index(name) for each in dropped):
                new.execute(definition)
        return new.serialize()


def would_refuse(image: bytes, dropped: frozenset[Constraint], database: sqlite3.Connection) -> bool:
    """Whether these tables hold rows that they could not with the constraints they had in that image."""
    with closing(opened(image)) as original, closing(opened()) as strict:
        tables = {each.table for each in dropped}
        for each in definitions(original):
            if each.table in tables:
                strict.execute(each.sql)
        for name in tables:
            found = rows(database, name)
            insert(strict, name, found, len(columns(original, name)))
            if len(rows(strict, name)) != len(found):
                return True
    return False


Part: TypeAlias = exp.Expr


def _without(table: str, definition: str, dropped: frozenset[Constraint]) -> str:
    tree = _parsed(definition)
    left_out = [(part, each) for part, each in _of_table(table, tree) if each in dropped]
    if not left_out:
        return definition
    for part, _ in left_out:
        part.pop()
    has_key = not any(each.what.startswith("PRIMARY KEY") for _, each in left_out)
    without_rowid = " WITHOUT ROWID" if has_key and _WITHOUT_ROWID.search(definition) else ""
    return tree.sql(dialect="sqlite") + without_rowid


def _of_table(table: str, tree: exp.Expr) -> Iterator[tuple[Part, Constraint]]:
    """Each part of the definition with the constraint it makes, or contributes to."""
    for column in tree.find_all(exp.ColumnDef):
        for part in column.find_all(exp.ColumnConstraint):
            if (what := _of_column(column, part.kind)) is not None:
                yield part, Constraint(table, what, _key_columns(what, [column.name]))
    for part in tree.this.expressions:
        if isinstance(part, exp.Constraint):  # one with a name
            part = part.expressions[0]
        if isinstance(part, (exp.PrimaryKey, exp.UniqueColumnConstraint, exp.CheckColumnConstraint)):
            what = part.sql()
            names = [each.name for each in part.find_all(exp.Identifier)]
            yield part, Constraint(table, what, _key_columns(what, names))


def _of_column(column: exp.ColumnDef, kind: exp.Expr) -> str | None:
    if isinstance(kind, exp.NotNullColumnConstraint):
        return None if kind.args.get("allow_null") else "NOT NULL"
    if isinstance(kind, exp.CheckColumnConstraint):
        return kind.sql()
    if isinstance(kind, exp.UniqueColumnConstraint):
        return f"UNIQUE ({column.name})"
    if isinstance(kind, exp.PrimaryKeyColumnConstraint) and column.args["kind"].sql(dialect="sqlite") != "INTEGER":
        return f"PRIMARY KEY ({column.name})"
    return None


def _key_columns(what: str, names: list[str]) -> frozenset[str]:
    return frozenset(names) if what.startswith(("PRIMARY KEY", "UNIQUE")) else frozenset()


def _of_index(name: str, table: str, definition: str) -> Constraint:
    tree = sqlglot.parse_one(definition, dialect="sqlite")
    parameters = tree.this.args["params"]
    return Constraint(table, _index(name), frozenset(column.name for column in parameters.find_all(exp.Column)))


def _index(name: str) -> str:
    return f"UNIQUE INDEX {name}"


def _parsed(definition: str) -> exp.Expr:
    return sqlglot.parse_one(_WITHOUT_ROWID.sub("", definition), dialect="sqlite")

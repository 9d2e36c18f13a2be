"""Prepared databases as bytes: their tables, the rows in them, and others made of them, all in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlglot import expressions as exp

Row = tuple[Any, ...]


class Definition(NamedTuple):
    """A table or an index, as it was created."""

    kind: str
    name: str
    table: str
    sql: str


def opened(image: bytes | None = None) -> sqlite3.Connection:
    """A database of one's own in memory, with that content."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    if image is not None:
        database.deserialize(image)
    return database


def definitions(database: sqlite3.Connection) -> list[Definition]:
    """Tables, and then the indexes on them."""
    found = database.execute(
        """SELECT type, name, tbl_name, sql FROM sqlite_schema
           WHERE type IN ('table', 'index') AND sql IS NOT NULL AND substr(name, 1, 7) <> 'sqlite_'
           ORDER BY type DESC, rowid"""
    )
    return [Definition(*row) for row in found]


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: str
    key: int
    """Its place in the primary key, from 1; 0: it is none of it."""


def columns(database: sqlite3.Connection, table: str) -> list[Column]:
    """Those of a table, in order."""
    return [Column(*row) for row in database.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,))]


def rows(database: sqlite3.Connection, table: str) -> list[Row]:
    """All of a table."""
    query = exp.select("*").from_(exp.table_(table, quoted=True)).sql(dialect="sqlite")
    return database.execute(query).fetchall()


def insert(database: sqlite3.Connection, table: str, new: Iterable[Row], width: int) -> None:
    """Rows of so many values; a row that the table refuses is left out."""
    values = exp.select(*(exp.Placeholder() for _ in range(width)))
    insertion = exp.insert(values, exp.table_(table, quoted=True))
    insertion.set("alternative", "IGNORE")
    database.executemany(insertion.sql(dialect="sqlite"), new)

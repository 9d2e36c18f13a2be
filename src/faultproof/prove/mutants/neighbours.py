"""Neighbours: other logs, groups, sagas, escrows … in the same tables, so that a statement which does not keep to its own
rows meets others.

A neighbour is a copy of what the proof's own rows were at some moment of an undisturbed run, under another name. Nobody
works for it. The proof must come out as if it were not there, and it must be found at the end as it was at the beginning.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import expressions as exp

from faultproof.prove.mutants.images import Column, Row, columns, definitions, insert, opened, rows
from faultproof.prove.mutants.observe import Observed, Snapshot
from faultproof.prove.mutants.parsed import equalities

MOMENTS = 5
"""How many neighbours of each kind there are, each from another moment."""
_MARK = "~"


@dataclass
class Neighbourhood:
    """The names that tell one log, group, saga … from another: by table, the columns that hold them."""

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def hidden(self, query: str) -> str:
        """The query on what is the proof's own."""
        return _hidden(query, tuple(self.columns.items()))

    def populated(self, image: bytes, moments: list[Snapshot]) -> bytes:
        """The prepared database with neighbours in it."""
        with closing(opened(image)) as database:
            for number, snapshot in enumerate(_spread(moments)):
                for table, scopes in self.columns.items():
                    for scope in scopes:
                        self._move_in(database, table, scope, snapshot.get(table, []), f"{_MARK}{number}")
            return database.serialize()

    def _move_in(self, database: sqlite3.Connection, table: str, scope: str, own: list[Row], mark: str) -> None:
        every = columns(database, table)
        given = [None if each.type == "INTEGER" and each.key == 1 else each.name for each in every]
        copies = (
            tuple(
                None if name is None else f"{value}{mark}" if name == scope else value
                for name, value in zip(given, row, strict=True)
            )
            for row in own
        )
        insert(database, table, copies, len(every))

    def of(self, database: sqlite3.Connection) -> dict[str, list[Row]]:
        """The rows that are not the proof's own."""
        found = dict[str, list[Row]]()
        for table, scopes in self.columns.items():
            places = [number for number, each in enumerate(columns(database, table)) if each.name in scopes]
            found[table] = [row for row in rows(database, table) if any(_MARK in str(row[n]) for n in places)]
        return found


def neighbourhood(image: bytes, observed: Observed) -> Neighbourhood:
    """By what these scripts tell their rows from those of others: columns of text in a key, compared with a parameter, that
    come first in it (a kind of claims) or had one value wherever they were seen, compared or stored (a group)."""
    found = Neighbourhood()
    with closing(opened(image)) as database:
        tables = {each.name: columns(database, each.name) for each in definitions(database) if each.kind == "table"}
    scopes = _scopes(tables.values(), _values(observed, tables))
    for name, every in tables.items():
        present = tuple(each.name for each in every if each.name in scopes)
        if present:
            found.columns[name] = present
    return found


def _scopes(tables: Iterable[list[Column]], values: Mapping[str, set[Any]]) -> set[str]:
    keys = [[each for each in table if each.key] for table in tables]
    return {
        each.name
        for key in keys
        for each in key
        if len(key) > 1 and each.type == "TEXT" and each.name in values
        if each.key == 1 or len(values[each.name]) == 1
    }


def _values(observed: Observed, tables: Mapping[str, list[Column]]) -> dict[str, set[Any]]:
    """What each column was compared with, and held at any moment: what a script names once is not all there ever is."""
    found = dict[str, set[Any]]()
    for statement in observed.statements:
        for column, parameter in equalities(statement):
            found.setdefault(column, set()).update(observed.values[statement, parameter])
    for moment in observed.moments or []:
        for table, held in moment.items():
            for number, each in enumerate(tables[table]):
                if each.key and each.name in found:
                    found[each.name].update(row[number] for row in held)
    return found


def _spread(moments: list[Snapshot]) -> list[Snapshot]:
    """A few of them, the last among them."""
    return moments[:: -max(1, len(moments) // MOMENTS)][:MOMENTS]


@functools.lru_cache(maxsize=256)
def _hidden(query: str, scopes: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
    tree = sqlglot.parse_one(query, dialect="sqlite")
    for table in list(tree.find_all(exp.Table)):
        for name, names in scopes:
            if table.name == name:
                own = exp.select("*").from_(exp.to_table(name))
                for each in names:
                    own = own.where(f"instr(\"{each}\", '{_MARK}') = 0", dialect="sqlite")
                table.replace(own.subquery(table.alias_or_name))
    return tree.sql(dialect="sqlite")

"""Where a case is run: a schema of its own in the database that is given, its connections, and its rows as prepared.

Whatever a case does, nobody else's tables are touched: `search_path` leads to this schema alone, and it is dropped at the
end. Between two runs a function in it puts the rows and sequences back, in one round trip.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from faultproof.engines.postgres.address import address_of, cannot_reach, without_password
from faultproof.engines.postgres.faults import line
from faultproof.errors import CannotOpen
from faultproof.prove.stepped.wire import Wire

VACUUM_EVERY = 250
"""Runs after which the rows that they have left dead are cleared: each look passes over them."""
STATEMENT_S = 30
"""The server ends whatever takes longer, waiting for locks included."""

_TABLES = """SELECT c.relname, c.relkind::text, ARRAY(SELECT attname FROM pg_attribute AS a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
             FROM pg_class AS c WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'S') ORDER BY c.relname"""
_BLOCKING = "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS pid"


class Ground:
    """A schema with connections to it. Raises `TryAgain` where the server cannot be reached, `CannotOpen` where nothing may
    be created."""

    def __init__(self, url: str) -> None:
        self._address = address_of(url)
        self.schema = f"faultproof_stepped_{secrets.token_hex(6)}"
        self._runs = 0
        self._tables: list[str] = []
        self._opened: list[psycopg.Connection[Any]] = []
        self.observer = self.connect()
        try:
            self.observer.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
            self.may_hurry = self._may_hurry()
        except psycopg.errors.InsufficientPrivilege as error:
            self.observer.close()
            raise CannotOpen(f"{self._address.name}: stepping needs a schema of its own: {line(error)}") from error

    may_hurry: bool
    """Whether sessions may say when deadlocks are looked for; else each costs what the server waits, by default 1 s."""

    def connect(self) -> psycopg.Connection[Any]:
        """One more connection, in autocommit; closed with the ground."""
        options = {**self._address.options, "application_name": "faultproof stepped"}
        try:
            raw = psycopg.connect(**options, autocommit=True)
        except psycopg.Error as error:
            raise cannot_reach(self._address, error) from without_password(error)
        self._opened.append(raw)
        # Nothing here outlives the run, so no commit need wait for the disk.
        raw.execute(
            "SELECT set_config('search_path', %s, false), set_config('synchronous_commit', 'off', false), "
            "set_config('jit', 'off', false), set_config('statement_timeout', %s, false)",
            (self.schema, f"{STATEMENT_S}s"),
        )
        return raw

    def keep(self) -> None:
        """From now on every `restore` leads back to the rows that are there now."""
        restored: list[sql.Composable] = []
        for name, kind, columns in self.observer.execute(_TABLES, (self.schema,)).fetchall():
            if kind == "S":
                restored.append(self._sequence(name))
            else:
                restored += self._table(name, columns)
        self.observer.execute(
            sql.SQL("CREATE FUNCTION restore() RETURNS void LANGUAGE plpgsql AS {}").format(
                sql.Literal(sql.Composed([sql.SQL("BEGIN "), *restored, sql.SQL("END")]).as_string(self.observer))
            )
        )
        self._vacuum()

    def restore(self) -> None:
        """All rows and sequences as they were kept. No session may be inside a transaction."""
        self._runs += 1
        if self._runs % VACUUM_EVERY == 0:
            self._vacuum()
        self.observer.execute("SELECT restore()", prepare=True)

    def blocking(self, pids: Sequence[int]) -> dict[int, list[int]]:
        """Who keeps each of these server processes waiting; nobody, where it does not wait."""
        return dict(self.observer.execute(_BLOCKING, (list(pids),), prepare=True).fetchall())

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """A query on what is committed."""
        return self.observer.execute(query.encode(), prepare=True).fetchall()

    def close(self) -> None:
        """Drop the schema, and close every connection."""
        observer, *others = self._opened
        for raw in others:
            raw.close()
        if not observer.closed:
            observer.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))
            observer.close()

    def _may_hurry(self) -> bool:
        try:
            self.observer.execute("SET deadlock_timeout = '1ms'")
        except psycopg.errors.InsufficientPrivilege:
            return False
        self.observer.execute("RESET deadlock_timeout")
        return True

    def _sequence(self, name: str) -> sql.Composable:
        ((last, is_called),) = self.observer.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(name))
        ).fetchall()
        return sql.SQL("PERFORM setval({}, {}, {}); ").format(
            sql.Literal(f'"{name}"'), sql.Literal(last), sql.Literal(is_called)
        )

    def _table(self, name: str, columns: Sequence[str]) -> list[sql.Composable]:
        table, kept = sql.Identifier(name), sql.Identifier(f"kept of {name}")
        # The planner sees what it saw first, and nobody comes between who is no session.
        self.observer.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(table))
        self.observer.execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(kept, table))
        self._tables.append(name)
        parts: list[sql.Composable] = [sql.SQL("DELETE FROM {}; ").format(table)]
        ((rows,),) = self.observer.execute(sql.SQL("SELECT count(*) FROM {}").format(kept)).fetchall()
        if rows:
            named = sql.SQL(", ").join(map(sql.Identifier, columns))
            parts.append(
                sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}; ").format(
                    table, named, named, kept
                )
            )
        return parts

    def _vacuum(self) -> None:
        for name in self._tables:
            self.observer.execute(sql.SQL("VACUUM {}").format(sql.Identifier(name)))

    def wire(self, name_of: Callable[[bytes], str]) -> Wire:
        """A session's connection."""
        return Wire(self.connect(), name_of)

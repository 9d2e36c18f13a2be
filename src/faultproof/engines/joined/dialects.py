"""What SQLAlchemy's drivers want: our statements in their spelling, and their errors in ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import exc

from faultproof.engines.joined.inside import WHERE
from faultproof.engines.postgres import settings
from faultproof.engines.postgres.render import bind, render, render_numbered
from faultproof.engines.postgres.states import Lost, problem
from faultproof.engines.sqlite import durability
from faultproof.engines.sqlite.faults import busy_inside, translated
from faultproof.engines.sqlite.render import bind as bind_sqlite
from faultproof.engines.sqlite.render import untyped
from faultproof.errors import Busy, Failed, FaultproofError, InvalidInput, Misuse, NoTransaction, NotSupported
from faultproof.ports.database import Health
from faultproof.ports.script import Call, Script
from faultproof.ports.statement import Statement

Values = dict[str, Any] | tuple[Any, ...]


class Dialect(Protocol):
    """One engine behind one driver."""

    def begin(self, connection: sa.Connection) -> bool:
        """Make sure that the driver is in a transaction, or will be: True if one was begun here. Raises `NoTransaction`
        where each statement would commit by itself."""
        ...

    def command(self, call: Call) -> tuple[str, Values]:
        """The statement and its values, as the driver takes them."""
        ...

    def problem(self, error: exc.DBAPIError) -> FaultproofError:
        """The driver's error as one of ours."""
        ...

    def health(self) -> Script[Health]:
        """The engine, and what this transaction's commit promises."""
        ...


class Sqlite:
    """SQLite through `pysqlite` or `aiosqlite`."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def begin(self, connection: sa.Connection) -> bool:
        driver = _driver(connection)
        if driver.in_transaction:
            return False
        if driver.isolation_level is None and getattr(driver, "autocommit", -1) in (-1, True):
            raise _commits_alone()
        # The driver would begin before our first change, and take a savepoint before it for a transaction of its own.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return True

    def command(self, call: Call) -> tuple[str, Values]:
        rendered = _rendered(untyped, call.statement)
        return rendered.text, bind_sqlite(rendered, call.values, self._now)

    def problem(self, error: exc.DBAPIError) -> FaultproofError:
        if not isinstance(error.orig, sqlite3.Error):
            return Failed(f"{WHERE}: {error.orig}")
        found = translated(error.orig, WHERE)
        return busy_inside(found) if isinstance(found, Busy) else found

    def health(self) -> Script[Health]:
        return durability.health()


class Postgres:
    """PostgreSQL through `psycopg`, `psycopg2` or `asyncpg`."""

    def __init__(self, *, numbered: bool) -> None:
        self._numbered = numbered

    def begin(self, connection: sa.Connection) -> bool:
        if connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]  # these drivers have it
            raise _commits_alone()
        return False

    def command(self, call: Call) -> tuple[str, Values]:
        if self._numbered:
            numbered = _rendered(render_numbered, call.statement)
            bound = bind(numbered, call.values)
            return numbered.text, tuple(bound[name] for name in numbered.order)
        rendered = _rendered(render, call.statement)
        return rendered.text.decode(), bind(rendered, call.values)

    def problem(self, error: exc.DBAPIError) -> FaultproofError:
        line = str(error.orig).split("\n", 1)[0]
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        if state is not None:
            return problem(state, line, WHERE)
        if "another operation" in line:
            return Misuse(
                "this connection is busy with another operation: await one call after the other, or use a session for "
                "each task"
            )
        if error.connection_invalidated or isinstance(error, exc.OperationalError):
            return Lost(f"the connection to {WHERE} was lost, and with it the transaction: {line}")
        return InvalidInput(f"{WHERE}: {line}")

    def health(self) -> Script[Health]:
        return settings.health()


_NUMBERED = {"psycopg": False, "psycopg_async": False, "psycopg2": False, "asyncpg": True}
_cache: dict[tuple[Any, Statement], Any] = {}  # bounded: statements are declared at import, never made


def dialect_of(connection: sa.Connection, now: Callable[[], int]) -> Dialect:
    """How to speak to the connection. Raises `NotSupported` where nobody here can."""
    engine, driver = connection.dialect.name, connection.dialect.driver
    if engine == "sqlite" and driver in ("pysqlite", "aiosqlite"):
        return Sqlite(now)
    if engine == "postgresql" and driver in _NUMBERED:
        return Postgres(numbered=_NUMBERED[driver])
    raise NotSupported(
        f"{engine}+{driver} cannot be joined: use sqlite (pysqlite, aiosqlite) or postgresql (psycopg, asyncpg, psycopg2)"
    )


def is_in_driver_transaction(connection: sa.Connection) -> bool:
    """False after SQLite has rolled back by itself; on PostgreSQL it never does."""
    return connection.dialect.name != "sqlite" or bool(_driver(connection).in_transaction)


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


def _rendered(how: Callable[[Statement], Any], statement: Statement) -> Any:
    found = _cache.get((how, statement))
    if found is None:
        found = _cache[how, statement] = how(statement)
    return found


def _commits_alone() -> NoTransaction:
    return NoTransaction(
        "this connection has the isolation level AUTOCOMMIT: our statement would be committed by itself"
    )

"""What an operation costs, counted and not timed: statements, round trips, bytes of write-ahead log."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.engines.postgres.news import Wakeups
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.engines.sqlite.lane import ThreadLane
from faultproof.ports.database import Database
from tests.benchmarks.wire import counted


class Counts(NamedTuple):
    """Totals so far, or of one operation."""

    statements: int
    """That the database executed, BEGIN and COMMIT among them."""
    round_trips: int
    """PostgreSQL: exchanges that are waited for. SQLite: hops to the thread that owns the connection."""
    wal_bytes: int

    def since(self, before: "Counts") -> "Counts":
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


class Meter(Protocol):
    """Counts what one `Database` has caused."""

    db: Database

    async def read(self) -> Counts:
        """All of it so far."""


class PostgresMeter:
    """Counts messages on the pool's one connection, through a proxy. Wake-ups are not in it: they are as many as there is
    time for."""

    def __init__(self, db: Database, url: str, said: list[Any]) -> None:
        self.db = db
        self._raw = psycopg.connect(url, autocommit=True)
        self._said = said

    async def read(self) -> Counts:
        row = self._raw.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        pool = self._said[0]
        assert any(b"BEGIN" in text for text in pool.texts) or not pool.statements
        return Counts(pool.statements, pool.round_trips, int(row[0]))

    def close(self) -> None:
        self._raw.close()


@asynccontextmanager
async def postgres_meter(url: str, env: Env, patch: pytest.MonkeyPatch) -> AsyncIterator[PostgresMeter]:
    patch.setattr(Wakeups, "send", lambda wakeups, topics: None)
    async with counted(url) as (proxied, said):
        options = fp.PostgresOptions(pool_min=1, pool_max=1, poll=3_600)
        async with fp.connect(proxied, env=env, options=options) as db:
            meter = PostgresMeter(db, url, said)
            try:
                yield meter
            finally:
                meter.close()


ASKING = "faultproof-wake-ask"
"""The task that asks whether others have committed, as often as there is time."""


class SqliteMeter:
    """Asks SQLite to tell of each statement, and the file how long its log is. Looking for wake-ups is not in it."""

    def __init__(self, db: Database, wal: Path) -> None:
        self.db = db
        self.statements = 0
        self.hops = 0
        self._wal = wal

    async def read(self) -> Counts:
        return Counts(self.statements, self.hops, os.path.getsize(self._wal) if self._wal.exists() else 0)

    def tell(self, statement: str) -> None:
        self.statements += statement != "PRAGMA data_version"


@asynccontextmanager
async def sqlite_meter(path: Path, env: Env, patch: pytest.MonkeyPatch) -> AsyncIterator[SqliteMeter]:
    async with fp.connect(str(path), env=env) as db:
        assert isinstance(db, SqliteDatabase)
        meter = SqliteMeter(db, Path(f"{path}-wal"))
        for lane in (db._writer, db._reader):
            await lane.call(lambda connection: connection.raw.set_trace_callback(meter.tell))
        plain = ThreadLane._submit

        def submit(lane: ThreadLane, job: Any, then: Any = None) -> Any:
            task = asyncio.current_task()
            meter.hops += task is not None and task.get_name() != ASKING
            return plain(lane, job, then)

        patch.setattr(ThreadLane, "_submit", submit)
        yield meter

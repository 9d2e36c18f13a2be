"""The engines under test, and the few things that a test must say differently to each."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

import faultproof.engines.postgres as postgres
import faultproof.engines.postgres.opening as postgres_opening
import faultproof.engines.sqlite as sqlite
import faultproof.engines.sqlite.database as sqlite_database
from faultproof.clock import Env
from faultproof.ports.database import Database
from tests.fakes import ShiftedClock

WAIT_S = 20.0
"""No test waits longer than this for anything."""


class Engine(Protocol):
    """One database that any number of `Database` objects may open."""

    name: str
    capabilities: frozenset[str]
    driver_error: type[Exception]
    """What the user's own wrong SQL raises."""

    async def open(self, env: Env | None = None) -> Database: ...

    def elapse(self, us: int) -> None:
        """Make everything that is stored so much older."""

    async def until_somebody_waits(self) -> None:
        """Return when a connection waits for a lock, where the engine can tell."""

    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`Database` objects opened from now on give up on locks after a moment."""

    def execute(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run and commit SQL on a connection that has nothing to do with faultproof. `?` is a parameter."""

    def spelled(self, text: str) -> str:
        """User's SQL with `?` as the driver spells it."""


class Sqlite:
    name = "sqlite"
    capabilities = sqlite.CAPABILITIES
    driver_error: type[Exception] = sqlite3.Error

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ShiftedClock()

    async def open(self, env: Env | None = None) -> Database:
        return await sqlite.open_database(str(self.path), env=env or Env(clock=self.clock))

    def elapse(self, us: int) -> None:
        self.clock.advance(us / 1_000_000)

    async def until_somebody_waits(self) -> None:
        await asyncio.sleep(0)  # waiting for the one write lock is our own polling, and leaves no trace to look for

    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_database, "LOCK_TIMEOUT_S", 0.05)

    def execute(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        raw = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
        try:
            return raw.execute(text, parameters).fetchall()
        finally:
            raw.close()

    def spelled(self, text: str) -> str:
        return text


class Postgres:
    name = "postgres"
    capabilities = postgres.CAPABILITIES
    driver_error: type[Exception] = psycopg.Error

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self, env: Env | None = None) -> Database:
        return await postgres.open_database(self.url, env=env or Env())

    def elapse(self, us: int) -> None:
        # Nobody can move this clock, but the past can be moved back. `test_time.py` is about the clock itself.
        self.execute("UPDATE faultproof_claim SET until_us = until_us - ?", (us,))
        self.execute("UPDATE faultproof_intake SET at_us = at_us - ?", (us,))
        self.execute("UPDATE faultproof_intake SET due_us = due_us - ? WHERE due_us > 0", (us,))
        self.execute("UPDATE faultproof_log SET at_us = at_us - ?", (us,))

    async def until_somebody_waits(self) -> None:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(WAIT_S):
            while await asyncio.to_thread(self.execute, waiting) == [(0,)]:
                pass

    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_opening, "LOCK_TIMEOUT_S", 0.05)

    def execute(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as raw:
            cursor = raw.execute(self.spelled(text).encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def spelled(self, text: str) -> str:
        return text.replace("?", "%s")

    def empty(self) -> None:
        """Cut off whoever is left from the test before, and leave nothing of it."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

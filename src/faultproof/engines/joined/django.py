"""Django: `django.db.connection`, or one of `connections`, inside `transaction.atomic()`.

Runs on the driver's own connection below Django's, through the adapters for `sqlite3` and psycopg.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from django.db import DatabaseError, transaction

from faultproof.engines.joined.inside import Origin, Topics
from faultproof.engines.sqlite.joined import JoinedSqlite
from faultproof.errors import Misuse, NoTransaction, NotSupported
from faultproof.ports.database import Database, Health, JoinedSyncTx
from faultproof.ports.script import Script

T = TypeVar("T")


class Driver(JoinedSyncTx, Protocol):
    """The adapter for the driver below."""

    def run_noting(self, script: Script[T], topics: Topics, *, single: bool) -> T:
        """Like `run`; `topics` gets what is to be woken after the commit."""
        ...


class JoinedDjango:
    """Runs scripts in the transaction that `atomic()` has opened."""

    def __init__(self, handle: Any, now: Callable[[], int], wake: Database | None) -> None:
        self._handle = handle
        self._now = now
        self._wake = wake
        self._origin = Origin()
        self._driver()

    def run(self, script: Script[T], *, single: bool = False) -> T:
        self._origin.check()
        topics: Topics = {}
        driver = self._driver()
        try:
            result = driver.run_noting(script, topics, single=single)
        except BaseException:
            self._say_if_broken()
            raise
        # Without `atomic()` Django knows of no commit; then the others hear of it by their poll.
        if topics and self._wake is not None and self._handle.in_atomic_block:
            transaction.on_commit(partial(self._wake.wake, tuple(topics)), using=self._handle.alias)
        return result

    def health(self) -> Health:
        return self._driver().health()

    def _driver(self) -> Driver:
        """The adapter of the driver's connection. Django may open another one at any time, so it is asked each time."""
        handle = self._handle
        try:
            handle.validate_thread_sharing()
        except DatabaseError as error:
            raise Misuse("this Django connection belongs to another thread: use `connections` in each") from error
        if handle.get_autocommit():
            raise NoTransaction(
                f"the Django connection {handle.alias!r} is in autocommit mode: open `transaction.atomic()` around"
            )
        if handle.needs_rollback:
            raise NoTransaction(
                "Django will roll this block back, because a statement in it has failed: leave it first"
            )
        raw = handle.connection
        if isinstance(raw, sqlite3.Connection):
            return JoinedSqlite(raw, self._now)
        if type(raw).__module__.startswith("psycopg2"):
            raise NotSupported("Django uses psycopg2 here: install psycopg 3, which it prefers, and join again")
        if handle.vendor == "postgresql":
            from faultproof.engines.joined.psycopg import JoinedPsycopg

            return JoinedPsycopg(raw)
        raise NotSupported(f"Django on {handle.vendor} cannot be joined: use sqlite3 or postgresql")

    def _say_if_broken(self) -> None:
        """After some errors PostgreSQL takes no more statements; Django can say so better, and rolls back to the block."""
        info = getattr(self._handle.connection, "info", None)
        if info is not None and self._handle.in_atomic_block and info.transaction_status.name == "INERROR":
            self._handle.needs_rollback = True


def join(handle: Any, now: Callable[[], int], wake: Database | None) -> JoinedDjango | None:
    """The adapter for one of Django's connections; None for any other of its types."""
    return JoinedDjango(handle, now, wake) if hasattr(handle, "in_atomic_block") else None

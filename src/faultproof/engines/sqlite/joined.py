"""A `sqlite3` connection of the user's own, in a transaction of the user's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from faultproof.engines.sqlite.checkpoint import note_joined
from faultproof.engines.sqlite.connection import Connection
from faultproof.engines.sqlite.durability import health
from faultproof.engines.sqlite.faults import busy_inside, translated
from faultproof.engines.sqlite.render import untyped
from faultproof.errors import Busy, InvalidInput, NoTransaction, UsedAfterFork
from faultproof.ports.database import Health
from faultproof.ports.script import Call, Later, Script, Step, Wake, drive
from faultproof.ports.statement import NOTHING, Answer

T = TypeVar("T")


class JoinedSqlite:
    """Runs scripts on the user's connection, leaving its settings and its transaction as they were."""

    def __init__(self, raw: sqlite3.Connection, now: Callable[[], int]) -> None:
        self._raw = raw
        self._connection = Connection(raw, name="the joined database", now=now, rendering=untyped)
        self._pid = os.getpid()
        self._check()
        note_joined(raw)

    def run(self, script: Script[T], *, single: bool = False) -> T:
        """Run the script inside the user's transaction; all of its changes or, after an error, none of them."""
        return self.run_noting(script, {}, single=single)

    def health(self) -> Health:
        """What this transaction's commit will promise."""
        return self.run(health())

    def run_noting(self, script: Script[T], topics: dict[str, None], *, single: bool) -> T:
        """Like `run`, for whoever knows of the commit: `topics` gets what is to be woken then. `single` saves nothing."""
        self._check()
        settings = self._raw.row_factory, self._raw.text_factory
        # Both leak into whoever shares the connection: our rows must be tuples of str.
        self._raw.row_factory, self._raw.text_factory = None, str
        try:
            return self._run(script, topics)
        finally:
            self._raw.row_factory, self._raw.text_factory = settings

    def _run(self, script: Script[T], topics: dict[str, None]) -> T:
        begins = not self._raw.in_transaction
        if begins:  # the driver would begin before our first change; do it before our first read too
            self._begin()
        self._raw.execute("SAVEPOINT faultproof")
        try:
            result = drive(script, lambda step: self._execute(step, topics))
        except BaseException:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK TO faultproof")
                self._raw.execute("RELEASE faultproof")
                if begins:
                    self._raw.rollback()
            raise
        self._raw.execute("RELEASE faultproof")
        return result

    def _begin(self) -> None:
        try:
            self._raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise translated(error, "the joined database") from error

    def _execute(self, step: Step, topics: dict[str, None]) -> Answer:
        if isinstance(step, Later):  # the transaction goes on if the user's code does
            step.check(self._execute(step.call, topics))
            return NOTHING
        if not isinstance(step, (Call, Wake)):
            raise InvalidInput("a script that ends transactions cannot be run inside the user's")
        if isinstance(step, Wake):
            topics[step.topic] = None
            return NOTHING
        if not self._raw.in_transaction:  # SQLite rolled back after an error which the script has caught
            raise NoTransaction("SQLite has rolled the transaction back after an error: begin again")
        try:
            return self._connection.execute(step)
        except Busy as busy:
            raise busy_inside(busy) from busy

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise UsedAfterFork("this connection was joined before a fork: connect in the child process instead")
        try:
            in_transaction, autocommits = self._raw.in_transaction, self._autocommits()
            self._raw.execute("SELECT 1").close()  # not fetched: the row would go to the user's factory
        except sqlite3.Error as error:
            raise translated(error, "the joined database") from error
        if autocommits and not in_transaction:
            raise NoTransaction("this sqlite3 connection is in autocommit mode and outside a transaction: BEGIN first")

    def _autocommits(self) -> bool:
        """Whether a change outside a transaction would be committed at once. `autocommit` came with Python 3.12."""
        autocommit = getattr(self._raw, "autocommit", -1)
        if autocommit == -1:  # sqlite3.LEGACY_TRANSACTION_CONTROL
            return self._raw.isolation_level is None
        return bool(autocommit)

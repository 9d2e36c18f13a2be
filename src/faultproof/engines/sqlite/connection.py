"""One `sqlite3` connection that executes steps. Synchronous; whoever owns it decides in which thread it runs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from faultproof.engines.sqlite.faults import NotBegun, translated
from faultproof.engines.sqlite.render import Rendered, bind, render
from faultproof.errors import (
    Busy,
    CannotOpen,
    InvalidInput,
    NoTransaction,
    NotSupported,
    OutcomeUnknown,
    Repair,
    SchemaMismatch,
    StorageFailed,
    TryAgain,
    UsedAfterFork,
)
from faultproof.ports.script import (
    Begin,
    ByIndexes,
    Call,
    Commit,
    Later,
    Patience,
    Rollback,
    RollbackTo,
    Savepoint,
    Step,
    Wake,
)
from faultproof.ports.statement import NOTHING, Answer, Statement

Synchronous = Literal["full", "normal"]


_open: set[Connection] = set()  # bounded: by what is open
_inherited: set[str] = set()  # bounded: by what was open at a fork


def _forked() -> None:
    """In the child: SQLite inherits its table of locks, and what it believes to hold on these files holds nobody off."""
    _inherited.update(connection.name for connection in _open)


os.register_at_fork(after_in_child=_forked)


def refuse_inherited(path: str) -> None:
    """Raise `UsedAfterFork` for a file that the parent had open when it forked; here its locks cannot be trusted."""
    if path in _inherited:
        raise UsedAfterFork(
            f"{path} was open when this process was forked, and SQLite cannot lock it here: close before the fork, or spawn"
        )


class Connection:
    """Executes steps on a `sqlite3` connection, with `busy_timeout=0`: waiting for locks is the caller's policy."""

    begin, commit, rollback = "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"

    def __init__(
        self,
        raw: sqlite3.Connection,
        *,
        name: str,
        now: Callable[[], int],
        reads_only: bool = False,
        rendering: Callable[[Statement], Rendered] = render,
    ) -> None:
        self.raw = raw
        self.name = name
        self._rendered = rendering
        self._now = now
        self._reads = reads_only
        self._woken: dict[str, None] = {}  # bounded: topics of one transaction; a dict keeps their order
        self._begun = False
        self._refused: Exception | None = None
        """What a check has raised: nothing more happens in this transaction, whoever has caught it."""

    def execute(self, step: Step) -> Answer:
        """Run one step."""
        if type(step) is Call:
            return self._call(step)
        if type(step) is Wake:
            if step.when is None or step.when():  # what it hangs on is known already
                self._woken[step.topic] = None
            return NOTHING
        if type(step) is Begin:
            return self._begin(step)
        if type(step) is Later:
            return self._later(step)
        if type(step) is Commit:
            return self._commit()
        if type(step) is Rollback:
            return self._rollback()
        if type(step) is Patience or type(step) is ByIndexes:
            return NOTHING
        return self._part(step)

    def execute_raw(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Run the user's own SQL as it is. The driver's errors are the user's and pass through, except for the trouble of
        the database itself (locked, full, unreadable): that is nobody's mistake, and calls for another answer."""
        self._check()
        try:
            cursor = self.raw.execute(sql, parameters)
            return Answer(cursor.fetchall(), cursor.rowcount)
        except sqlite3.Error as error:
            trouble = translated(error, self.name)
            if isinstance(trouble, (TryAgain, Repair)) and not isinstance(trouble, SchemaMismatch):
                raise trouble from error
            raise

    def others_committed(self) -> int:
        """A number that moves when any other connection, of this process or another, has committed."""
        try:
            (version,) = self.raw.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise translated(error, self.name) from error
        return int(version)

    def close(self) -> None:
        """Close, rolling back what is open."""
        with suppress(sqlite3.Error):
            self.raw.close()
        if self in _open:
            _open.remove(self)

    def _check(self) -> None:
        if self._refused is not None:
            raise self._refused
        # After some errors (a full disk, RAISE(ROLLBACK)) SQLite has rolled back by itself. If the error was caught
        # and the work went on, each further statement would commit alone.
        if self._begun and not self.raw.in_transaction:
            raise NoTransaction(
                f"the transaction in {self.name} has ended before its time: a COMMIT or ROLLBACK of yours, or because "
                "SQLite rolled it back after an error that was caught; leave the block and begin again"
            )

    def _call(self, call: Call) -> Answer:
        self._check()
        statement = call.statement
        rendered = self._rendered(statement)
        try:
            values = bind(rendered, call.values, self._now)
            cursor = self.raw.execute(rendered.text, values)
            return Answer(cursor.fetchall(), cursor.rowcount)
        except sqlite3.Error as error:
            if self._reads and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY:
                raise InvalidInput("a script that writes was given to `read`: use `transact`") from error
            raise translated(error, self.name) from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise InvalidInput(f"a value does not fit into {self.name}: {error}") from error

    def _later(self, step: Later) -> Answer:
        answer = self._call(step.call)
        try:
            step.check(answer)
        except Exception as refused:
            self._refused = refused
            raise
        return NOTHING

    def _part(self, step: Step) -> Answer:
        if type(step) is not RollbackTo:
            self._check()
            self.raw.execute("SAVEPOINT faultproof" if type(step) is Savepoint else "RELEASE faultproof")
        elif self.raw.in_transaction:
            self.raw.execute("ROLLBACK TO faultproof")
            self.raw.execute("RELEASE faultproof")
        return NOTHING

    def _begin(self, begin: Begin) -> Answer:
        self._woken.clear()
        try:
            self.raw.execute(self.begin if begin.writes else "BEGIN")
        except sqlite3.Error as error:
            problem = translated(error, self.name)
            raise (NotBegun(str(problem)) if isinstance(problem, Busy) else problem) from error
        self._begun = True
        return NOTHING

    def _commit(self) -> Answer:
        try:
            self._check()
        except Exception:
            self._rollback()
            raise
        topics = [(topic,) for topic in self._woken]
        try:
            self.raw.execute(self.commit)
        except sqlite3.Error as error:
            problem = translated(error, self.name)
            self._rollback()
            if isinstance(problem, StorageFailed):
                # The WAL frame may have reached the disk although the sync failed.
                raise OutcomeUnknown(f"the commit to {self.name} may or may not be on disk: {error}") from error
            raise problem from error
        self._begun = False
        return Answer(topics, 0)

    def _rollback(self) -> Answer:
        self._woken.clear()
        self._refused = None
        self._begun = False
        if self.raw.in_transaction:
            with suppress(sqlite3.Error):
                self.raw.execute(self.rollback)
        return NOTHING


def open_connection(path: str, *, now: Callable[[], int], synchronous: Synchronous, reader: bool = False) -> Connection:
    """Open a database file in WAL mode, without automatic checkpoints (see `Checkpointer` for why)."""
    if sqlite3.sqlite_version_info < (3, 38):
        raise NotSupported(f"SQLite {sqlite3.sqlite_version} is too old: faultproof needs 3.38 or newer")
    raw = None
    try:
        raw = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
        if not reader:
            (mode,) = raw.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise CannotOpen(f"{path} cannot use a write-ahead log (got {mode!r}): use a file on a local disk")
        raw.execute(f"PRAGMA synchronous={synchronous}")
        raw.execute("PRAGMA wal_autocheckpoint=0")
        if reader:
            raw.execute("PRAGMA query_only=ON")
        raw.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        # SQLite opens a file without the right to write for reading, and says so at the first write only.
        if not os.access(path, os.W_OK):
            raise CannotOpen(f"{path} is read-only for this user: check the rights of the file and its directory")
    except sqlite3.Error as error:
        if raw is not None:
            raw.close()
        raise translated(error, path) from error
    except CannotOpen:
        assert raw is not None
        raw.close()
        raise
    connection = Connection(raw, name=path, now=now, reads_only=reader)
    _open.add(connection)
    return connection

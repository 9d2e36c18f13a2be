"""One `sqlite3` connection that executes steps. Synchronous; whoever owns it decides in which thread it runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from faultproof.engines.sqlite.faults import NotBegun, translated
from faultproof.engines.sqlite.render import Rendered, bind, render
from faultproof.errors import Busy, CannotOpen, NotSupported, OutcomeUnknown, StorageFailed
from faultproof.ports.script import NOTHING, Answer, Begin, Call, Commit, Statement, Step, Wake

Synchronous = Literal["full", "normal"]

_rendered: dict[Statement, Rendered] = {}  # bounded: statements are declared at import, never made


class Connection:
    """Executes steps on a `sqlite3` connection, with `busy_timeout=0`: waiting for locks is the caller's policy."""

    begin, commit, rollback = "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"

    def __init__(self, raw: sqlite3.Connection, *, name: str, now: Callable[[], int]) -> None:
        self.raw = raw
        self.name = name
        self._now = now
        self._woken: dict[str, None] = {}  # bounded: topics of one transaction; a dict keeps their order

    def execute(self, step: Step) -> Answer:
        """Run one step."""
        if type(step) is Call:
            return self._call(step)
        if type(step) is Wake:
            self._woken[step.topic] = None
            return NOTHING
        if type(step) is Begin:
            return self._begin(step)
        if type(step) is Commit:
            return self._commit()
        return self._rollback()

    def execute_raw(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Run the user's own SQL as it is; the driver's errors are the user's and pass through untranslated."""
        cursor = self.raw.execute(sql, parameters)
        return Answer(cursor.fetchall(), cursor.rowcount)

    def close(self) -> None:
        """Close, rolling back what is open."""
        with suppress(sqlite3.Error):
            self.raw.close()

    def _call(self, call: Call) -> Answer:
        statement = call.statement
        rendered = _rendered.get(statement)
        if rendered is None:
            rendered = _rendered[statement] = render(statement)
        values = bind(rendered, call.values, self._now)
        try:
            cursor = self.raw.execute(rendered.text, values)
            return Answer(cursor.fetchall(), cursor.rowcount)
        except sqlite3.Error as error:
            raise translated(error, self.name) from error

    def _begin(self, begin: Begin) -> Answer:
        self._woken.clear()
        try:
            self.raw.execute(self.begin if begin.writes else "BEGIN")
        except sqlite3.Error as error:
            problem = translated(error, self.name)
            raise (NotBegun(str(problem)) if isinstance(problem, Busy) else problem) from error
        return NOTHING

    def _commit(self) -> Answer:
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
        return Answer(topics, 0)

    def _rollback(self) -> Answer:
        self._woken.clear()
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
        if not reader and raw.execute("PRAGMA query_only").fetchone() != (0,):
            raise CannotOpen(f"{path} is read-only")
    except sqlite3.Error as error:
        if raw is not None:
            raw.close()
        raise translated(error, path) from error
    except CannotOpen:
        assert raw is not None
        raw.close()
        raise
    return Connection(raw, name=path, now=now)

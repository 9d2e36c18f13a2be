"""Checkpoints that cannot meet a commit.

SQLite before 3.51.3 can corrupt a database when one connection checkpoints while another commits and resets the
write-ahead log (the WAL-reset bug). So our connections never checkpoint automatically; this takes the write lock on the
writer's connection, where it keeps every other writer out, and checkpoints on a second connection meanwhile. It runs on
the writer's lane after a commit has been answered, never before: nobody's commit waits for its own checkpoint.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import suppress

from faultproof.engines.sqlite.connection import Connection
from faultproof.engines.sqlite.faults import translated
from faultproof.engines.sqlite.lane import Lane
from faultproof.errors import FaultproofError
from faultproof.ports.script import Begin, Rollback

COMMITS_MAX = 1_000
ROWS_MAX = 20_000
WAL_BYTES_MAX = 16 * 1024 * 1024
"""Few commits may be large ones. The file does not shrink, so past this every fiftieth commit is followed by one."""
WAL_WARN_BYTES = 64 * 1024 * 1024
FIXED_IN = (3, 51, 3)


_joined: dict[str, int] = {}  # bounded: by the files that are joined
"""File -> after how many pages the connection last joined to it checkpoints by itself."""


def note_joined(raw: sqlite3.Connection) -> None:
    """Remember for `health()` whether a user's connection checkpoints by itself."""
    cursor = raw.cursor()
    cursor.row_factory = None
    path: str = cursor.execute("PRAGMA database_list").fetchone()[2]
    (pages,) = cursor.execute("PRAGMA wal_autocheckpoint").fetchone()
    if pages > 0 and path:
        _joined[path] = pages
    else:
        _joined.pop(path, None)


class Checkpointer:
    """Decides when a checkpoint is due, and runs it."""

    def __init__(self, path: str, connection: Connection) -> None:
        self._path = path
        self._connection = connection
        self._commits = 0
        self._rows_seen = 0
        self._running: asyncio.Task[None] | None = None

    def committed(self, writer: Lane, gate: asyncio.Semaphore) -> None:
        """Count a commit; after enough of them, queue a checkpoint for its turn at the gate, like a transaction."""
        self._commits += 1
        if self._commits % 50 == 0 and (self._running is None or self._running.done()):
            self._running = asyncio.get_running_loop().create_task(
                self._run(writer, gate), name="faultproof-checkpoint"
            )

    def close(self) -> None:
        """Close the second connection; called at the end of the writer's lane, where no checkpoint can be running."""
        self._connection.close()

    async def warnings(self, reader: Lane) -> list[str]:
        """What an operator should know about this file."""
        found = []
        with suppress(OSError):
            size = os.stat(self._path + "-wal").st_size
            if size > WAL_WARN_BYTES:
                found.append(
                    f"the write-ahead log has {size // 1_000_000} MB: a long reader or an open transaction keeps it "
                    "from being checkpointed; end it"
                )
        if sqlite3.sqlite_version_info < FIXED_IN:
            found.append(
                f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (fixed in 3.51.3): faultproof's connections "
                "are safe; set `PRAGMA wal_autocheckpoint=0` on every other connection that writes to this file"
            )
            if self._path in _joined:
                found.append(
                    f"a connection that this process joined to {self._path} checkpoints by itself, every "
                    f"{_joined[self._path]} pages: set `PRAGMA wal_autocheckpoint=0` on it, or use SQLite 3.51.3 or newer"
                )
        return found

    async def _run(self, writer: Lane, gate: asyncio.Semaphore) -> None:
        with suppress(FaultproofError):  # busy, failing, or closing: the next one will do it
            async with gate:  # or it would land inside a transaction that a user holds open
                await writer.call(self._if_due)

    def _wal_bytes(self) -> int:
        try:
            return os.stat(self._path + "-wal").st_size
        except OSError:
            return 0

    def _if_due(self, writer: Connection) -> None:
        rows = writer.raw.total_changes
        if self._commits < COMMITS_MAX and rows - self._rows_seen < ROWS_MAX and self._wal_bytes() < WAL_BYTES_MAX:
            return
        writer.execute(Begin(writes=True))
        try:
            self._connection.raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:  # a full disk, or closed meanwhile
            raise translated(error, self._path) from error
        finally:
            writer.execute(Rollback())
        self._commits, self._rows_seen = 0, rows

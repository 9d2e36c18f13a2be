"""What a commit on a connection promises, asked of the connection itself."""

from __future__ import annotations

import sqlite3

from faultproof.engines.sqlite.checkpoint import FIXED_IN
from faultproof.ports.database import Health
from faultproof.ports.script import Script, sql

_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


@sql("PRAGMA synchronous")
def _synchronous() -> int: ...


@sql("PRAGMA wal_autocheckpoint")
def _checkpoint_pages() -> int: ...


def health() -> Script[Health]:
    """The connection as the transaction that asks sees it."""
    level = _SYNCHRONOUS[(yield from _synchronous())]
    warnings = []
    if level == "OFF":
        warnings.append("synchronous is OFF: a power failure loses commits, or the whole file")
    elif level == "NORMAL":
        warnings.append("synchronous is NORMAL: a power failure loses the last commits that were answered")
    if (yield from _checkpoint_pages()) and sqlite3.sqlite_version_info < FIXED_IN:
        warnings.append(
            f"this connection checkpoints by itself, and SQLite {sqlite3.sqlite_version} has the WAL-reset bug (fixed in "
            "3.51.3): set `PRAGMA wal_autocheckpoint=0` on it"
        )
    return Health(f"SQLite {sqlite3.sqlite_version}", f"SQLite WAL, synchronous={level}", tuple(warnings))

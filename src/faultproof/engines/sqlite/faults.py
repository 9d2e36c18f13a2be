"""SQLite's result codes as faultproof's errors: translated once, here."""

from __future__ import annotations

import sqlite3

from faultproof.errors import (
    Busy,
    CannotOpen,
    Closed,
    ConstraintViolated,
    DiskFull,
    Failed,
    FaultproofError,
    InvalidInput,
    NotADatabase,
    SchemaMismatch,
    StorageFailed,
)


class NotBegun(Busy):
    """BEGIN was refused because another connection holds the write lock. Repeated by the database, with jitter."""


def busy_inside(busy: Busy) -> Busy:
    """What `Busy` means in a transaction of the user's that is open already."""
    return Busy(
        f"{busy}; a deferred transaction that has read cannot wait for a writer: roll back, and BEGIN IMMEDIATE"
    )


def translated(error: sqlite3.Error, where: str) -> FaultproofError:
    """The error to raise instead; chain it from the original."""
    # Extended codes keep the primary one in the low byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{where} is locked by another connection: try again, or end what holds it")
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"the disk of {where} is full: free some space; everything committed is safe")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return CannotOpen(f"{where} is read-only for this user: check the rights of the file and its directory")
    if code == sqlite3.SQLITE_CANTOPEN:
        return CannotOpen(f"{where} cannot be opened: check that its directory exists and may be written to")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return NotADatabase(f"{where} is not an SQLite database, or is damaged: name another file or restore it")
    if code == sqlite3.SQLITE_IOERR:
        return StorageFailed(f"the operating system failed to read or write {where}: {error}")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConstraintViolated(f"{where} refused the change: {error}")
    if code == sqlite3.SQLITE_TOOBIG:
        return InvalidInput(f"a value is larger than {where} can hold: {error}")
    text = str(error)
    if "no such table: faultproof_" in text or "no such column" in text:
        return SchemaMismatch(f"{where} lacks faultproof's tables ({text}): call `install()` once before")
    if isinstance(error, sqlite3.ProgrammingError):
        if "closed" in text.lower():
            return Closed(f"the connection to {where} is closed: open a new one")
        return InvalidInput(f"{where}: {text}")
    return Failed(f"{where}: {text}")

"""PostgreSQL's SQLSTATEs as faultproof's errors: translated once, here."""

from __future__ import annotations

import psycopg

from faultproof.errors import (
    Busy,
    CannotOpen,
    ConstraintViolated,
    DeadlineExceeded,
    DiskFull,
    Failed,
    FaultproofError,
    InvalidInput,
    NotADatabase,
    NoTransaction,
    Overloaded,
    SchemaMismatch,
    StorageFailed,
    TryAgain,
)


class NotBegun(TryAgain):
    """BEGIN did not reach the server. Repeated by the database, on another connection."""


def connection_lost(error: psycopg.Error) -> bool:
    """Whether nobody can say what the server did after it read the last statement."""
    state = error.sqlstate
    if state is None:  # not from the server: libpq's own words
        return isinstance(error, psycopg.OperationalError)
    return state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05")


def translated(error: psycopg.Error, where: str) -> FaultproofError:
    """The error to raise instead; chain it from the original. Not for COMMIT, whose loss is `OutcomeUnknown`."""
    if connection_lost(error):
        return TryAgain(f"the connection to {where} was lost, and with it the transaction: {_line(error)}")
    state = error.sqlstate or ""
    for prefix, make in _BY_STATE:
        if state.startswith(prefix):
            return make(f"{where}: {_line(error)}")
    if state in ("42P01", "42703") and "faultproof_" in str(error):
        return SchemaMismatch(f"{where} lacks faultproof's tables ({_line(error)}): call `install()` once before")
    if state == "25006":
        return InvalidInput("a script that writes was given to `read`: use `transact`")
    if state == "25P02":
        return NoTransaction(
            f"the transaction in {where} had failed before, by an error that was caught: leave it and begin again"
        )
    if isinstance(error, psycopg.DataError):  # refused by psycopg itself
        return InvalidInput(f"a value does not fit into {where}: {_line(error)}")
    return Failed(f"{where}: {_line(error)}")


# A serialization failure and a deadlock have rolled everything back: the same call may succeed, but a script that has
# begun cannot be started again. Whoever made it can.
_BY_STATE: tuple[tuple[str, type[FaultproofError]], ...] = (
    ("40001", Busy),
    ("40P01", Busy),
    ("55P03", Busy),
    ("57014", DeadlineExceeded),
    ("23", ConstraintViolated),
    ("22", InvalidInput),
    ("53100", DiskFull),
    ("53", Overloaded),
    ("28", CannotOpen),
    ("3D", CannotOpen),
    ("42501", CannotOpen),
    ("58", StorageFailed),
    ("XX001", NotADatabase),
    ("XX002", NotADatabase),
)


def _line(error: psycopg.Error) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__

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


class Restartable(TryAgain):
    """The transaction was rolled back, and through no fault of its own: the same work may succeed at once."""


class Victim(Busy, Restartable):
    """A serialization failure, or a deadlock that this transaction was chosen to end."""


class Lost(Restartable):
    """The connection is gone, and the COMMIT had not been sent."""


class Stale(Restartable):
    """What the connection has prepared does not fit the tables, or is not there any more."""


def connection_lost(error: psycopg.Error) -> bool:
    """Whether nobody can say what the server did after it read the last statement."""
    state = error.sqlstate
    if state is None:  # not from the server: libpq's own words
        return isinstance(error, psycopg.OperationalError)
    return state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05")


def translated(error: psycopg.Error, where: str) -> FaultproofError:
    """The error to raise instead; chain it from the original. Not for COMMIT, whose loss is `OutcomeUnknown`."""
    if connection_lost(error):
        return Lost(f"the connection to {where} was lost, and with it the transaction: {line(error)}")
    state = error.sqlstate or ""
    if _is_stale(error):
        return Stale(f"a table in {where} has changed since this connection prepared its statements: once more")
    if state == "23502" and error.diag.table_name == "faultproof_intake":
        return SchemaMismatch(
            f"a log in {where} is gone, or has other partitions than this process spreads keys over: give `partitions` as "
            "they were installed"
        )
    if state == "42501":
        return CannotOpen(f"{where}: {line(error)}: grant what docs/postgresql.md lists for the role")
    for prefix, make in _BY_STATE:
        if state.startswith(prefix):
            return make(f"{where}: {line(error)}")
    if state in ("42P01", "42703") and "faultproof_" in str(error):
        return SchemaMismatch(f"{where} lacks faultproof's tables ({line(error)}): call `install()` once before")
    if state == "25006":
        return InvalidInput("a script that writes was given to `read`: use `transact`")
    if state == "25P02":
        return NoTransaction(
            f"the transaction in {where} had failed before, by an error that was caught: leave it and begin again"
        )
    if isinstance(error, psycopg.DataError):  # refused by psycopg itself
        return InvalidInput(f"a value does not fit into {where}: {line(error)}")
    return Failed(f"{where}: {line(error)}")


def _is_stale(error: psycopg.Error) -> bool:
    # By the server's function: its messages are in its own language, and the code of the first covers much else.
    replanned = error.sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery"
    return replanned or error.sqlstate in ("26000", "42P05")


_BY_STATE: tuple[tuple[str, type[FaultproofError]], ...] = (
    ("40001", Victim),
    ("40P01", Victim),
    ("55P03", Busy),
    ("57014", DeadlineExceeded),
    ("23", ConstraintViolated),
    ("22", InvalidInput),
    ("53100", DiskFull),
    ("53", Overloaded),
    ("28", CannotOpen),
    ("3D", CannotOpen),
    ("58", StorageFailed),
    ("XX001", NotADatabase),
    ("XX002", NotADatabase),
)


def line(error: psycopg.Error) -> str:
    """What the server or libpq says first; the rest is position and context."""
    return str(error).split("\n", 1)[0] or type(error).__name__

"""What a SQLSTATE means to the caller; for every driver that tells one. Needs none."""

from __future__ import annotations

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

READ_ONLY = "25006"


class Restartable(TryAgain):
    """The transaction was rolled back, and through no fault of its own: the same work may succeed at once."""


class Victim(Busy, Restartable):
    """A serialization failure, or a deadlock that this transaction was chosen to end."""


class Lost(Restartable):
    """The connection is gone, and the COMMIT had not been sent."""


class Stale(Restartable):
    """What the connection has prepared does not fit the tables, or is not there any more."""


def tells_of_loss(state: str) -> bool:
    """Whether nobody can say what the server did after it read the last statement."""
    return state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05")


def problem(state: str, line: str, where: str) -> FaultproofError:
    """The error to raise where the server refused a statement with `state` and says `line`. Not for COMMIT, whose loss is
    `OutcomeUnknown`."""
    if tells_of_loss(state):
        return Lost(f"the connection to {where} was lost, and with it the transaction: {line}")
    if state in ("26000", "42P05"):
        return Stale(f"a table in {where} has changed since this connection prepared its statements: once more")
    if state == "23502" and '"faultproof_intake"' in line:  # the server names the table, in whatever language
        return SchemaMismatch(
            f"a log in {where} is gone, or has other partitions than this process spreads keys over: give `partitions` as "
            "they were installed"
        )
    if state == "42501":
        return CannotOpen(f"{where}: {line}: grant what docs/postgresql.md lists for the role")
    for prefix, make in _BY_STATE:
        if state.startswith(prefix):
            return make(f"{where}: {line}")
    if state in ("42P01", "42703") and "faultproof_" in line:
        return SchemaMismatch(f"{where} lacks faultproof's tables ({line}): call `install()` once before")
    if state == READ_ONLY:
        return InvalidInput(f"{where} cannot be written to in a transaction that only reads, or on a standby: {line}")
    if state == "25P02":
        return NoTransaction(
            f"the transaction in {where} had failed before, by an error that was caught: leave it and begin again"
        )
    return Failed(f"{where}: {line}")


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

"""psycopg's errors as faultproof's: translated once, here and in `states.py`."""

from __future__ import annotations

import psycopg

from faultproof.engines.postgres.states import Lost, Restartable, Stale, Victim, problem, tells_of_loss
from faultproof.errors import FaultproofError, InvalidInput

__all__ = ["Lost", "Restartable", "Stale", "Victim", "connection_lost", "line", "translated"]


def connection_lost(error: psycopg.Error) -> bool:
    """Whether nobody can say what the server did after it read the last statement."""
    if error.sqlstate is None:  # not from the server: libpq's own words
        return isinstance(error, psycopg.OperationalError)
    return tells_of_loss(error.sqlstate)


def translated(error: psycopg.Error, where: str) -> FaultproofError:
    """The error to raise instead; chain it from the original. Not for COMMIT, whose loss is `OutcomeUnknown`."""
    if connection_lost(error):
        return Lost(f"the connection to {where} was lost, and with it the transaction: {line(error)}")
    # By the server's function: its messages are in its own language, and the code covers much else.
    if error.sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery":
        return Stale(f"a table in {where} has changed since this connection prepared its statements: once more")
    if error.sqlstate == "25006":
        return InvalidInput("a script that writes was given to `read`: use `transact`")
    if error.sqlstate is None and isinstance(error, psycopg.DataError):  # refused by psycopg itself
        return InvalidInput(f"a value does not fit into {where}: {line(error)}")
    return problem(error.sqlstate or "", line(error), where)


def line(error: psycopg.Error) -> str:
    """What the server or libpq says first; the rest is position and context."""
    return str(error).split("\n", 1)[0] or type(error).__name__

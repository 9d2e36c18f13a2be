"""Transactions that callers pass in."""

from __future__ import annotations

from faultproof.errors import InvalidInput, Misuse
from faultproof.ports.database import Database


def check_tx(tx: object, database: Database) -> None:
    """Raise `InvalidInput` for what cannot run a script, and `Misuse` for a transaction of another database."""
    if not hasattr(tx, "run"):
        raise InvalidInput(
            f"`tx` is a {type(tx).__qualname__}: pass what `database.transaction()` gives, or `faultproof.join(connection)`"
        )
    # Not compared themselves: a `Database` of the user's own around another passes its claim table on.
    if getattr(tx, "database", database).claims is not database.claims:
        raise Misuse("`tx` is a transaction of another database than this one's: it would not commit what you write")

"""Opening a PostgreSQL database as a `Database`, and what this engine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faultproof.clock import Env
from faultproof.errors import MissingExtra

if TYPE_CHECKING:
    from faultproof.engines.postgres.database import PostgresDatabase

CAPABILITIES = frozenset({"claims", "log", "wake-up", "interactive-transactions"})
"""What the conformance suites exercise on this engine. News come by polling. Not here: joined drivers."""


async def open_database(url: str, *, env: Env) -> PostgresDatabase:
    """Connect to `postgresql://user@host/database`.

    Raises `CannotOpen` when the server cannot be reached or refuses, and `MissingExtra` without psycopg.
    """
    try:
        from faultproof.engines.postgres.database import connect
    except ImportError as error:
        if not (error.name or "psycopg").startswith("psycopg"):
            raise
        raise MissingExtra("PostgreSQL needs its driver: pip install faultproof[postgres]") from error
    return await connect(url, env=env)

"""Opening a PostgreSQL database as a `Database`, and what this engine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faultproof.clock import Env
from faultproof.engines.postgres.options import PostgresOptions
from faultproof.errors import MissingExtra

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from faultproof.engines.postgres.database import PostgresDatabase

CAPABILITIES = frozenset(
    {
        "claims",
        "log",
        "wake-up",
        "interactive-transactions",
        "joined-psycopg",
        "joined-psycopg-async",
        "joined-asyncpg",
        "joined-sqlalchemy",
        "joined-django",
    }
)
"""What the conformance suites, and those of joining, exercise on this engine."""


async def open_database(
    where: str | AsyncConnectionPool[Any], *, env: Env, create: bool = True, options: PostgresOptions | None = None
) -> PostgresDatabase:
    """Connect to `postgresql://user@host/database`, or through a pool of the user's, which stays the user's to close.

    Raises `CannotOpen` when the server cannot be reached, refuses, or is a standby; `NotSupported` for a version before
    15 or a pooler in statement mode; `SchemaMismatch` without `create` where there are no tables of faultproof's; and
    `MissingExtra` without psycopg.
    """
    try:
        from faultproof.engines.postgres.opening import connect
    except ImportError as error:
        if not (error.name or "psycopg").startswith("psycopg"):
            raise
        raise MissingExtra("PostgreSQL needs its driver: pip install faultproof[postgres]") from error
    return await connect(where, env=env, create=create, options=options or PostgresOptions())

"""Creating and upgrading tables on PostgreSQL: one installer at a time, and no rights needed where nothing is to be done."""

from __future__ import annotations

from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, sql
from faultproof.primitives import install as primitive


@sql("SELECT to_regclass('faultproof_schema') IS NOT NULL")
def is_installed() -> bool: ...


# An advisory lock that the transaction holds: one of the session's would outlive it in a connection pool.
@sql("SELECT pg_advisory_xact_lock(hashtextextended('faultproof.install', 0))")
def _lock() -> None: ...


def install(schema: Schema) -> Script[None]:
    """Bring one component to this release's version.

    `CREATE TABLE IF NOT EXISTS` asks for the right to create even where the table exists, which a service that is
    merely started again need not have.
    """
    if (yield from is_installed()) and (yield from primitive.version_of(schema.name)) == schema.version:
        return
    yield from _lock()
    yield from primitive.install(schema)

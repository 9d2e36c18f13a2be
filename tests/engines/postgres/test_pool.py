"""The pool of our own: as many connections as are needed at a time, and in the end no more than its minimum."""

import asyncio

import pytest

from faultproof.engines.postgres import pool
from faultproof.engines.postgres.database import PostgresDatabase

pytestmark = pytest.mark.anyio

OPEN = """SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND backend_type = 'client backend'"""


async def connections(db: PostgresDatabase) -> int:
    async with db.transaction() as tx:
        ((count,),) = await tx.fetch(OPEN)
    return int(count)


async def burst(db: PostgresDatabase, count: int) -> None:
    together = asyncio.Barrier(count)

    async def one() -> None:
        async with db.transaction() as tx:
            await tx.fetch("SELECT 1")
            await together.wait()

    await asyncio.gather(*(one() for _ in range(count)))


async def test_connections_that_nobody_uses_any_more_are_closed(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = await connections(db)
    await burst(db, 5)
    assert await connections(db) == least + 4  # for a while, or each burst would open them again
    monkeypatch.setattr(pool, "IDLE_S", 0.0)
    for _ in range(5):
        await connections(db)
    assert await connections(db) == least


async def test_a_burst_that_dies_down_leaves_none_too_many(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = await connections(db)
    monkeypatch.setattr(pool, "IDLE_S", 0.0)
    for count in (5, 3, 2):
        await burst(db, count)
    assert await connections(db) == least

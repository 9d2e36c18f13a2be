"""The floor of the intake: what is passed over is never an event that somebody has yet to commit, promote or undo."""

import asyncio
from typing import Any

import pytest

from faultproof.engines.postgres import floor as floors
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.engines.postgres.floor import Floor
from faultproof.engines.postgres.log import PostgresLog
from faultproof.ports.log import Cursor, Entry
from faultproof.ports.script import sql
from tests.moving import moving

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
LOG = "orders"


@pytest.fixture(autouse=True)
def look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floors, "LOOK_S", 0.0)


def entry(id: str, *, delay_us: int = 0) -> Entry:
    return Entry(0, id, None, "T", "{}", None, delay_us)


async def append(db: PostgresDatabase, *ids: str) -> None:
    await db.transact(db.logs.append(LOG, [entry(id) for id in ids], partitions=2))


async def sequence(db: PostgresDatabase, *, limit: int = 100) -> int:
    return await db.transact(moving(db.logs, LOG, [0, 1], limit=limit))


async def sequenced(db: PostgresDatabase) -> list[str]:
    return [record.id for record in await db.read(db.logs.read(LOG, [Cursor(0, 0)], limit=10_000))]


def floor_of(db: PostgresDatabase) -> Floor:
    assert isinstance(db.logs, PostgresLog)
    return db.logs.floors.of(LOG)


@sql("SELECT max(id) FROM faultproof_intake")
def last_id() -> int: ...


async def test_floor_follows_what_was_sequenced(db: PostgresDatabase) -> None:
    assert await sequence(db) == 0
    assert floor_of(db).passed == 0  # nothing was drawn; the first event has the number 1
    await append(db, "a")
    assert await sequence(db) == 1
    await append(db, "b", "c")
    last = await db.read(last_id())
    assert await sequence(db) == 2
    assert await sequence(db) == 0
    assert floor_of(db).passed == last
    assert await sequenced(db) == ["a", "b", "c"]


async def test_floor_stays_below_an_id_that_was_drawn_and_not_yet_committed(
    db: PostgresDatabase, peer: PostgresDatabase
) -> None:
    await append(db, "first")
    await sequence(db)
    async with asyncio.timeout(WAIT_S), peer.transaction() as late:
        await late.run(peer.logs.append(LOG, [entry("late")], partitions=2))
        ((drawn,),) = await late.fetch("SELECT max(id) FROM faultproof_intake WHERE event_id = 'late'")
        for n in range(4):
            await append(db, f"other {n}")
            assert await sequence(db) == 1
            assert floor_of(db).passed < drawn
            assert not (await db.read(db.logs.ready(LOG))).waiting
    assert (await db.read(db.logs.ready(LOG))).waiting
    assert await sequence(db) == 1
    assert (await sequenced(db))[-1] == "late"
    for _ in range(3):
        await sequence(db)
    assert floor_of(db).passed > drawn


async def test_writers_one_after_the_other_without_a_gap_do_not_hold_the_floor_down(
    db: PostgresDatabase, peer: PostgresDatabase
) -> None:
    """At no moment is there nobody who holds an id; each of them ends."""
    opened: list[Any] = []

    async def begin(n: int) -> None:
        block = peer.transaction()
        tx = await asyncio.create_task(block.__aenter__())
        await tx.run(peer.logs.append(LOG, [entry(f"{n}")], partitions=2))
        opened.append(block)

    async with asyncio.timeout(WAIT_S):
        await begin(0)
        for n in range(1, 8):
            await begin(n)
            await asyncio.create_task(opened[n - 1].__aexit__(None, None, None))
            await sequence(db)
        assert floor_of(db).passed >= 4
        await asyncio.create_task(opened[7].__aexit__(None, None, None))
    await sequence(db)
    assert await sequenced(db) == [str(n) for n in range(8)]


async def test_delayed_event_below_the_floor_takes_its_place_when_it_is_due(db: PostgresDatabase) -> None:
    await db.transact(db.logs.append(LOG, [entry("delayed", delay_us=3_600_000_000)], partitions=2))
    for n in range(3):
        await append(db, f"{n}")
        await sequence(db)
    assert floor_of(db).passed > 1
    async with db.transaction() as tx:
        assert await tx.execute("UPDATE faultproof_intake SET due_us = due_us - 3700000000") == 1
    await append(db, "after", "and after")
    assert (await db.read(db.logs.intake(LOG))).events == 3
    assert await sequence(db, limit=2) == 2
    assert await sequence(db, limit=2) == 1
    assert await sequenced(db) == ["0", "1", "2", "delayed", "after", "and after"]


async def test_what_was_moved_and_rolled_back_is_moved_again(db: PostgresDatabase) -> None:
    await append(db, *"abcdef")

    async def moved_in_vain() -> None:
        async with db.transaction() as tx:
            assert await tx.run(moving(db.logs, LOG, [0, 1], limit=2)) == 2
            assert await tx.run(moving(db.logs, LOG, [0, 1], limit=2)) == 2
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await moved_in_vain()
    assert await sequence(db) == 6
    assert await sequenced(db) == list("abcdef")


async def test_partition_that_nobody_sequences_keeps_its_events(db: PostgresDatabase) -> None:
    for n in range(3):
        entries = [entry(f"a{n}"), entry(f"b{n}")._replace(partition=1)]
        await db.transact(db.logs.append(LOG, entries, partitions=2))
        assert await db.transact(moving(db.logs, LOG, [0], limit=100)) == 1
    assert await sequence(db) == 3
    records = await db.read(db.logs.read(LOG, [Cursor(1, 0)], limit=10))
    assert [record.id for record in records] == ["b0", "b1", "b2"]


async def test_old_snapshot_elsewhere_does_not_make_looks_long(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    """Rows that cannot be cleared away, and are not looked at again either."""
    async with peer.transaction() as old:
        await old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await old.fetch("SELECT pg_current_xact_id()")
        for n in range(5):
            await append(db, *(f"{n}.{m}" for m in range(400)))
            assert await sequence(db, limit=1_000) == 400
        await sequence(db)
        plan = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT min(id) FROM faultproof_intake WHERE log = %s AND due_us = 0"
        async with db.transaction() as tx:
            await tx.execute("SET LOCAL enable_seqscan = off")
            ((whole,),) = await tx.fetch(plan, LOG)
            ((rest,),) = await tx.fetch(f"{plan} AND id > %s", LOG, floor_of(db).passed)
    buffers = [read[0]["Plan"]["Shared Hit Blocks"] + read[0]["Plan"]["Shared Read Blocks"] for read in (whole, rest)]
    assert buffers[1] * 5 < buffers[0]

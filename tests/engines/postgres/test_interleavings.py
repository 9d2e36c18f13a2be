"""Transactions that overlap: commits in another order than writes, sequencers side by side, locks in both directions."""

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest

from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.errors import Busy, LeaseLost, TransactionOpen
from faultproof.ports.claims import Claim
from faultproof.ports.log import Cursor, Entry, Record
from faultproof.ports.script import Script, sql
from tests.engines.postgres.conftest import Open
from tests.moving import moving

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
LOG = "orders"


def entry(id: str, *, key: str | None = None, partition: int = 0) -> Entry:
    return Entry(partition, id, key, "T", "{}", None, 0)


async def sequence(db: PostgresDatabase, *, limit: int = 1_000) -> int:
    return await db.transact(moving(db.logs, LOG, [0, 1], limit=limit))


async def read(db: PostgresDatabase, partition: int = 0, offset: int = 0) -> list[Record]:
    return await db.read(db.logs.read(LOG, [Cursor(partition, offset)], limit=10_000))


@sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
def waiting() -> int: ...


async def until_waiting(db: PostgresDatabase, count: int = 1) -> None:
    async with asyncio.timeout(WAIT_S):
        while await db.read(waiting()) < count:
            pass


# --- the log ----------------------------------------------------------------------------------------------------------


async def test_late_commit_is_not_skipped(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    """What loses events where a cursor follows numbers given at INSERT: the lower number commits last."""
    seen: list[str] = []

    async def look() -> None:
        seen.extend(record.id for record in await read(peer, offset=len(seen)))

    async with db.transaction() as late:
        await late.run(db.logs.append(LOG, [entry("first to write")], partitions=2))
        await peer.transact(peer.logs.append(LOG, [entry("first to commit")], partitions=2))
        assert await sequence(peer) == 1  # and it does not wait for the open one
        await look()
        assert seen == ["first to commit"]
    assert await sequence(peer) == 1
    await look()
    assert seen == ["first to commit", "first to write"]
    assert [record.offset for record in await read(db)] == [0, 1]


async def test_long_transaction_elsewhere_stalls_nobody(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    async with db.transaction() as old:
        await old.fetch("SELECT pg_current_xact_id()")
        await old.execute("CREATE TABLE unrelated (n int)")
        for n in range(3):
            await peer.transact(peer.logs.append(LOG, [entry(str(n))], partitions=2))
            assert await sequence(peer) == 1
            assert len(await read(peer)) == n + 1


@sql("UPDATE item SET version = version + 1 WHERE id = :id RETURNING version")
def bump(id: str) -> int: ...


@sql("CREATE TABLE item (id TEXT PRIMARY KEY, version BIGINT NOT NULL DEFAULT 0)")
def make_items() -> None: ...


@sql("INSERT INTO item (id) VALUES ('a'), ('b'), ('c')")
def fill_items() -> None: ...


async def test_order_of_a_key_is_the_order_of_its_row_s_lock(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    """Six writers, three rows, two sequencers: per key the log has the versions of the row, one after the other."""
    await db.transact(make_items())
    await db.transact(fill_items())
    rounds = 40
    written = asyncio.Event()

    def change(database: PostgresDatabase, item: str, partition: int) -> Script[None]:
        version = yield from bump(item)
        yield from database.logs.append(LOG, [entry(f"{version}", key=item, partition=partition)], partitions=2)

    async def write(database: PostgresDatabase, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(rounds):
            item = rng.choice("abc")
            await database.transact(change(database, item, ord(item) % 2))

    async def follow(database: PostgresDatabase, limit: int) -> None:
        while True:
            last_round = written.is_set()
            if not await sequence(database, limit=limit) and last_round:
                return

    async with asyncio.timeout(WAIT_S * 2):
        followers = [asyncio.create_task(follow(database, limit)) for database, limit in ((db, 3), (peer, 100))]
        await asyncio.gather(*(write((db, peer)[seed % 2], seed) for seed in range(6)))
        written.set()
        await asyncio.gather(*followers)
    versions = defaultdict(list)
    for partition in (0, 1):
        records = await read(db, partition)
        assert [record.offset for record in records] == list(range(len(records)))
        for record in records:
            versions[record.key].append(int(record.id))
    assert sum(map(len, versions.values())) == 6 * rounds
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())


async def test_sequencer_that_waited_sees_what_the_one_before_it_did(
    db: PostgresDatabase, peer: PostgresDatabase
) -> None:
    """Two statements, two snapshots: the lock of the second sequencer comes before its first look at the intake."""
    await db.transact(db.logs.append(LOG, [entry(str(n)) for n in range(6)], partitions=2))
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as first:
            assert await first.run(moving(db.logs, LOG, [0, 1], limit=4)) == 4
            second = asyncio.create_task(peer.transact(moving(peer.logs, LOG, [0, 1], limit=4)))
            await until_waiting(peer)
        assert await second == 2
    assert [(record.offset, record.id) for record in await read(db)] == [(n, str(n)) for n in range(6)]


async def test_sequencers_of_different_partitions_do_not_wait_for_each_other(
    db: PostgresDatabase, peer: PostgresDatabase
) -> None:
    await db.transact(db.logs.append(LOG, [entry("a", partition=0), entry("b", partition=1)], partitions=2))
    await db.transact(
        db.logs.append(LOG, [entry("x", partition=0)._replace(delay_us=1), entry("y", partition=1)], partitions=2)
    )
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            assert await tx.run(moving(db.logs, LOG, [0], limit=10)) == 2
            assert await peer.transact(moving(peer.logs, LOG, [1], limit=10)) == 2
    assert [record.id for record in await read(db, 1)] == ["b", "y"]


async def test_reader_sees_all_of_a_sequencing_or_nothing(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    await db.transact(db.logs.append(LOG, [entry("a")], partitions=2))
    async with db.transaction() as tx:
        await tx.run(moving(db.logs, LOG, [0], limit=10))
        assert await read(peer) == []
        assert (await peer.read(peer.logs.intake(LOG))).events == 1
    assert [record.id for record in await read(peer)] == ["a"]
    assert (await peer.read(peer.logs.intake(LOG))).events == 0


# --- claims -----------------------------------------------------------------------------------------------------------


async def test_taker_skips_rows_that_another_is_taking(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    await db.transact(db.claims.add("job", ["a", "b", "c"]))
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            assert [c.id for c in await tx.run(db.claims.take("job", "me", ttl_us=1, limit=2))] == ["a", "b"]
            assert [c.id for c in await peer.transact(peer.claims.take("job", "peer", ttl_us=1, limit=2))] == ["c"]


async def test_holders_of_the_same_claims_never_deadlock(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    """Guards, renewals and releases of the same rows in all orders: each waits, none is a victim."""
    ids = [f"{n}" for n in range(8)]
    await db.transact(db.claims.add("job", ids))
    claims = await db.transact(db.claims.take("job", "me", ttl_us=60_000_000, limit=8))

    async def hold(database: PostgresDatabase, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(25):
            mine = rng.sample(claims, 5)
            if rng.random() < 0.5:
                await database.transact(database.claims.guard("job", mine))
            else:
                await database.transact(database.claims.renew("job", mine, ttl_us=60_000_000))

    async with asyncio.timeout(WAIT_S * 2):
        await asyncio.gather(*(hold((db, peer)[seed % 2], seed) for seed in range(6)))


async def test_adders_of_the_same_rows_never_deadlock(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    async def add(database: PostgresDatabase, seed: int) -> int:
        rng, added = random.Random(seed), 0
        for n in range(20):
            ids = [f"{n}-{m}" for m in range(20)]
            added += await database.transact(database.claims.add("job", rng.sample(ids, 20)))
        return added

    async with asyncio.timeout(WAIT_S * 2):
        assert sum(await asyncio.gather(*(add((db, peer)[seed % 2], seed) for seed in range(6)))) == 400


async def test_zombie_that_waits_for_a_takeover_is_told(
    db: PostgresDatabase, peer: PostgresDatabase, connect: Open
) -> None:
    observer = await connect()
    await db.transact(db.claims.add("job", ["a"]))
    (zombie,) = await db.transact(db.claims.take("job", "me", ttl_us=0, limit=1))
    for call in ("finish", "fail", "guard", "renew", "release"):
        async with asyncio.timeout(WAIT_S):
            async with peer.transaction() as tx:
                (claim,) = await tx.run(peer.claims.take("job", "peer", ttl_us=0, limit=1))
                task = asyncio.create_task(_present(db, call, zombie))
                await until_waiting(observer)
            assert await task == call
        zombie = claim


async def _present(db: PostgresDatabase, call: str, claim: Claim) -> str:
    scripts: dict[str, Script[Any]] = {
        "finish": db.claims.finish("job", [claim]),
        "fail": db.claims.fail("job", claim, error="x", retry_in_us=None),
        "guard": db.claims.guard("job", [claim]),
        "renew": db.claims.renew("job", [claim], ttl_us=60_000_000),
        "release": db.claims.release("job", [claim]),
    }
    if call in ("renew", "release"):
        assert not await db.transact(scripts[call])
    else:
        with pytest.raises(LeaseLost):
            await db.transact(scripts[call])
    return call


# --- locks of the user's ----------------------------------------------------------------------------------------------


async def test_deadlock_has_a_victim_that_is_told_to_try_again(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    await db.transact(make_items())
    await db.transact(fill_items())

    async def both(database: PostgresDatabase, first: str, second: str) -> str:
        try:
            async with database.transaction() as tx:
                await tx.run(bump(first))
                await barrier.wait()
                await tx.run(bump(second))
        except Busy:
            return "victim"
        return "done"

    barrier = asyncio.Barrier(2)
    async with asyncio.timeout(WAIT_S):
        outcomes = await asyncio.gather(both(db, "a", "b"), both(peer, "b", "a"))
    assert sorted(outcomes) == ["done", "victim"]
    async with db.transaction() as tx:
        assert await tx.fetch("SELECT sum(version) FROM item") == [(2,)]


async def test_inside_of_two_transactions_neither_database_may_be_called_bare(
    db: PostgresDatabase, peer: PostgresDatabase
) -> None:
    async with db.transaction(), peer.transaction():
        for database in (db, peer):
            with pytest.raises(TransactionOpen):
                await read(database)

"""Durable decisions follow the engine's clock, in real time: elsewhere the suites age what is stored instead."""

import asyncio

import pytest

from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Entry
from faultproof.ports.script import Script, sql
from tests.conformance.engines import WAIT_S
from tests.moving import moving

pytestmark = pytest.mark.anyio

DELAY_US = 30_000


@sql("SELECT {now}")
def now() -> int: ...


async def test_clock_shows_microseconds_since_1970_and_goes_on_inside_a_transaction(db: Database) -> None:
    def look() -> Script[list[int]]:
        times = []
        for _ in range(5):
            times.append((yield from now()))
        return times

    before = db.env.clock.wall_us()
    times = await db.transact(look())
    assert abs(times[0] - before) < 60_000_000
    assert times == sorted(times)
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            first = await tx.run(now())
            while await tx.run(now()) == first:
                pass


async def test_delayed_claim_can_be_taken_once_its_time_has_come(db: Database) -> None:
    before = await db.read(now())
    await db.transact(db.claims.add("job", ["a"], delay_us=DELAY_US))
    taken: list[Claim] = []
    async with asyncio.timeout(WAIT_S):
        while not taken:
            taken = await db.transact(db.claims.take("job", "me", ttl_us=1, limit=1))
    assert await db.read(now()) >= before + DELAY_US


async def test_lease_runs_out_by_itself(db: Database, peer: Database) -> None:
    await db.transact(db.claims.add("job", ["a"]))
    before = await db.read(now())
    await db.transact(db.claims.take("job", "me", ttl_us=DELAY_US, limit=1))
    taken: list[Claim] = []
    async with asyncio.timeout(WAIT_S):
        while not taken:
            taken = await peer.transact(peer.claims.take("job", "peer", ttl_us=1, limit=1))
    assert await db.read(now()) >= before + DELAY_US


async def test_delayed_event_is_sequenced_once_its_time_has_come(db: Database) -> None:
    await db.transact(db.logs.create("orders", partitions=1, epoch="e"))
    before = await db.read(now())
    await db.transact(db.logs.append("orders", [Entry(0, "late", None, "T", "{}", None, DELAY_US)], partitions=1))
    async with asyncio.timeout(WAIT_S):
        while not await db.transact(moving(db.logs, "orders", [0], limit=1)):
            due_in_us = (await db.read(db.logs.ready("orders"))).due_in_us
            assert due_in_us is not None
            assert due_in_us <= DELAY_US
    assert await db.read(now()) >= before + DELAY_US
    assert [record.id for record in await db.read(db.logs.read("orders", [Cursor(0, 0)], limit=9))] == ["late"]

"""The outbox where two transactions overlap: joining and trimming, discarding and parking."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

import faultproof as fp
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.errors import LeaseLost
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.poison import Parking, Verdict, never_attempted
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Script
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.test_interleavings import until_waiting
from tests.moving import moving

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
EVENTS = 6


@pytest.fixture
async def outbox(connect: Open) -> AsyncIterator[fp.Outbox]:
    """An outbox of one partition with events in its log, all of one key."""
    db = await connect()
    outbox = fp.Outbox(db, events={"Said": dict}, options=fp.OutboxOptions(partitions=1))
    await outbox.install()
    for n in range(EVENTS):
        await outbox.publish({"n": n}, key="a", type="Said")
    await db.transact(moving(db.logs, "outbox", [0], limit=100))
    yield outbox
    await outbox.close()


async def ignore(event: object, tx: object) -> None:
    raise AssertionError


async def group_begins_at(db: PostgresDatabase, group: str) -> int:
    (standing,) = await db.read(sql.standing("outbox", group, [0]))
    return standing.offset


async def test_group_that_joins_while_the_log_is_trimmed_begins_at_what_is_kept(
    outbox: fp.Outbox, connect: Open
) -> None:
    joining, trimming, observer = await connect(), await connect(), await connect()
    late = fp.Outbox(joining, events={"Said": dict}).consumer("late", ignore)
    async with asyncio.timeout(WAIT_S):
        async with trimming.transaction() as tx:
            assert await tx.run(fp.Outbox(trimming, events={"Said": dict}).retention(keep=0.0)._trim()) == EVENTS
            task = asyncio.create_task(late.open())
            await until_waiting(observer)
        (await task).close()
    assert await group_begins_at(observer, "late") == EVENTS


async def test_log_is_not_trimmed_past_a_group_that_is_joining(outbox: fp.Outbox, connect: Open) -> None:
    joining, trimming, observer = await connect(), await connect(), await connect()
    late = fp.Outbox(joining, events={"Said": dict}).consumer("late", ignore)
    retention = fp.Outbox(trimming, events={"Said": dict}).retention(keep=0.0)
    async with asyncio.timeout(WAIT_S):
        async with joining.transaction() as tx:
            await tx.run(late._membership._join(True))
            task = asyncio.create_task(trimming.transact(retention._trim))
            await until_waiting(observer)
        assert await task == 0
    assert await group_begins_at(observer, "late") == 0
    records = await observer.read(observer.logs.read("outbox", [Cursor(0, 0)], limit=100))
    assert len(records) == EVENTS


async def records(db: PostgresDatabase) -> list[Record]:
    return await db.read(db.logs.read("outbox", [Cursor(0, 0)], limit=100))


async def is_due(db: PostgresDatabase, offset: int) -> bool:
    return [parked.offset for parked in await db.read(sql.due("outbox", "all", [0], 100))] == [offset]


@pytest.fixture
async def dead_and_next(outbox: fp.Outbox, connect: Open) -> tuple[PostgresDatabase, Record, Record]:
    """A dead letter of the group `all`, and the next event of its key, which must wait behind it."""
    db = await connect()
    (await fp.Outbox(db, events={"Said": dict}).consumer("all", ignore).open()).close()
    first, second = (await records(db))[:2]
    await db.transact(Parking("outbox", "all").failed(first, Verdict(None), "no"))
    return db, first, second


async def test_event_that_is_parked_while_the_dead_one_before_it_is_discarded_is_called(
    dead_and_next: tuple[PostgresDatabase, Record, Record], connect: Open
) -> None:
    db, first, second = dead_and_next
    discarding, observer = await connect(), await connect()
    letters = fp.Outbox(discarding, events={"Said": dict}).dead_letters("all")
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            await tx.run(Parking("outbox", "all").aside([second]))
            task = asyncio.create_task(letters.discard(first.id))
            await until_waiting(observer)
        assert await task
    assert await is_due(observer, second.offset)


async def test_event_that_waits_for_the_discard_to_be_parked_is_called(
    dead_and_next: tuple[PostgresDatabase, Record, Record], connect: Open
) -> None:
    db, first, second = dead_and_next
    parking, observer = await connect(), await connect()

    def discard() -> Script[None]:
        parked = yield from sql.dead_letter("outbox", "all", first.id)
        assert parked is not None
        yield from Parking("outbox", "all").settled(parked)

    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            await tx.run(discard())
            task = asyncio.create_task(parking.transact(Parking("outbox", "all").aside([second])))
            await until_waiting(observer)
        await task
    assert await is_due(observer, second.offset)


@pytest.fixture
async def taken_and_next(outbox: fp.Outbox, connect: Open) -> tuple[PostgresDatabase, list[Parked], Record]:
    """Parked events that are delivered together, and the next one of their key."""
    db = await connect()
    (await fp.Outbox(db, events={"Said": dict}).consumer("all", ignore).open()).close()
    *waiting, last = await records(db)
    await db.transact(lambda: Parking("outbox", "all").aside(waiting))
    heads = await db.read(sql.due("outbox", "all", [0], 100))
    taken = await db.transact(lambda: Parking("outbox", "all").take(heads, 100))
    assert [parked.offset for parked in taken] == [record.offset for record in waiting]
    return db, taken, last


@pytest.mark.parametrize("first", ["settled", "parked"])
async def test_event_that_is_parked_while_those_before_it_are_settled_together_is_called(
    taken_and_next: tuple[PostgresDatabase, list[Parked], Record], connect: Open, first: str
) -> None:
    db, taken, last = taken_and_next
    other, observer = await connect(), await connect()
    parking = Parking("outbox", "all")
    scripts: list[Callable[[], Script[None]]] = [
        lambda: parking.settled_together(taken),
        lambda: parking.aside([last]),
    ]
    if first == "parked":
        scripts.reverse()
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            await tx.run(scripts[0]())
            task = asyncio.create_task(other.transact(scripts[1]))
            await until_waiting(observer)
        await task
    assert await is_due(observer, last.offset)


async def test_events_that_somebody_else_is_at_are_not_settled_together(
    taken_and_next: tuple[PostgresDatabase, list[Parked], Record], connect: Open
) -> None:
    db, taken, _ = taken_and_next
    other, observer = await connect(), await connect()
    parking = Parking("outbox", "all")
    async with asyncio.timeout(WAIT_S):
        async with other.transaction() as tx:
            assert await tx.run(sql.begin_attempt("outbox", "all", 0, taken[2].offset, 0, 0)) == 1
            task = asyncio.create_task(db.transact(lambda: parking.settled_together(taken)))
            await until_waiting(observer)
        with pytest.raises(LeaseLost):
            await task
    assert len(await observer.read(sql.due("outbox", "all", [0], 100))) == 2
    await db.transact(lambda: parking.put_back(taken))
    left = await observer.read(sql.line("outbox", "all", 0, "a", 100))
    assert [never_attempted(parked) for parked in left] == [True, True, False, True, True]

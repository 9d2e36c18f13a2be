"""Publishing: an event is there if, and only if, its transaction committed, and arrives as it was."""

import asyncio
import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import faultproof as fp
from faultproof.errors import Closed, Misuse
from faultproof.ports.database import Database, Transaction
from tests.fakes import ShiftedClock, within
from tests.patterns.outbox.conftest import OpenOutbox
from tests.patterns.outbox.shop import Paid, Placed, Running, Seen, count, rows, running, write_effect

pytestmark = pytest.mark.anyio


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def shop(outbox: fp.Outbox, seen: Seen) -> Running:
    return await running(outbox, outbox.consumer("g", seen))


# --- if and only if ---------------------------------------------------------------------------------------------------


async def test_a_committed_event_arrives_once(db: Database, outbox: fp.Outbox, shop: Running, seen: Seen) -> None:
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO orders (id, n) VALUES ('a', 1)")
        id = await outbox.publish(Placed("a", 1), key="a", tx=tx)
    await shop.pump()
    await shop.pump()
    assert [(event.id, event.body) for event in seen.events] == [(id, Placed("a", 1))]
    assert await seen.effects(db) == [1]


async def test_a_rolled_back_event_leaves_nothing(db: Database, outbox: fp.Outbox, shop: Running, seen: Seen) -> None:
    async def work() -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO orders (id, n) VALUES ('a', 1)")
            await outbox.publish(Placed("a", 1), key="a", tx=tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert await count(db, "faultproof_intake") == 0
    await shop.pump()
    assert seen.events == []
    assert await count(db, "faultproof_log") == 0


async def test_a_transaction_of_another_database_is_refused_and_goes_on(
    db: Database, outbox: fp.Outbox, tmp_path: Path
) -> None:
    async with fp.connect(str(tmp_path / "another.db")) as another:
        async with another.transaction() as tx:
            await tx.execute("CREATE TABLE customers (id TEXT)")
            with pytest.raises(Misuse, match="another database"):
                await outbox.publish(Placed("a", 1), key="a", tx=tx)
        async with db.transaction() as tx:
            await outbox.publish(Placed("b", 1), key="b", tx=tx)
        async with another.transaction() as tx:
            assert await tx.fetch("SELECT count(*) FROM customers") == [(0,)]
    assert await rows(db, "SELECT key FROM faultproof_intake") == [("b",)]


class Wrapped:
    """A `Database` around another, as a user writes it to watch or to count."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_a_database_around_another_is_the_same(db: Database, outbox: fp.Outbox) -> None:
    wrapped: Any = Wrapped(db)
    async with wrapped.transaction() as tx:
        await outbox.publish(Placed("a", 1), key="a", tx=tx)
    async with db.transaction() as tx:
        around = fp.Outbox(wrapped, events={"placed": Placed}, options=fp.OutboxOptions(partitions=4))
        await around.publish(Placed("b", 1), key="b", tx=tx)
    assert await rows(db, "SELECT key FROM faultproof_intake ORDER BY id") == [("a",), ("b",)]


async def test_a_publication_that_nobody_awaited_keeps_its_transaction_from_committing(
    db: Database, outbox: fp.Outbox
) -> None:
    async def forgetful() -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO orders (id, n) VALUES ('a', 1)")
            outbox.publish(Placed("a", 1), key="a", tx=tx)

    with pytest.raises(Misuse, match="await"), pytest.warns(RuntimeWarning, match="never awaited"):
        await forgetful()
    assert await count(db, "orders") == 0
    assert await count(db, "faultproof_intake") == 0


async def test_a_cancelled_transaction_leaves_nothing(db: Database, outbox: fp.Outbox) -> None:
    published = asyncio.Event()

    async def work() -> None:
        async with db.transaction() as tx:
            await outbox.publish(Placed("a", 1), key="a", tx=tx)
            published.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(work())
    await within(published.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert await count(db, "faultproof_intake") == 0


async def test_an_event_is_delivered_to_nobody_before_its_commit(
    outbox: fp.Outbox, open_outbox: OpenOutbox, seen: Seen
) -> None:
    other = await open_outbox()
    shop = await running(outbox, outbox.consumer("g", seen))
    await shop.pump()
    async with other._database.transaction() as tx:
        await other.publish(Placed("a", 1), key="a", tx=tx)
        ready = await outbox._database.read(outbox._database.logs.ready("outbox"))
        assert not ready.waiting
    await shop.pump()
    assert seen.ns == [1]


async def test_publications_without_a_transaction_share_one_and_are_committed_when_answered(
    db: Database, outbox: fp.Outbox, shop: Running, seen: Seen
) -> None:
    ids = await within(asyncio.gather(*(outbox.publish(Placed("k", n), key="k") for n in range(50))))
    assert await count(db, "faultproof_intake") == 50
    ((stamps,),) = await rows(db, "SELECT count(DISTINCT at_us) FROM faultproof_intake")
    assert stamps < 10  # one clock reading a transaction
    await shop.pump()
    assert [event.id for event in seen.events] == list(ids)
    assert seen.ns == list(range(50))


async def test_close_commits_what_is_under_way_and_refuses_what_comes_after(db: Database, outbox: fp.Outbox) -> None:
    tasks = [asyncio.ensure_future(outbox.publish(Placed("k", n), key="k")) for n in range(20)]
    await asyncio.sleep(0)
    await within(outbox.close())
    assert all(task.done() and not task.exception() for task in tasks)
    assert await count(db, "faultproof_intake") == 20
    with pytest.raises(Closed):
        await outbox.publish(Placed("k", 99), key="k")
    async with db.transaction() as tx:  # inside a transaction of the caller's there is nothing to refuse
        await outbox.publish(Placed("k", 100), key="k", tx=tx)


# --- as it was --------------------------------------------------------------------------------------------------------


async def test_an_event_arrives_with_all_that_it_was_given(
    outbox: fp.Outbox, shop: Running, seen: Seen, clock: ShiftedClock
) -> None:
    before = datetime.datetime.now(datetime.UTC)
    id = await outbox.publish(Placed("ä", 1), key="ä", headers={"trace": "00-ab", "ünï": "✓"})
    await shop.pump()
    (event,) = seen.events
    assert (event.id, event.type, event.key, event.attempt) == (id, "placed", "ä", 1)
    assert event.headers == {"trace": "00-ab", "ünï": "✓"}
    assert event.offset == 0
    assert 0 <= event.partition < 4
    assert len(event.epoch) == 32
    assert before <= event.at <= datetime.datetime.now(datetime.UTC)


async def test_structs_dataclasses_and_dicts_arrive_as_what_they_were(
    outbox: fp.Outbox, shop: Running, seen: Seen
) -> None:
    at = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    bodies: list[Any] = [Placed("k", 1), Paid("k", 2, at), {"n": 3, "deep": {"list": [1, None, "x", 1.5]}}]
    for body in bodies:
        await outbox.publish(body, key="k", type="noted" if isinstance(body, dict) else None)
    await shop.pump()
    assert [event.body for event in seen.events] == bodies
    assert [event.type for event in seen.events] == ["placed", "paid", "noted"]


async def test_a_renamed_and_grown_class_reads_old_rows(db: Database, outbox: fp.Outbox) -> None:
    class OrderPlaced(msgspec.Struct):
        key: str
        n: int
        note: str = "none"

    await outbox.publish(Placed("k", 1), key="k")
    after_release = fp.Outbox(db, events={"placed": OrderPlaced}, options=fp.OutboxOptions(partitions=4))
    seen = Seen()
    await (await running(after_release, after_release.consumer("g", seen))).pump()
    assert [event.body for event in seen.events] == [OrderPlaced("k", 1, "none")]


async def test_events_without_a_key_spread_over_the_partitions_and_all_arrive(
    outbox: fp.Outbox, shop: Running, seen: Seen
) -> None:
    await within(asyncio.gather(*(outbox.publish(Placed("", n), key=None) for n in range(60))))
    await shop.pump()
    assert sorted(seen.ns) == list(range(60))
    assert {event.partition for event in seen.events} == {0, 1, 2, 3}
    assert {event.key for event in seen.events} == {None}


async def test_offsets_are_dense_in_every_partition(outbox: fp.Outbox, shop: Running, seen: Seen) -> None:
    for n in range(40):
        await outbox.publish(Placed(str(n), n), key=str(n))
        if n % 7 == 0:
            await shop.pump()
    await shop.pump()
    for partition in range(4):
        offsets = [event.offset for event in seen.events if event.partition == partition]
        assert offsets == list(range(len(offsets)))


# --- from a handler ---------------------------------------------------------------------------------------------------


async def test_what_a_handler_publishes_through_its_transaction_does_not_double(
    db: Database, outbox: fp.Outbox
) -> None:
    tries = []

    async def forward(event: fp.Event[Any], tx: Transaction) -> None:
        if isinstance(event.body, Paid):
            await write_effect(event, tx, group="paid")
            return
        await outbox.publish(Paid(event.body.key, event.body.n), key=event.key, tx=tx)
        tries.append(event.body.n)
        if len(tries) == 1:
            raise RuntimeError("after publishing: the attempt and its event are undone")

    shop = await running(outbox, outbox.consumer("g", forward, fp.ConsumerOptions(backoff=0.0)))
    for n in range(3):
        await outbox.publish(Placed("k", n), key="k")
    await shop.pump()
    assert tries == [0, 0, 1, 2]
    assert await rows(db, "SELECT n FROM effect WHERE grp = 'paid' ORDER BY seq") == [(0,), (1,), (2,)]


# --- later ------------------------------------------------------------------------------------------------------------


async def test_a_delayed_event_takes_its_place_when_due_and_later_ones_do_not_wait(
    outbox: fp.Outbox, shop: Running, seen: Seen, clock: ShiftedClock
) -> None:
    await outbox.publish(Placed("k", 1), key="k", delay=3_600)
    await outbox.publish(Placed("k", 2), key="k")
    await shop.pump()
    assert seen.ns == [2]
    assert (await outbox.lag()).delayed == 1
    clock.advance(3_590)
    await shop.pump()
    assert seen.ns == [2]
    await outbox.publish(Placed("k", 3), key="k")
    clock.advance(11)
    await outbox.publish(Placed("k", 4), key="k")
    await shop.pump()
    assert seen.ns[0] == 2
    assert sorted(seen.ns[1:]) == [1, 3, 4]
    assert seen.ns.index(3) < seen.ns.index(4)
    assert (await outbox.lag()).delayed == 0


async def test_a_sleeping_sequencer_gets_up_for_a_delayed_event(outbox: fp.Outbox, clock: ShiftedClock) -> None:
    sequencer = outbox.sequencer()
    await sequencer.open()
    await outbox.publish(Placed("k", 1), key="k", delay=0.25)
    await sequencer.step()
    assert 0.0 < await sequencer.step() <= 0.25

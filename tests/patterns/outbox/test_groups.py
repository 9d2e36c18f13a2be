"""Groups, order, retention, lag and epochs: what many readers of one log are promised."""

import asyncio
import zlib
from collections import Counter, defaultdict
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import EventsTrimmed, Failed, InvalidInput
from faultproof.ports.database import Database, Transaction
from faultproof.signals import LAG_AGE, LAG_EVENTS
from tests.fakes import Recorder, ShiftedClock, until, within
from tests.patterns.outbox.actors import quick
from tests.patterns.outbox.conftest import OpenOutbox
from tests.patterns.outbox.shop import EVENTS, Placed, Seen, count, pump, rows, running
from tests.processes import running as process

pytestmark = pytest.mark.anyio


async def publish(outbox: fp.Outbox, *ns: int, key: str = "k") -> None:
    for n in ns:
        await outbox.publish(Placed(key, n), key=key)


def partition_of(key: str) -> int:
    return zlib.crc32(key.encode()) % 4


# --- order ------------------------------------------------------------------------------------------------------------


async def test_many_tasks_that_lock_their_key_s_row_first_are_delivered_in_the_order_of_their_commits(
    db: Database, outbox: fp.Outbox
) -> None:
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO orders (id, n) VALUES ('a', 0), ('b', 0), ('c', 0)")

    async def buy(key: str) -> None:
        async with db.transaction() as tx:
            await tx.execute("UPDATE orders SET n = n + 1 WHERE id = ?", key)
            await asyncio.sleep(0)
            ((n,),) = await tx.fetch("SELECT n FROM orders WHERE id = ?", key)
            await outbox.publish(Placed(key, n), key=key, tx=tx)

    await within(asyncio.gather(*(buy("abc"[number % 3]) for number in range(90))))
    seen = Seen()
    await (await running(outbox, outbox.consumer("g", seen))).pump()
    for key in "abc":
        assert [event.body.n for event in seen.events if event.key == key] == list(range(1, 31))


async def test_several_processes_publish_and_each_key_stays_in_the_order_of_its_commits(
    db: Database, outbox: fp.Outbox, path: Any
) -> None:
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO orders (id, n) VALUES ('a', 0), ('b', 0), ('c', 0), ('d', 0), ('e', 0)")
    seen = Seen()
    shop = await running(outbox, outbox.consumer("g", seen))

    async def publisher() -> None:
        async with process("tests.patterns.outbox.actors", "publish", quick(path), "60") as child:
            assert await child.ended() == 0

    publishing = asyncio.gather(*(publisher() for _ in range(3)))
    while not publishing.done():
        await within(shop.pump())
        await asyncio.sleep(0)
    await publishing
    await shop.pump()
    assert len(seen.events) == 180
    by_key: dict[Any, list[int]] = defaultdict(list)
    for event in seen.events:
        by_key[event.key].append(event.body.n)
    assert {key: len(ns) for key, ns in by_key.items()} == dict.fromkeys("abcde", 36)
    for key, ns in by_key.items():
        assert ns == list(range(1, 37)), key


async def test_two_consumers_share_the_partitions_with_one_event_of_a_key_in_flight(
    outbox: fp.Outbox, open_outbox: OpenOutbox
) -> None:
    in_flight: set[str | None] = set()
    delivered: dict[str | None, list[int]] = defaultdict(list)
    workers: dict[str, set[int]] = {"one": set(), "two": set()}

    def sink_of(name: str) -> Any:
        async def sink(event: fp.Event[Placed]) -> None:
            assert event.key not in in_flight, "two at a time"
            in_flight.add(event.key)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            in_flight.remove(event.key)
            delivered[event.key].append(event.body.n)
            workers[name].add(event.partition)

        return sink

    options = fp.ConsumerOptions(ttl=0.6, batch=8)
    other = await open_outbox()
    consumers = [outbox.relay("g", sink_of("one"), options), other.relay("g", sink_of("two"), options)]
    worker = fp.Worker(outbox._database.env, outbox.sequencer(), *consumers)
    task = asyncio.create_task(worker.run())
    holders: dict[str, list[int]] = {}

    async def shared() -> bool:
        nonlocal holders
        (group,) = (await outbox.lag()).groups or [None]
        holders = group.holders if group else {}
        return sorted(len(partitions) for partitions in holders.values()) == [2, 2]

    try:
        await until(shared)
        for n in range(30):
            await within(asyncio.gather(*(outbox.publish(Placed(str(k), n), key=str(k)) for k in range(10))))
        await until(lambda: sum(map(len, delivered.values())) >= 300)
    finally:
        worker.stop()
        await within(task)
    assert {key: ns for key, ns in delivered.items() if ns != list(range(30))} == {}
    assert workers["one"] | workers["two"] == {0, 1, 2, 3}
    assert workers["one"]
    assert workers["two"]
    assert all(health.restarts == 0 for health in worker.health()), worker.health()


def keys_of_partitions() -> list[str]:
    """A key for each of the four."""
    return [next(key for key in "abcdefghijklmnop" if partition_of(key) == partition) for partition in range(4)]


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
@pytest.mark.parametrize("batch", [1, 2, 3, 5])
async def test_a_batch_is_the_limit_for_all_partitions_together_and_starves_none(
    outbox: fp.Outbox, batch: int, relay: bool
) -> None:
    """Found: with more partitions than its batch, a step carried one event of each partition."""
    seen = Seen()
    options = fp.ConsumerOptions(batch=batch)
    consumer = outbox.relay("g", seen.sink, options) if relay else outbox.consumer("g", seen, options)
    shop = await running(outbox, consumer)
    for key in keys_of_partitions():
        await publish(outbox, *range(12), key=key)
    await pump(shop.loops[0])
    ahead = 0
    while len(seen.events) < 48:
        before = len(seen.events)
        await consumer.step()
        assert 1 <= len(seen.events) - before <= batch
        done = Counter(event.partition for event in seen.events)
        ahead = max(ahead, max(done.values()) - min(done[partition] for partition in range(4)))
    assert ahead <= 2
    for key in keys_of_partitions():
        assert [event.body.n for event in seen.events if event.key == key] == list(range(12))


async def test_a_partition_whose_handler_is_slow_lets_others_have_their_turn(
    outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    """Found: a transaction that had run long enough ended with the first partition, each time anew."""
    done: Counter[int] = Counter()

    async def slow(event: fp.Event[Placed], tx: Transaction) -> None:
        clock.advance(0.6)
        done[event.partition] += 1

    consumer = outbox.consumer("g", slow, fp.ConsumerOptions(ttl=3.0))
    shop = await running(outbox, consumer)
    for key in keys_of_partitions():
        await publish(outbox, *range(20), key=key)
    await pump(shop.loops[0])
    for _ in range(12):
        await consumer.step()
    assert sum(done.values()) < 40  # each step ended early
    assert [done[partition] for partition in range(4)] == [6, 6, 6, 6]


# --- groups -----------------------------------------------------------------------------------------------------------


async def test_groups_go_at_their_own_pace_and_a_new_one_starts_at_the_earliest(
    db: Database, outbox: fp.Outbox
) -> None:
    await publish(outbox, 1, 2, 3)
    mail, bill = Seen(group="mail"), Seen(group="bill", fails={2: ValueError("no")})
    consumers = [outbox.consumer("mail", mail), outbox.consumer("bill", bill)]
    await (await running(outbox, *consumers)).pump()
    assert await mail.effects(db) == [1, 2, 3]
    assert await bill.effects(db) == [1]
    late = Seen(group="late")
    consumer = outbox.consumer("late", late)
    await consumer.open()
    await pump(consumer)
    assert await late.effects(db) == [1, 2, 3]
    assert mail.ns == [1, 2, 3]


async def test_a_consumer_that_starts_again_goes_on_where_its_group_was(db: Database, outbox: fp.Outbox) -> None:
    seen = Seen()
    first = await running(outbox, outbox.consumer("g", seen))
    await publish(outbox, 1, 2)
    await first.pump()
    for loop in first.loops:
        await loop.close()
    await publish(outbox, 3)
    await (await running(outbox, outbox.consumer("g", seen))).pump()
    assert seen.ns == [1, 2, 3]


async def test_outboxes_of_other_names_in_the_same_database_do_not_mix(db: Database, outbox: fp.Outbox) -> None:
    other = fp.Outbox(db, events=EVENTS, name="audit", options=fp.OutboxOptions(partitions=1))
    await other.install()
    here, there = Seen(group="here"), Seen(group="there")
    await publish(outbox, 1)
    await publish(other, 2)
    await (await running(outbox, outbox.consumer("g", here))).pump()
    await (await running(other, other.consumer("g", there))).pump()
    assert (here.ns, there.ns) == ([1], [2])


async def test_installing_again_is_nothing_and_with_other_partitions_an_error(db: Database, outbox: fp.Outbox) -> None:
    await within(asyncio.gather(*(outbox.install() for _ in range(3))))
    with pytest.raises(InvalidInput, match="4 partitions"):
        await fp.Outbox(db, events=EVENTS, options=fp.OutboxOptions(partitions=5)).install()
    await publish(outbox, 1)
    seen = Seen()
    await (await running(outbox, outbox.consumer("g", seen))).pump()
    assert seen.ns == [1]


# --- retention --------------------------------------------------------------------------------------------------------


async def test_retention_removes_what_every_group_has_settled_and_is_old_enough(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    fast, slow = Seen(group="fast"), Seen(group="slow")
    fast_loop, slow_loop = outbox.consumer("fast", fast), outbox.consumer("slow", slow)
    shop = await running(outbox, fast_loop)
    await slow_loop.open()
    retention = outbox.retention(keep=100.0, every=7.0)
    await publish(outbox, 1, 2, 3)
    await shop.pump()
    clock.advance(200.0)
    assert await retention.step() == 7.0
    assert await count(db, "faultproof_log") == 3  # `slow` has not seen them
    await pump(slow_loop)
    await publish(outbox, 4)
    await shop.pump()
    await pump(slow_loop)
    clock.advance(8.0)
    await retention.step()
    assert await rows(db, "SELECT json_extract(payload, '$.n') FROM faultproof_log") == [(4,)]  # 4 is too young
    clock.advance(200.0)
    await retention.step()
    assert await count(db, "faultproof_log") == 0
    await publish(outbox, 5)
    await shop.pump()
    await pump(slow_loop)
    assert fast.ns == slow.ns == [1, 2, 3, 4, 5]
    assert [event.offset for event in fast.events] == [0, 1, 2, 3, 4]


async def test_retention_deletes_in_bounded_steps(db: Database, outbox: fp.Outbox, clock: ShiftedClock) -> None:
    seen = Seen()
    shop = await running(outbox, outbox.consumer("g", seen))
    await within(asyncio.gather(*(outbox.publish(Placed("k", n), key="k") for n in range(25))))
    await shop.pump()
    clock.advance(10.0)
    retention = outbox.retention(keep=1.0, every=7.0, batch=10)
    assert [await retention.step() for _ in range(3)] == [0.0, 0.0, 7.0]
    assert await count(db, "faultproof_log") == 0


async def test_retention_that_is_woken_early_goes_back_to_rest(outbox: fp.Outbox, clock: ShiftedClock) -> None:
    """Found: on SQLite any commit may wake every loop, and retention trimmed and measured after each."""
    retention = outbox.retention(keep=1.0, every=7.0)
    looks: list[int] = []
    transact = outbox._database.transact

    async def counting(script: Any) -> Any:
        looks.append(1)
        return await transact(script)

    outbox._database.transact = counting  # type: ignore[method-assign]
    assert await retention.step() == 7.0
    clock.advance(3.0)
    assert 3.0 < await retention.step() <= 4.0
    assert len(looks) == 1
    clock.advance(4.0)
    assert await retention.step() == 7.0
    assert len(looks) == 2


async def test_a_log_that_no_group_reads_is_trimmed_by_age_alone(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    await publish(outbox, 1)
    await (await running(outbox)).pump()
    await outbox.retention(keep=100.0).step()
    assert await count(db, "faultproof_log") == 1
    clock.advance(101.0)
    await outbox.retention(keep=100.0).step()
    assert await count(db, "faultproof_log") == 0


async def test_a_group_that_is_gone_holds_retention_up_until_it_is_forgotten(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    gone = outbox.consumer("gone", Seen(group="gone", fails={1: ValueError("no")}), fp.ConsumerOptions(attempts=1))
    seen = Seen()
    shop = await running(outbox, outbox.consumer("g", seen), gone)
    await publish(outbox, 1)
    await shop.pump()
    await gone.close()
    shop = await running(outbox, shop.loops[1])
    await publish(outbox, 2, 3)
    clock.advance(1_000.0)
    await shop.pump()
    retention = outbox.retention(keep=10.0)
    clock.advance(1_000.0)
    await retention.step()
    assert await count(db, "faultproof_log") == 2
    assert len(await outbox.dead_letters("gone").list()) == 1
    await outbox.forget("gone")
    clock.advance(11.0)
    await retention.step()
    assert await count(db, "faultproof_log") == 0
    assert await outbox.dead_letters("gone").list() == []
    assert [group.group for group in (await outbox.lag()).groups] == ["g"]
    kinds = {kind for (kind,) in await rows(db, "SELECT DISTINCT kind FROM faultproof_claim")}
    assert not any("gone" in kind for kind in kinds), kinds
    assert seen.ns == [1, 2, 3]


async def test_a_consumer_whose_group_is_forgotten_says_so_and_delivers_nothing_again(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    """Found: it ran on, healthy by its looks, and did nothing for ever."""
    seen = Seen()
    consumer = outbox.consumer("g", seen)
    shop = await running(outbox, consumer)
    await publish(outbox, 1)
    await shop.pump()
    await outbox.forget("g")
    await publish(outbox, 2)
    await pump(shop.loops[0])
    clock.advance(5.0)  # a third of its ttl, and more
    for call in (consumer.step, consumer.open, consumer.step):
        with pytest.raises(Failed, match="'g' was forgotten while this consumer of it ran"):
            await call()
    assert seen.ns == [1]
    assert (await outbox.lag()).groups == []  # nor does it hold up retention
    again = Seen(group="again")
    anew = outbox.consumer("g", again)
    await anew.open()
    await pump(anew)
    assert again.ns == [1, 2]
    await anew.close()
    clock.advance(5.0)
    await publish(outbox, 3)
    await pump(shop.loops[0])
    await consumer.open()  # as its worker does: the group is there again, and goes on where it is
    await pump(consumer)
    assert seen.ns == [1, 3]
    await consumer.close()
    await outbox.forget("g")
    kinds = {kind for (kind,) in await rows(db, "SELECT DISTINCT kind FROM faultproof_claim")}
    assert not any("group:g" in kind for kind in kinds), kinds


async def test_a_group_forgotten_amid_an_event_undoes_it_and_shows_in_the_health(
    db: Database, outbox: fp.Outbox, open_outbox: OpenOutbox
) -> None:
    operator = await open_outbox()
    handed: list[int] = []

    async def sink(event: fp.Event[Placed]) -> None:
        handed.append(event.body.n)
        await operator.forget("g")

    worker = fp.Worker(db.env, outbox.sequencer(), outbox.relay("g", sink, fp.ConsumerOptions(ttl=0.3)))
    await publish(outbox, 1)
    task = asyncio.create_task(worker.run())
    try:
        await until(lambda: "was forgotten" in (worker.health()[1].error or ""))
        assert not worker.health()[1].running
    finally:
        worker.stop()
        await within(task)
    assert handed == [1]
    assert (await outbox.lag()).groups == []
    assert await count(db, "faultproof_parked") == 0


async def test_a_consumer_that_has_no_part_of_a_group_is_not_told_that_it_is_gone(
    outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    consumers = [outbox.consumer("g", Seen()) for _ in range(5)]  # of four partitions
    shop = await running(outbox, *consumers)
    for _ in range(4):
        clock.advance(1.9)
        await shop.pump()


async def test_a_reader_behind_the_trimmed_part_is_told_and_skips_nothing(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    seen = Seen()
    consumer = outbox.consumer("g", seen)
    shop = await running(outbox, consumer)
    await publish(outbox, 1, 2)
    await shop.pump()
    clock.advance(1_000.0)
    await outbox.retention(keep=10.0).step()
    async with db.transaction() as tx:  # as after a restore of the inbox alone
        await tx.execute("UPDATE faultproof_inbox SET next_offset = 0")
    await publish(outbox, 3)
    await shop.loops[0].step()
    with pytest.raises(EventsTrimmed, match="begins at offset 2"):
        await pump(consumer)
    assert seen.ns == [1, 2]


# --- lag --------------------------------------------------------------------------------------------------------------


async def test_lag_counts_what_is_where_and_how_old_it_is(
    outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    seen = Seen(fails={n: ValueError("no") for n in (10, 20)})
    consumer = outbox.consumer("g", seen, fp.ConsumerOptions(attempts=2, backoff=1_000.0, backoff_max=1_000.0))
    shop = await running(outbox, consumer)
    await outbox.publish(Placed("later", 0), key="later", delay=10_000.0)
    await publish(outbox, 10, key="ten")
    await shop.pump()
    clock.advance(1_000.0)
    await shop.pump()  # 10 is dead
    await publish(outbox, 20, key="twenty")
    await publish(outbox, 21, key="twenty")
    await shop.pump()  # 20 is to be tried again, 21 waits behind it
    await publish(outbox, 1, 2, 3)
    clock.advance(40.0)
    await publish(outbox, 9, key=next(key for key in "abcdef" if partition_of(key) != partition_of("k")))
    await shop.loops[0].step()  # in the log, not delivered
    await publish(outbox, 4, 5)
    clock.advance(20.0)
    recorder.emitted.clear()
    lag = await outbox.lag()
    assert (lag.events, lag.delayed) == (2, 1)
    assert lag.age_s == pytest.approx(20.0, abs=1.0)
    (group,) = lag.groups
    assert group[:2] == ("g", 4)
    assert group.age_s == pytest.approx(60.0, abs=1.0)
    assert (group.parked, group.dead) == (2, 1)
    assert recorder.values(LAG_EVENTS, log="outbox", group="") == [2]
    assert recorder.values(LAG_EVENTS, log="outbox", group="g") == [4 + 2]
    assert recorder.values(LAG_AGE, log="outbox", group="") == [pytest.approx(20.0, abs=1.0)]
    assert recorder.values(LAG_AGE, log="outbox", group="g") == [pytest.approx(60.0, abs=1.0)]


async def test_a_delayed_event_is_as_old_as_it_has_been_due(
    outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    """Found: an event that nobody was to have yet raised the alarm as soon as it was sequenced."""
    seen = Seen()
    consumer = outbox.consumer("g", seen)
    shop = await running(outbox, consumer)
    published = await outbox.publish(Placed("k", 1), key="k", delay=3_600.0)
    before = outbox._database.env.clock.wall_us()
    clock.advance(3_700.0)
    assert (await outbox.lag()).age_s == pytest.approx(100.0, abs=1.0)
    await pump(shop.loops[0])
    lag = await outbox.lag()
    assert (lag.events, lag.age_s) == (0, 0)
    assert lag.groups[0].age_s == pytest.approx(100.0, abs=1.0)
    clock.advance(50.0)
    assert (await outbox.lag()).groups[0].age_s == pytest.approx(150.0, abs=1.0)
    await pump(consumer)
    assert (await outbox.lag()).groups[0].age_s == 0
    (event,) = seen.events
    assert event.id == published
    assert event.at.timestamp() == pytest.approx(before / 1e6 + 3_600.0, abs=1.0)


async def test_lag_names_who_is_at_it_and_nobody_after_they_left(outbox: fp.Outbox) -> None:
    shop = await running(outbox, outbox.consumer("g", Seen()))
    await shop.pump()
    lag = await outbox.lag()
    assert list(lag.sequencers.values()) == [[0, 1, 2, 3]]
    assert lag.groups[0].holders == lag.sequencers
    for loop in shop.loops:
        await loop.close()
    lag = await outbox.lag()
    assert lag.sequencers == lag.groups[0].holders == {}


async def test_without_anything_to_do_there_is_no_lag(outbox: fp.Outbox) -> None:
    shop = await running(outbox, outbox.consumer("g", Seen()))
    await publish(outbox, 1)
    await shop.pump()
    lag = await outbox.lag()
    assert (lag.events, lag.age_s, lag.delayed) == (0, 0, 0)
    assert lag.groups[0][1:5] == (0, 0.0, 0, 0)


# --- epochs -----------------------------------------------------------------------------------------------------------


async def test_a_new_epoch_gives_events_another_one_and_loses_none(db: Database, outbox: fp.Outbox) -> None:
    seen = Seen()
    shop = await running(outbox, outbox.consumer("g", seen))
    await publish(outbox, 1)
    await shop.pump()
    epoch = await outbox.begin_epoch()
    await publish(outbox, 2)
    await shop.pump()
    await (await running(outbox, shop.loops[1])).pump()
    await publish(outbox, 3)
    await shop.pump()
    assert seen.ns == [1, 2, 3]
    assert seen.events[0].epoch != epoch
    assert seen.events[2].epoch == epoch
    assert await seen.effects(db) == [1, 2, 3]


# --- the sequencer ----------------------------------------------------------------------------------------------------


async def test_one_sequencer_works_and_another_stands_by_until_it_is_gone(
    outbox: fp.Outbox, open_outbox: OpenOutbox, clock: ShiftedClock
) -> None:
    first, second = outbox.sequencer(ttl=5.0), (await open_outbox()).sequencer(ttl=5.0)
    for sequencer in (first, second):
        await sequencer.open()
    await pump(first)
    await pump(second)
    assert len((await outbox.lag()).sequencers) == 1
    await publish(outbox, 1, 2)
    await pump(second)
    assert (await outbox.lag()).events == 2
    clock.advance(6.0)  # `first` is never heard of again
    await pump(second)
    lag = await outbox.lag()
    assert lag.events == 0
    assert list(lag.sequencers.values()) == [[0, 1, 2, 3]]


async def test_a_handler_runs_in_the_group_s_own_transaction_only(db: Database, outbox: fp.Outbox) -> None:
    """The cursor and the effects move together: with the effect there is the progress, and the other way round."""

    async def look(event: fp.Event[Any], tx: Transaction) -> None:
        ((settled,),) = await tx.fetch("SELECT sum(next_offset) FROM faultproof_inbox WHERE grp = 'g'")
        ((written,),) = await tx.fetch("SELECT count(*) FROM orders")
        assert settled == written - (event.body.n % 2)
        await tx.execute("INSERT INTO orders (id, n) VALUES ('x', ?)", event.body.n)

    shop = await running(outbox, outbox.consumer("g", look, fp.ConsumerOptions(attempts=1, batch=4)))
    for n in range(4):
        await publish(outbox, 2 * n)
        await shop.pump()
    assert await outbox.dead_letters("g").list() == []
    assert await count(db, "orders") == 4

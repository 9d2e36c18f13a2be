"""Events whose handler fails: attempts, pauses, dead letters, and an order per key that holds through all of it."""

import asyncio
import math
from typing import Any

import msgspec
import pytest

import faultproof as fp
from faultproof.errors import (
    Busy,
    ConstraintViolated,
    InvalidInput,
    OutcomeUnknown,
    RetriesExhausted,
    SchemaMismatch,
    StorageFailed,
    TransactionOpen,
)
from faultproof.patterns.outbox.care import CRASHES_MAX
from faultproof.ports.database import Database, Transaction
from faultproof.signals import DEAD_LETTER, LOOP_LAG, RETRY, STUCK
from tests.fakes import Recorder, ShiftedClock, until
from tests.patterns.outbox.conftest import OpenOutbox
from tests.patterns.outbox.shop import Paid, Placed, Running, Seen, count, rows, running

pytestmark = pytest.mark.anyio

AN_HOUR = 3_600.0
"""Longer than every pause."""


async def publish(outbox: fp.Outbox, key: str | None, *ns: int) -> list[str]:
    return [await outbox.publish(Placed(key or "", n), key=key) for n in ns]


async def shop_of(outbox: fp.Outbox, seen: Seen, *, relay: bool = False, **options: Any) -> Running:
    if relay:
        return await running(outbox, outbox.relay("g", seen.sink, fp.ConsumerOptions(**options)))
    return await running(outbox, outbox.consumer("g", seen, fp.ConsumerOptions(**options)))


async def instead_of(shop: Running, outbox: fp.Outbox, seen: Seen, **options: Any) -> Running:
    """Its processes are stopped, and others deployed."""
    for loop in shop.loops:
        await loop.close()
    return await shop_of(outbox, seen, **options)


def parked(outbox: fp.Outbox, db: Database) -> Any:
    return rows(db, "SELECT attempts, dead, error FROM faultproof_parked ORDER BY partition, offset")


# --- attempts and pauses ----------------------------------------------------------------------------------------------


async def test_a_failed_event_is_tried_again_after_growing_pauses_and_then_dead(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    seen = Seen(fails={1: ValueError("no such thing")})
    shop = await shop_of(outbox, seen, attempts=4, backoff=100.0, backoff_max=300.0)
    (id,) = await publish(outbox, "k", 1)
    await shop.pump()
    assert len(seen.events) == 1
    for attempts, pause in ((2, 100.0), (3, 200.0), (4, 300.0)):  # jitter is nearly all of it here
        clock.advance(0.9 * pause)
        await shop.pump()
        assert len(seen.events) == attempts - 1
        clock.advance(0.1 * pause)
        await shop.pump()
        assert len(seen.events) == attempts
    clock.advance(AN_HOUR)
    await shop.pump()
    assert [event.attempt for event in seen.events] == [1, 2, 3, 4]
    (letter,) = await outbox.dead_letters("g").list()
    assert (letter.id, letter.type, letter.key, letter.attempts) == (id, "placed", "k", 4)
    assert letter.payload == '{"key":"k","n":1}'
    assert letter.error == "ValueError: no such thing"
    assert recorder.values(DEAD_LETTER, log="outbox", group="g") == [1]
    assert recorder.values(RETRY, log="outbox", group="g") == [1, 1, 1]
    assert await seen.effects(db) == []


async def test_an_event_that_recovers_leaves_nothing_behind(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    seen = Seen(fails={1: ValueError("not yet")})
    shop = await shop_of(outbox, seen)
    await publish(outbox, "k", 1)
    await shop.pump()
    seen.fails.clear()
    clock.advance(AN_HOUR)
    await shop.pump()
    assert await seen.effects(db) == [1]
    assert await count(db, "faultproof_parked") == 0
    assert recorder.values(DEAD_LETTER) == []


async def test_one_attempt_is_allowed_where_the_options_say_so(db: Database, outbox: fp.Outbox) -> None:
    seen = Seen(fails={1: ValueError("no")})
    await publish(outbox, "k", 1)
    await (await shop_of(outbox, seen, attempts=1)).pump()
    assert len(seen.events) == 1
    assert len(await outbox.dead_letters("g").list()) == 1


async def test_what_a_failed_attempt_wrote_is_undone(db: Database, outbox: fp.Outbox, clock: ShiftedClock) -> None:
    tries = []

    async def write_then_fail(event: fp.Event[Any], tx: Transaction) -> None:
        await tx.execute("INSERT INTO orders (id, n) VALUES ('half', ?)", event.body.n)
        tries.append(event.attempt)
        if len(tries) < 3:
            raise ValueError("after writing")

    shop = await running(outbox, outbox.consumer("g", write_then_fail))
    await publish(outbox, "k", 1)
    for _ in range(3):
        await shop.pump()
        clock.advance(AN_HOUR)
    assert tries == [1, 2, 3]
    assert await count(db, "orders") == 1


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_neighbours_of_a_poisoned_event_are_delivered_around_it_once(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, relay: bool
) -> None:
    """Found for a relay: what had been handed over before a neighbour failed was handed over again."""
    seen = Seen(fails={7: ValueError("no")})
    shop = await shop_of(outbox, seen, relay=relay)
    for n in range(20):
        await publish(outbox, f"key-{n}", n)
    await shop.pump()
    if relay:
        assert sorted(seen.ns) == list(range(20))
    else:
        assert sorted(await seen.effects(db)) == [n for n in range(20) if n != 7]
    assert len(await parked(outbox, db)) == 1


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_several_poisoned_events_at_once_each_park_alone(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, relay: bool
) -> None:
    bad = [0, 3, 4, 11, 19]
    seen = Seen(fails={n: ValueError(str(n)) for n in bad})
    shop = await shop_of(outbox, seen, relay=relay)
    for n in range(20):
        await publish(outbox, f"key-{n}", n)
    await shop.pump()
    assert sorted(error for _, _, error in await parked(outbox, db)) == sorted(f"ValueError: {n}" for n in bad)
    assert set(seen.ns) == set(range(20))
    seen.fails.clear()
    seen.events.clear()
    clock.advance(AN_HOUR)
    await shop.pump()
    assert sorted(seen.ns) == bad


# --- the key waits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_later_events_of_a_failed_one_s_key_wait_and_keep_their_order(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, relay: bool
) -> None:
    seen = Seen(fails={2: ValueError("no")})
    shop = await shop_of(outbox, seen, relay=relay)
    await publish(outbox, "k", 1, 2, 3)
    await publish(outbox, "other", 100)
    await shop.pump()
    await publish(outbox, "k", 4)
    await publish(outbox, "other", 101)
    await shop.pump()
    delivered = seen.ns if relay else await seen.effects(db)
    assert sorted(n for n in delivered if n != 2) == [1, 100, 101]
    seen.events.clear()
    seen.fails.clear()
    clock.advance(AN_HOUR)
    await publish(outbox, "k", 5)  # found: new, while the one before it is tried again and settled, it stayed for ever
    await shop.pump()
    await publish(outbox, "k", 6)
    await shop.pump()
    assert seen.ns == [2, 3, 4, 5, 6]
    assert await count(db, "faultproof_parked") == 0


async def test_the_events_behind_a_dead_letter_wait_for_a_person_and_go_on_in_order_after_replay(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    seen = Seen(fails={1: ValueError("no")})
    shop = await shop_of(outbox, seen, attempts=2)
    id, *_ = await publish(outbox, "k", 1, 2)
    await shop.pump()
    clock.advance(AN_HOUR)
    await shop.pump()
    await publish(outbox, "k", 3)
    clock.advance(AN_HOUR)
    await shop.pump()
    assert seen.ns == [1, 1]
    seen.fails.clear()
    letters = outbox.dead_letters("g")
    assert await letters.replay(id)
    await publish(outbox, "k", 4)
    await shop.pump()
    await publish(outbox, "k", 5)
    await shop.pump()
    assert await seen.effects(db) == [1, 2, 3, 4, 5]
    assert seen.events[2].attempt == 1  # replay begins the count anew
    assert await letters.list() == []
    assert not await letters.replay(id)


async def test_a_replayed_event_that_fails_again_is_dead_again_and_its_key_waits_on(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    seen = Seen(fails={1: ValueError("no")})
    shop = await shop_of(outbox, seen, attempts=2)
    id, *_ = await publish(outbox, "k", 1, 2)
    for _ in range(4):
        await shop.pump()
        clock.advance(AN_HOUR)
    await outbox.dead_letters("g").replay(id)
    for _ in range(4):
        await shop.pump()
        clock.advance(AN_HOUR)
    assert seen.ns == [1] * 4
    assert [letter.attempts for letter in await outbox.dead_letters("g").list()] == [2]


async def test_after_a_discard_its_key_goes_on_without_it(db: Database, outbox: fp.Outbox, clock: ShiftedClock) -> None:
    seen = Seen(fails={1: ValueError("no")})
    shop = await shop_of(outbox, seen, attempts=1)
    id, *_ = await publish(outbox, "k", 1, 2, 3)
    await shop.pump()
    letters = outbox.dead_letters("g")
    assert await letters.discard(id)
    assert not await letters.discard(id)
    await publish(outbox, "k", 4)
    await shop.pump()
    assert await seen.effects(db) == [2, 3, 4]
    assert await count(db, "faultproof_parked") == 0


async def test_a_discard_between_the_look_and_the_delivery_leaves_nobody_waiting(
    db: Database, outbox: fp.Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found: the key's next event was parked behind one that was no longer there, and waited for ever."""
    seen = Seen(fails={1: ValueError("no")})
    shop = await shop_of(outbox, seen, attempts=1)
    (id,) = await publish(outbox, "k", 1)
    await shop.pump()
    consumer: Any = shop.loops[1]
    deliver = consumer._deliver

    async def discard_first(work: Any) -> None:
        await outbox.dead_letters("g").discard(id)
        await deliver(work)

    await publish(outbox, "k", 2)
    monkeypatch.setattr(consumer, "_deliver", discard_first)
    await shop.pump()
    assert await seen.effects(db) == [2]
    assert await count(db, "faultproof_parked") == 0


# --- the key goes on --------------------------------------------------------------------------------------------------


async def test_where_keys_go_on_later_events_wait_for_attempts_but_not_for_a_person(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    seen = Seen(fails={1: ValueError("no")})
    shop = await shop_of(outbox, seen, attempts=2, on_poison="key goes on")
    id, *_ = await publish(outbox, "k", 1, 2)
    await shop.pump()
    assert seen.ns == [1]
    clock.advance(AN_HOUR)
    await publish(outbox, "k", 3)  # found: new, in the step in which the one before it died, it stayed for ever
    await shop.pump()
    await publish(outbox, "k", 4)
    await shop.pump()
    assert seen.ns == [1, 1, 2, 3, 4]
    assert await seen.effects(db) == [2, 3, 4]
    seen.fails.clear()
    await outbox.dead_letters("g").replay(id)
    await shop.pump()
    assert await seen.effects(db) == [2, 3, 4, 1]


async def test_a_group_that_lets_keys_go_on_from_now_on_goes_on_with_those_that_waited(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    """Found: they waited on, until the next event of their key happened to come."""
    seen = Seen(fails={n: ValueError("no") for n in (10, 20)})
    shop = await shop_of(outbox, seen, attempts=1)
    await publish(outbox, "a", 10, 11, 12)
    await publish(outbox, "b", 20, 21)
    await shop.pump()
    seen.fails[30] = ValueError("not yet")
    shop = await instead_of(shop, outbox, seen, attempts=3, backoff=AN_HOUR, backoff_max=AN_HOUR)
    await publish(outbox, "c", 30, 31)
    await shop.pump()
    assert await seen.effects(db) == []
    shop = await instead_of(
        shop, outbox, seen, attempts=3, backoff=AN_HOUR, backoff_max=AN_HOUR, on_poison="key goes on"
    )
    await shop.pump()
    assert await seen.effects(db) in ([11, 21, 12], [21, 11, 12])
    assert len(await outbox.dead_letters("g").list()) == 2
    seen.fails.clear()
    clock.advance(AN_HOUR)  # 31 waits for 30, which is not dead, whatever the choice
    await shop.pump()
    assert (await seen.effects(db))[3:] == [30, 31]


async def test_a_group_that_lets_keys_wait_from_now_on_keeps_back_what_stands_behind_the_dead(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    seen = Seen(fails={n: ValueError("no") for n in (1, 2)})
    shop = await shop_of(outbox, seen, attempts=1, on_poison="key goes on")
    (dead,) = await publish(outbox, "k", 1)
    await shop.pump()
    shop = await instead_of(shop, outbox, seen, attempts=9, backoff=1.0, on_poison="key goes on")
    await publish(outbox, "k", 2, 3)
    await publish(outbox, "other", 8)
    await shop.pump()
    assert await seen.effects(db) == [8]
    shop = await instead_of(shop, outbox, seen, attempts=9, backoff=1.0)
    seen.fails.clear()
    await publish(outbox, "k", 4)
    await publish(outbox, "other", 9)
    clock.advance(AN_HOUR)
    await shop.pump()
    assert await seen.effects(db) == [8, 9]
    await outbox.dead_letters("g").replay(dead)
    await shop.pump()
    assert await seen.effects(db) == [8, 9, 1, 2, 3, 4]


async def test_a_group_that_begins_again_with_the_same_choice_leaves_a_replay_alone(
    db: Database, outbox: fp.Outbox
) -> None:
    seen = Seen(fails={n: ValueError("no") for n in (1, 2)})
    shop = await shop_of(outbox, seen, attempts=1, on_poison="key goes on")
    _, second = await publish(outbox, "k", 1, 2)
    await shop.pump()
    seen.fails.clear()
    shop = await instead_of(shop, outbox, seen, attempts=1)
    await shop.pump()
    await outbox.dead_letters("g").replay(second)  # before the first: a person decides
    shop = await instead_of(shop, outbox, seen, attempts=1)
    await shop.pump()
    assert await seen.effects(db) == [2]
    assert len(await outbox.dead_letters("g").list()) == 1


async def test_letters_of_one_key_that_are_replayed_one_after_the_other_keep_their_order(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    """Also when the first of them is not done at once: found live, by a consumer that was stopped in the middle of it."""
    seen = Seen(fails={n: ValueError("no") for n in (1, 2)})
    shop = await shop_of(outbox, seen, attempts=1, on_poison="key goes on")
    first, second = await publish(outbox, "k", 1, 2)
    await shop.pump()
    del seen.fails[2]
    shop = await instead_of(shop, outbox, seen, attempts=2, backoff=1.0)
    for letter in (first, second):
        assert await outbox.dead_letters("g").replay(letter)
    await shop.pump()
    assert await seen.effects(db) == []
    del seen.fails[1]
    clock.advance(AN_HOUR)
    await shop.pump()
    assert await seen.effects(db) == [1, 2]


async def test_an_event_without_a_key_holds_nobody_up(db: Database, outbox: fp.Outbox) -> None:
    seen = Seen(fails={3: ValueError("no")})
    shop = await shop_of(outbox, seen, attempts=1)
    await publish(outbox, None, *range(10))
    await shop.pump()
    assert sorted(await seen.effects(db)) == [n for n in range(10) if n != 3]
    (letter,) = await outbox.dead_letters("g").list()
    assert letter.key is None
    assert await outbox.dead_letters("g").discard(letter.id)


# --- dead letters -----------------------------------------------------------------------------------------------------


async def test_dead_letters_are_listed_oldest_first_and_by_group(outbox: fp.Outbox) -> None:
    seen = Seen(fails={n: ValueError(str(n)) for n in range(5)})
    shop = await shop_of(outbox, seen, attempts=1, on_poison="key goes on")
    ids = await publish(outbox, "k", *range(5))
    await shop.pump()
    letters = outbox.dead_letters("g")
    assert [letter.id for letter in await letters.list()] == ids
    assert [letter.id for letter in await letters.list(limit=2)] == ids[:2]
    assert await outbox.dead_letters("other").list() == []
    assert not await outbox.dead_letters("other").replay(ids[0])
    for limit in (0, -1, 10_001):
        with pytest.raises(InvalidInput):
            await letters.list(limit=limit)


async def test_a_dead_letter_outlives_the_log_s_retention(db: Database, outbox: fp.Outbox, clock: ShiftedClock) -> None:
    seen = Seen(fails={1: ValueError("no")})
    shop = await shop_of(outbox, seen, attempts=1)
    (id,) = await publish(outbox, "k", 1)
    await shop.pump()
    clock.advance(AN_HOUR)
    await outbox.retention(keep=1.0).step()
    assert await count(db, "faultproof_log") == 0
    seen.fails.clear()
    await outbox.dead_letters("g").replay(id)
    await shop.pump()
    assert await seen.effects(db) == [1]


# --- whose fault it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Busy("later"), OutcomeUnknown("lost"), StorageFailed("disk")], ids=repr)
async def test_what_is_not_the_event_s_fault_is_not_counted(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder, error: Exception
) -> None:
    seen = Seen(fails={1: error})
    shop = await shop_of(outbox, seen, attempts=2)
    await publish(outbox, "k", 1)
    consumer = shop.loops[1]
    await shop.loops[0].step()
    for _ in range(8):
        with pytest.raises(type(error)):
            await consumer.step()
        await consumer.open()  # as its worker does
    assert await count(db, "faultproof_parked") == 0
    seen.fails.clear()
    await shop.pump()
    assert await seen.effects(db) == [1]
    assert {event.attempt for event in seen.events} == {1}
    # Nor does it look as if processes had died; found: each time the partition was at rest for a lease time.
    assert recorder.values(STUCK) == []


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_try_again_from_an_event_that_is_tried_again_is_not_counted_and_holds_nobody_up(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, relay: bool
) -> None:
    """Found: its attempts were counted before they were made, and it ended as a dead letter."""
    seen = Seen(fails={1: ValueError("once")})
    shop = await shop_of(outbox, seen, relay=relay, attempts=2)
    await publish(outbox, "k", 1)
    await shop.pump()
    seen.fails[1] = Busy("later", retry_after=10.0)
    clock.advance(AN_HOUR)
    await shop.pump()
    for n in range(2, 9):
        clock.advance(9.0)
        await publish(outbox, f"other-{n}", n)
        await shop.pump()
        assert seen.ns[-1] == n
        before = len(seen.events)
        clock.advance(2.0)
        await shop.pump()
        assert len(seen.events) == before + 1
    assert [(attempts, dead) for attempts, dead, _ in await parked(outbox, db)] == [(1, 0)]
    seen.fails.clear()
    clock.advance(AN_HOUR)
    await shop.pump()
    assert seen.ns[-1] == 1
    assert await count(db, "faultproof_parked") == 0


@pytest.mark.parametrize("error", [OutcomeUnknown("lost"), SchemaMismatch("not installed")], ids=repr)
@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_the_database_s_trouble_during_a_retry_is_not_counted_and_is_heard_of(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder, relay: bool, error: Exception
) -> None:
    """Found: the event paid for it with its attempts, and ended as a dead letter."""
    seen = Seen(fails={1: ValueError("once")})
    shop = await shop_of(outbox, seen, relay=relay, attempts=2, backoff=1.0)
    await publish(outbox, "k", 1)
    await shop.pump()
    seen.fails[1] = error
    for n in range(2, 6):
        clock.advance(2.0)
        with pytest.raises(type(error)):
            await shop.pump()
        await shop.loops[1].open()  # as its worker does
        await publish(outbox, f"other-{n}", n)
        await shop.pump()
        assert seen.ns[-1] == n
        assert [(attempts, dead) for attempts, dead, _ in await parked(outbox, db)] == [(1, 0)]
    seen.fails.clear()
    clock.advance(2.0)
    await shop.pump()
    assert seen.ns[-1] == 1
    assert seen.events[-1].attempt == 2
    assert await count(db, "faultproof_parked") == 0
    assert recorder.values(DEAD_LETTER) == []


@pytest.mark.parametrize("after", [math.inf, math.nan, -1.0, 1e300], ids=repr)
async def test_a_pause_that_nobody_can_mean_is_the_usual_one(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, after: float
) -> None:
    """Found: what some server had sent as "retry after" overflowed, and restarted the loop again and again for ever."""
    seen = Seen(fails={1: ValueError("once")})
    shop = await shop_of(outbox, seen, backoff=10.0)
    await publish(outbox, "k", 1)
    await shop.pump()
    seen.fails[1] = Busy("later", retry_after=after)
    clock.advance(AN_HOUR)
    await shop.pump()
    assert seen.ns == [1, 1]
    seen.fails.clear()
    clock.advance(9.0)
    await shop.pump()
    assert seen.ns == [1, 1]
    clock.advance(2.0)
    await shop.pump()
    assert await seen.effects(db) == [1]


@pytest.mark.parametrize(
    "error",
    [ConstraintViolated("x"), RetriesExhausted("x", attempts=3), InvalidInput("x"), asyncio.CancelledError()],
    ids=repr,
)
@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_what_repeating_cannot_help_is_the_event_s_fault(
    db: Database, outbox: fp.Outbox, error: Exception, relay: bool
) -> None:
    """Found: a `Failed` that the handler met, or a cancel of its own doing, stopped the loop again and again for ever."""
    seen = Seen(fails={1: error})
    shop = await shop_of(outbox, seen, relay=relay, attempts=1)
    await publish(outbox, "k", 1)
    await publish(outbox, "other", 2)
    await shop.pump()
    assert 2 in seen.ns
    (letter,) = await outbox.dead_letters("g").list()
    assert letter.error is not None
    assert letter.error.startswith(type(error).__name__)


async def test_a_bare_call_in_a_handler_is_told_what_to_pass_and_ends_as_a_dead_letter(outbox: fp.Outbox) -> None:
    async def publishes_bare(event: fp.Event[Any], tx: Transaction) -> None:
        await outbox.publish(Placed("k", 2), key="k")

    shop = await running(outbox, outbox.consumer("g", publishes_bare, fp.ConsumerOptions(attempts=1)))
    await publish(outbox, "k", 1)
    await shop.pump()
    (letter,) = await outbox.dead_letters("g").list()
    assert letter.error is not None
    assert letter.error.startswith(TransactionOpen.__name__)
    assert "pass `tx=`" in letter.error


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_a_handler_that_hangs_has_failed_when_its_time_is_over(
    db: Database, outbox: fp.Outbox, relay: bool
) -> None:
    async def hang(event: fp.Event[Any], tx: Transaction | None = None) -> None:
        if tx is not None:
            await tx.execute("INSERT INTO orders (id, n) VALUES ('half', 1)")
        await asyncio.get_running_loop().create_future()

    options = fp.ConsumerOptions(attempts=1, timeout=0.05)
    consumer = outbox.relay("g", hang, options) if relay else outbox.consumer("g", hang, options)
    shop = await running(outbox, consumer)
    await publish(outbox, "k", 1)
    await shop.pump()
    (letter,) = await outbox.dead_letters("g").list()
    assert letter.error == "TimeoutError: the handler took longer than 0.05 s"
    assert await count(db, "orders") == 0


class Noted(msgspec.Struct):
    """What a process of another release makes of a "noted"."""

    n: int


async def test_an_event_that_this_process_does_not_know_or_cannot_read_becomes_a_dead_letter_and_is_replayed_later(
    db: Database, outbox: fp.Outbox
) -> None:
    await publish(outbox, "a", 1)
    unknown = await outbox.publish(Paid("b", 2), key="b")
    unreadable = await outbox.publish({"n": "three"}, key="c", type="noted")
    other_release = fp.Outbox(db, events={"placed": Placed, "noted": Noted}, options=fp.OutboxOptions(partitions=4))
    seen = Seen()
    options = fp.ConsumerOptions(attempts=1)
    old = await running(other_release, other_release.consumer("g", seen, options))
    await old.pump()
    for loop in old.loops:
        await loop.close()
    assert await seen.effects(db) == [1]
    letters = {letter.id: str(letter.error) for letter in await outbox.dead_letters("g").list()}
    assert set(letters) == {unknown, unreadable}
    assert "no event registered as 'paid'" in letters[unknown]
    assert "does not fit 'noted'" in letters[unreadable]
    for id in letters:
        await outbox.dead_letters("g").replay(id)
    await (await running(outbox, outbox.consumer("g", seen, options))).pump()
    assert set(letters) <= {event.id for event in seen.events}
    assert sorted(map(str, await seen.effects(db))) == ["1", "2", "three"]


# --- processes that die -----------------------------------------------------------------------------------------------


async def test_an_event_on_which_processes_die_is_set_aside_behind_those_of_its_key_that_wait(
    db: Database, outbox: fp.Outbox, open_outbox: OpenOutbox, clock: ShiftedClock
) -> None:
    """Found: set aside, it was due at once and overtook an earlier event of its key."""
    seen = Seen(fails={1: ValueError("no")})
    shop = await shop_of(outbox, seen)
    await publish(outbox, "k", 1)
    await shop.pump()
    await shop.loops[1].close()
    await shop.loops[0].close()
    for _ in range(CRASHES_MAX):  # processes that take the partitions and are never heard of again
        dying = await open_outbox()
        consumer = dying.consumer("g", Seen())
        await consumer.open()
        await consumer._leases.tend()
        clock.advance(30.0)
    await publish(outbox, "k", 2, 3)
    survivor = await open_outbox()
    seen.fails.clear()
    seen.events.clear()
    shop = await running(survivor, survivor.consumer("g", seen))
    for _ in range(10):
        await shop.pump()
        clock.advance(1.0)
    assert seen.ns == [1, 2, 3]
    assert await count(db, "faultproof_parked") == 0


async def test_a_consumer_does_not_hurry_for_events_that_are_due_with_another(
    outbox: fp.Outbox, open_outbox: OpenOutbox, clock: ShiftedClock
) -> None:
    """Found: while another's event was overdue (it was busy, or dead), all others looked a thousand times a second."""
    other = await open_outbox()
    one, two = Seen(), Seen()
    shop = await running(outbox, outbox.consumer("g", one), other.consumer("g", two))
    for _ in range(3):
        await shop.pump()
        clock.advance(2.0)
    keys = [str(n) for n in range(12)]
    one.fails = two.fails = dict.fromkeys(range(12), ValueError("no"))
    for n, key in enumerate(keys):
        await publish(outbox, key, n)
    await shop.pump()
    assert one.ns
    assert two.ns
    one.fails = two.fails = {}
    clock.advance(1.0)
    assert await shop.loops[1].step() == 0.0  # tries its own again; `two` is not heard of for a while
    rest = await shop.loops[1].step()
    assert rest > 0.01


# --- slow, and not dead -----------------------------------------------------------------------------------------------


async def test_a_sink_slower_than_its_lease_keeps_it_and_hands_each_event_over_once(
    outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    """Found: the lease ran out under way, nothing was settled, and the same events were handed over for ever."""
    handed: list[int] = []

    async def slow(event: fp.Event[Any]) -> None:
        for _ in range(12):  # 18 s altogether, and the loop is free all the while
            clock.advance(1.5)
            await until(lambda: relay._leases._due > clock.monotonic())
        handed.append(event.body.n)

    relay = outbox.relay("g", slow, fp.ConsumerOptions(ttl=5.0))
    shop = await running(outbox, relay)
    await publish(outbox, "k", 1, 2, 3)
    await shop.pump()
    assert handed == [1, 2, 3]
    assert recorder.values(LOOP_LAG, kind="outbox:group:g") == []
    assert recorder.values(STUCK, kind="outbox:group:g") == []


async def test_a_sink_that_blocks_the_loop_longer_than_its_lease_loses_it_and_says_so(
    outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    handed: list[int] = []

    async def blocking(event: fp.Event[Any]) -> None:
        handed.append(event.body.n)
        if len(handed) == 2:
            clock.advance(8.0)

    shop = await running(outbox, outbox.relay("g", blocking, fp.ConsumerOptions(ttl=5.0)))
    await publish(outbox, "k", 1, 2, 3)
    await shop.pump()
    assert handed == [1, 2, 1, 2, 3]  # effects may repeat, and the signal says why
    (lag,) = recorder.values(LOOP_LAG, kind="outbox:group:g")
    assert 2.5 < lag <= 3.1


async def test_a_handler_slower_than_its_lease_keeps_its_partitions(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    """Found: after each slow batch its own leases had run out, which counted as a death of the process."""
    seen = Seen()

    async def slow(event: fp.Event[Any], tx: Transaction) -> None:
        clock.advance(8.0)
        await seen(event, tx)

    shop = await running(outbox, outbox.consumer("g", slow, fp.ConsumerOptions(ttl=5.0, batch=1)))
    await publish(outbox, "k", *range(8))
    await shop.pump()
    assert seen.ns == list(range(8))
    assert recorder.values(LOOP_LAG, kind="outbox:group:g") == []
    assert recorder.values(STUCK, kind="outbox:group:g") == []

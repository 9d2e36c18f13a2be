"""Events that only wait for an earlier one of their key are delivered together, and whatever happens, as if one by one."""

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Busy, Failed, OutcomeUnknown, StorageFailed
from faultproof.patterns.outbox.options import OnPoison
from faultproof.ports.database import Database, Transaction
from faultproof.signals import RETRY
from tests.fakes import Recorder, ShiftedClock, until
from tests.patterns.outbox.actors import quick
from tests.patterns.outbox.conftest import OpenOutbox
from tests.patterns.outbox.shop import Placed, Running, Seen, count, rows, running, write_effect
from tests.processes import running as process

pytestmark = pytest.mark.anyio

ACTORS = "tests.patterns.outbox.actors"
AN_HOUR = 3_600.0
both = pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])


class Line:
    """Events of one key, 0 to `last`, parked behind the first of them, which has failed once and is due in an hour."""

    def __init__(self, db: Database, outbox: fp.Outbox, clock: ShiftedClock, seen: Seen, shop: Running) -> None:
        self.db, self.outbox, self.clock, self.seen, self.shop = db, outbox, clock, seen, shop

    @property
    def consumer(self) -> Any:
        return self.shop.loops[1]

    async def go_on(self) -> None:
        """What made the first fail is mended."""
        self.seen.fails.pop(0, None)
        self.clock.advance(AN_HOUR)
        await self.shop.pump()

    async def parked(self) -> list[tuple[int, int, int, str | None]]:
        """`n`, attempts, whether dead, and error."""
        found = await rows(
            self.db,
            "SELECT payload ->> 'n', attempts, dead, error FROM faultproof_parked ORDER BY partition, offset",
        )
        return [(int(n), attempts, dead, error) for n, attempts, dead, error in found]


@pytest.fixture
def line(db: Database, outbox: fp.Outbox, clock: ShiftedClock) -> Callable[..., Any]:
    async def parked(last: int, *, relay: bool = False, **options: Any) -> Line:
        seen = Seen(fails={0: ValueError("not yet")})
        given = fp.ConsumerOptions(**{"backoff": AN_HOUR, "backoff_max": AN_HOUR, **options})
        consumer = outbox.relay("g", seen.sink, given) if relay else outbox.consumer("g", seen, given)
        shop = await running(outbox, consumer)
        await in_line(outbox, "k", range(last + 1))
        await shop.pump()
        assert seen.ns.count(0) == 1
        assert await count(db, "faultproof_parked") == last + 1
        seen.events.clear()
        return Line(db, outbox, clock, seen, shop)

    return parked


async def in_line(outbox: fp.Outbox, key: str, ns: range) -> None:
    async with outbox._database.transaction() as tx:
        for n in ns:
            await outbox.publish(Placed(key, n), key=key, tx=tx)


def transactions(db: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for each transaction that is begun from now on."""
    begun: list[str] = []

    def noting(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            begun.append(name)
            return inner(*arguments, **named)

        return noted

    for name in ("transact", "transaction"):
        monkeypatch.setattr(db, name, noting(name, getattr(db, name)))
    return begun


@both
async def test_hundreds_behind_a_failed_one_go_in_order_and_in_few_transactions(
    line: Callable[..., Any], recorder: Recorder, monkeypatch: pytest.MonkeyPatch, relay: bool
) -> None:
    last = 350
    waiting = await line(last, relay=relay)
    begun = transactions(waiting.db, monkeypatch)
    await waiting.go_on()
    assert waiting.seen.ns == list(range(last + 1))
    assert {event.attempt for event in waiting.seen.events[1:]} == {1}
    assert relay or await waiting.seen.effects(waiting.db) == list(range(last + 1))
    assert await waiting.parked() == []
    assert len(begun) < 20, "two for each batch of a hundred, and those of the first; not two for each event"
    assert recorder.values(RETRY) == [1]


@both
async def test_lines_of_several_keys_share_transactions(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, relay: bool
) -> None:
    waiting = await line(4, relay=relay)
    keys = range(1, 20)
    waiting.seen.fails |= {100 * key: ValueError("not yet") for key in keys}
    for key in keys:
        await in_line(waiting.outbox, f"k{key}", range(100 * key, 100 * key + 5))
    await waiting.shop.pump()
    waiting.seen.fails.clear()
    waiting.seen.events.clear()
    begun = transactions(waiting.db, monkeypatch)
    await waiting.go_on()
    for key in range(20):
        assert [n for n in waiting.seen.ns if n // 100 == key] == list(range(100 * key, 100 * key + 5))
    assert await waiting.parked() == []
    assert len(begun) < 2 * 20 + 20, "two for each that had failed; the eighty behind them share theirs"


# --- one of them fails ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("attempts", [1, 3])
async def test_one_that_fails_among_them_is_attempted_as_often_as_allowed_and_the_others_once(
    line: Callable[..., Any], relay: bool, attempts: int
) -> None:
    waiting = await line(9, relay=relay, attempts=attempts, batch=6)
    for letter in await waiting.outbox.dead_letters("g").list():  # the first of them, where it was allowed one attempt
        await waiting.outbox.dead_letters("g").replay(letter.id)
    waiting.seen.fails[4] = ValueError("wrong")
    await waiting.go_on()
    assert waiting.seen.ns.count(4) == 1
    assert [n for n, *_ in await waiting.parked()] == [4, 5, 6, 7, 8, 9]
    assert [row[1:] for row in await waiting.parked()][1:] == [(0, 0, None)] * 5
    for _ in range(attempts + 2):
        await waiting.go_on()
    assert waiting.seen.ns.count(4) == attempts
    (letter,) = await waiting.outbox.dead_letters("g").list()
    assert (letter.attempts, letter.error) == (attempts, "ValueError: wrong")
    assert await waiting.outbox.dead_letters("g").discard(letter.id)
    await waiting.shop.pump()
    calls = Counter(waiting.seen.ns)
    if relay:
        assert calls == Counter({**dict.fromkeys(range(10), 1), 4: attempts})
    else:
        assert await waiting.seen.effects(waiting.db) == [n for n in range(10) if n != 4]
        assert max(calls[n] for n in range(10) if n != 4) == 2, "those before it were undone with it"
    assert [n for n in waiting.seen.ns if n > 4] == [5, 6, 7, 8, 9]


async def test_one_that_ends_the_transaction_is_found_and_counted_once(
    db: Database, outbox: fp.Outbox, line: Callable[..., Any]
) -> None:
    waiting = await line(6, attempts=2)
    calls: list[int] = []

    async def handler(event: fp.Event[Placed], tx: Transaction) -> None:
        calls.append(event.body.n)
        await write_effect(event, tx)
        if event.body.n == 4:
            await tx.execute("ROLLBACK")

    waiting.consumer._delivery._handling._handler = handler
    await waiting.go_on()
    assert await waiting.seen.effects(db) == [0, 1, 2, 3]
    ((n, attempts, dead, error), *behind) = await waiting.parked()
    assert (n, attempts, dead, (error or "").partition(":")[0]) == (4, 1, 0, "NoTransaction")
    assert behind == [(5, 0, 0, None), (6, 0, 0, None)]
    await waiting.go_on()
    (letter,) = await outbox.dead_letters("g").list()
    assert letter.attempts == 2


@both
async def test_two_that_fail_one_of_them_not_at_once_lose_nothing(line: Callable[..., Any], relay: bool) -> None:
    waiting = await line(9, relay=relay)
    inner = waiting.seen.sink

    async def flaky(event: fp.Event[Any]) -> None:
        waiting.seen.fails.pop(2, None)
        if waiting.seen.ns.count(2):  # well at first, and not when it is repeated for the seventh
            waiting.seen.fails[2] = ValueError("flaky")
        await inner(event)

    waiting.seen.sink = flaky
    if relay:
        waiting.consumer._delivery._handling._sink = flaky
    waiting.seen.fails[7] = ValueError("no")
    await waiting.go_on()
    waiting.seen.sink = waiting.consumer._delivery._handling._sink = inner
    waiting.seen.fails.clear()
    await waiting.go_on()
    await waiting.go_on()
    assert await waiting.parked() == []
    if relay:
        assert Counter(waiting.seen.ns) == Counter({**dict.fromkeys(range(10), 1), 7: 2})
    else:
        assert await waiting.seen.effects(waiting.db) == list(range(10))


# --- not the event's fault --------------------------------------------------------------------------------------------


@both
async def test_try_again_among_them_is_not_counted_and_asked_again_when_it_said(
    line: Callable[..., Any], relay: bool
) -> None:
    waiting = await line(9, relay=relay, attempts=2)
    waiting.seen.fails[5] = Busy("later", retry_after=10.0)
    await waiting.go_on()
    for n in range(1, 5):
        assert waiting.seen.ns.count(5) == n
        assert 6 not in waiting.seen.ns
        assert [row[:3] for row in await waiting.parked()] == [(n, 0, 0) for n in range(5, 10)]
        waiting.clock.advance(9.0)
        await in_line(waiting.outbox, f"other-{n}", range(100 + n, 101 + n))
        await waiting.shop.pump()
        assert waiting.seen.ns[-1] == 100 + n
        waiting.clock.advance(2.0)
        await waiting.shop.pump()
    waiting.seen.fails.clear()
    await waiting.go_on()
    assert [n for n in waiting.seen.ns if 5 < n < 100] == [6, 7, 8, 9]
    assert {event.attempt for event in waiting.seen.events if event.body.n} == {1}
    if not relay:
        assert [n for n in await waiting.seen.effects(waiting.db) if n < 100] == list(range(10))
    assert await waiting.parked() == []


@both
@pytest.mark.parametrize("error", [OutcomeUnknown("lost"), StorageFailed("disk")], ids=repr)
async def test_trouble_of_the_database_among_them_is_not_counted_and_is_heard_of(
    line: Callable[..., Any], relay: bool, error: Exception
) -> None:
    waiting = await line(9, relay=relay, attempts=2)
    waiting.seen.fails[5] = error
    for calls in range(1, 5):
        with pytest.raises(type(error)):
            await waiting.go_on()
        await waiting.consumer.open()  # as its worker does
        assert waiting.seen.ns.count(5) == calls
        assert [row[:3] for row in await waiting.parked()] == [(n, 0, 0) for n in range(5, 10)]
    waiting.seen.fails.clear()
    await waiting.go_on()
    assert [n for n in waiting.seen.ns if n > 5] == [6, 7, 8, 9]
    if not relay:
        assert await waiting.seen.effects(waiting.db) == list(range(10))
    assert await waiting.parked() == []


async def test_a_transaction_that_is_not_to_be_had_costs_no_attempt_and_no_event(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await line(9)
    together = waiting.consumer._delivery.together
    asked: list[int] = []

    async def busy(taken: Any) -> Any:
        asked.append(len(taken))
        raise Busy("locked")

    monkeypatch.setattr(waiting.consumer._delivery, "together", busy)
    await waiting.go_on()
    monkeypatch.setattr(waiting.consumer._delivery, "together", together)
    await waiting.go_on()
    assert asked == [9]
    assert waiting.seen.ns == list(range(10))
    assert await waiting.seen.effects(waiting.db) == list(range(10))
    assert await waiting.parked() == []


async def test_slow_ones_share_a_transaction_only_as_long_as_others_can_wait_for_the_lock(
    line: Callable[..., Any],
) -> None:
    waiting = await line(9, ttl=6.0)
    handled: list[tuple[int, Transaction]] = []

    async def slow(event: fp.Event[Placed], tx: Transaction) -> None:
        waiting.clock.advance(1.5)
        handled.append((event.body.n, tx))
        await write_effect(event, tx)

    waiting.consumer._delivery._handling._handler = slow
    await waiting.go_on()
    assert [n for n, _ in handled] == list(range(10))
    shared = Counter(id(tx) for _, tx in handled)
    assert list(shared.values()) == [1, 2, 2, 2, 2, 1]
    assert await waiting.parked() == []


# --- those that stand in the line already ------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["key waits", "key goes on"])
async def test_a_dead_one_among_them_stops_them_or_not_as_chosen(line: Callable[..., Any], choice: OnPoison) -> None:
    waiting = await line(7, on_poison=choice)
    await rows(
        waiting.db,
        "UPDATE faultproof_parked SET dead = 1, attempts = 5, error = 'no' WHERE payload ->> 'n' = 4 RETURNING 1",
    )
    await waiting.go_on()
    before = [0, 1, 2, 3]
    assert waiting.seen.ns == (before if choice == "key waits" else [*before, 5, 6, 7])
    (letter,) = await waiting.outbox.dead_letters("g").list()
    assert await waiting.outbox.dead_letters("g").replay(letter.id)
    await waiting.go_on()
    assert waiting.seen.ns == ([*before, 4, 5, 6, 7] if choice == "key waits" else [*before, 5, 6, 7, 4])
    assert await waiting.seen.effects(waiting.db) == waiting.seen.ns
    assert await waiting.parked() == []


async def test_one_that_was_replayed_before_them_is_not_overtaken_by_those_that_are_not_due(
    line: Callable[..., Any],
) -> None:
    """As one by one: what is due goes, and those behind it wait for the earliest of their key."""
    waiting = await line(3, on_poison="key goes on", attempts=2)
    waiting.clock.advance(AN_HOUR)
    await waiting.shop.loops[1].step()  # the first is dead, the next is due
    (letter,) = await waiting.outbox.dead_letters("g").list()
    assert await waiting.outbox.dead_letters("g").replay(letter.id)
    await waiting.shop.pump()
    assert [n for n in waiting.seen.ns if n] == [1]
    await waiting.go_on()
    assert await waiting.seen.effects(waiting.db) == [1, 0, 2, 3]


# --- others meanwhile -------------------------------------------------------------------------------------------------


async def settle_elsewhere(db: Database, outbox: fp.Outbox, clock: ShiftedClock) -> None:
    await rows(db, "DELETE FROM faultproof_parked WHERE payload ->> 'n' = 3 RETURNING 1")


async def count_elsewhere(db: Database, outbox: fp.Outbox, clock: ShiftedClock) -> None:
    await rows(db, "UPDATE faultproof_parked SET attempts = 1 WHERE payload ->> 'n' = 3 RETURNING 1")


@pytest.mark.parametrize("meanwhile", [settle_elsewhere, count_elsewhere])
async def test_what_is_no_longer_as_it_was_taken_is_not_settled(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[..., Any]
) -> None:
    waiting = await line(5)
    delivery = waiting.consumer._delivery
    together = delivery.together

    async def later(taken: Any) -> Any:
        await meanwhile(waiting.db, waiting.outbox, waiting.clock)
        return await together(taken)

    monkeypatch.setattr(delivery, "together", later)
    waiting.seen.fails.clear()
    waiting.clock.advance(AN_HOUR)
    await waiting.consumer.step()
    rest = await waiting.consumer.step()
    assert rest > 0  # it was refused, and looks again
    assert await waiting.seen.effects(waiting.db) == [0]
    monkeypatch.setattr(delivery, "together", together)
    await waiting.go_on()
    expected = [n for n in range(6) if n != 3 or meanwhile is count_elsewhere]
    assert await waiting.seen.effects(waiting.db) == expected
    assert await waiting.parked() == []


@both
async def test_a_group_that_is_forgotten_meanwhile_settles_nothing(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, relay: bool
) -> None:
    waiting = await line(5, relay=relay)
    delivery = waiting.consumer._delivery
    together = delivery.together

    async def later(taken: Any) -> Any:
        await waiting.outbox.forget("g")
        return await together(taken)

    monkeypatch.setattr(delivery, "together", later)
    with pytest.raises(Failed, match="forgotten"):
        await waiting.go_on()
    assert relay or await waiting.seen.effects(waiting.db) == [0]


@both
async def test_a_process_that_lost_its_partitions_settles_nothing_and_its_successor_takes_each_alone(
    line: Callable[..., Any],
    open_outbox: OpenOutbox,
    monkeypatch: pytest.MonkeyPatch,
    recorder: Recorder,
    relay: bool,
) -> None:
    waiting = await line(5, relay=relay, batch=3)
    other = await open_outbox()
    after = Seen()
    options = fp.ConsumerOptions(batch=3)
    successor: Any = other.relay("g", after.sink, options) if relay else other.consumer("g", after, options)
    await successor.open()
    delivery = waiting.consumer._delivery
    together = delivery.together
    taken_over: list[int] = []

    async def later(taken: Any) -> Any:
        if not taken_over:
            taken_over.append(len(taken))
            await rows(waiting.db, "UPDATE faultproof_claim SET until_us = 0 RETURNING 1")
            await successor._leases.tend()
        return await together(taken)

    monkeypatch.setattr(delivery, "together", later)
    waiting.seen.fails.clear()
    waiting.clock.advance(AN_HOUR)
    while not taken_over:
        await waiting.consumer.step()
    assert relay or await waiting.seen.effects(waiting.db) == [0]
    marked = [error is not None for _, _, _, error in await waiting.parked()]
    assert marked == [True, True, True, False, False]
    before = len(recorder.values(RETRY))
    await (await running(other, successor)).pump()
    assert after.ns == [1, 2, 3, 4, 5]
    assert len(recorder.values(RETRY)) - before == 3, (
        "those that were under way alone, and counted; the others together"
    )
    assert relay or await after.effects(waiting.db) == list(range(6))
    assert await waiting.parked() == []


async def test_events_that_come_meanwhile_wait_their_turn(line: Callable[..., Any]) -> None:
    waiting = await line(20, batch=5)
    waiting.seen.fails.clear()
    waiting.clock.advance(AN_HOUR)
    for n in range(21, 41):
        await in_line(waiting.outbox, "k", range(n, n + 1))
        for loop in waiting.shop.loops:
            await loop.step()
    await waiting.shop.pump()
    assert await waiting.seen.effects(waiting.db) == list(range(41))
    assert await waiting.parked() == []


# --- processes that die -----------------------------------------------------------------------------------------------


async def test_one_that_kills_its_process_is_found_among_them_and_the_others_arrive(
    db: Database, outbox: fp.Outbox, line: Callable[..., Any], path: Path
) -> None:
    last, deadly, deaths = 17, 8, 0
    waiting = await line(last)
    for loop in waiting.shop.loops:
        await loop.close()
    async with db.transaction() as tx:  # the first is due now
        await tx.execute("UPDATE faultproof_parked SET due_us = 1 WHERE due_us IS NOT NULL")
    letters = outbox.dead_letters("g")
    while not await letters.list():
        async with process(ACTORS, "die", quick(path), deadly) as child:

            async def given_up(child: Any = child) -> bool:
                return bool(await letters.list()) or child.process.returncode is not None

            await until(given_up)
            if child.process.returncode is None:
                child.send(signal.SIGTERM)
            deaths += await child.ended() != 0
        assert deaths <= 1 + 2, "it kills for ever"
    assert deaths == 1 + 2, "once among others, and alone as often as it may be attempted"
    (letter,) = await letters.list()
    assert (f'"n":{deadly}' in letter.payload, letter.attempts) == (True, 3)
    assert (letter.error or "").startswith("its process died")
    assert await waiting.seen.effects(db) == list(range(deadly))
    assert await letters.discard(letter.id)

    async def settled() -> bool:
        return await count(db, "faultproof_parked") == 0

    async with process(ACTORS, "die", quick(path), deadly):
        await until(settled)
    assert await waiting.seen.effects(db) == [n for n in range(last + 1) if n != deadly]

"""Whose fault a failure is: the event's, its neighbour's, the database's, or that of whoever is slow."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import DiskFull
from faultproof.ports.database import Database, Transaction
from faultproof.signals import STUCK
from tests.fakes import Recorder, ShiftedClock, within
from tests.patterns.outbox.shop import Placed, rows, running, write_effect

pytestmark = pytest.mark.anyio


async def test_a_handler_that_outlives_its_lease_and_fails_is_to_blame_and_no_other(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock, recorder: Recorder
) -> None:
    calls: list[int] = []

    async def handler(event: fp.Event[Placed], tx: Transaction) -> None:
        calls.append(event.body.n)
        if event.body.n == 3:
            clock.advance(60)  # much longer than the lease
            raise ValueError("slow and wrong")
        await write_effect(event, tx)

    shop = await running(outbox, outbox.consumer("g", handler, fp.ConsumerOptions(attempts=2, backoff=1.0)))
    for n in (1, 2, 3):
        await outbox.publish(Placed("k", n), key="k")
    await shop.pump()
    clock.advance(10)
    await shop.pump()
    (letter,) = await outbox.dead_letters("g").list()
    assert (letter.attempts, letter.error) == (2, "ValueError: slow and wrong")
    assert calls.count(3) == 2
    assert calls.count(1) <= 2, "those before it are repeated once, with the rolled back transaction"
    assert await rows(db, "SELECT n FROM effect ORDER BY n") == [(1,), (2,)]
    assert recorder.values(STUCK) == []


async def test_a_handler_that_ends_the_transaction_is_to_blame_and_the_others_go_on(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    async def handler(event: fp.Event[Placed], tx: Transaction) -> None:
        await write_effect(event, tx)
        if event.body.n == 2:
            await tx.execute("ROLLBACK")

    shop = await running(outbox, outbox.consumer("g", handler, fp.ConsumerOptions(attempts=1)))
    for n in (1, 2, 3, 4):
        await outbox.publish(Placed("k", n), key=f"k{n}")
    await shop.pump()
    letters = await outbox.dead_letters("g").list()
    assert [(letter.key, (letter.error or "").partition(":")[0]) for letter in letters] == [("k2", "NoTransaction")]
    assert await rows(db, "SELECT n FROM effect ORDER BY n") == [(1,), (3,), (4,)]


async def forgets_to_await(tx: Transaction) -> None:
    tx.execute("INSERT INTO orders (id, n) VALUES ('half', 1)")


async def commits(tx: Transaction) -> None:
    await tx.execute("COMMIT")


async def rolls_back(tx: Transaction) -> None:
    await tx.execute("ROLLBACK")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    ("end", "said"),
    [
        (forgets_to_await, "Misuse"),
        (commits, "NoTransaction"),
        (rolls_back, "NoTransaction"),
    ],
)
async def test_a_retry_whose_transaction_cannot_be_ended_counts_as_the_first_attempt_did(
    db: Database,
    outbox: fp.Outbox,
    clock: ShiftedClock,
    recorder: Recorder,
    end: Callable[[Transaction], Awaitable[None]],
    said: str,
) -> None:
    """Found: the error left the step, all partitions were doubted, and nothing was written down but the attempt."""
    attempts: list[int] = []

    async def handler(event: fp.Event[Placed], tx: Transaction) -> None:
        await tx.execute("INSERT INTO orders (id, n) VALUES ('tried', ?)", event.body.n)
        if event.body.n == 1:
            attempts.append(event.attempt)
            await end(tx)

    shop = await running(outbox, outbox.consumer("g", handler, fp.ConsumerOptions(attempts=3, backoff=1.0)))
    await outbox.publish(Placed("k", 1), key="k")
    await shop.pump()
    for n in (2, 3):
        clock.advance(2.0 * n)  # the back-off, and not the `timeout` of an attempt that nobody has heard of again
        await outbox.publish(Placed("other", n), key=f"other-{n}")
        await shop.pump()
    (letter,) = await outbox.dead_letters("g").list()
    assert (letter.attempts, (letter.error or "").partition(":")[0]) == (3, said)
    assert sorted(set(attempts)) == [1, 2, 3]
    assert {(2,), (3,)} <= set(await rows(db, "SELECT n FROM orders"))
    assert recorder.values(STUCK) == []


async def test_a_full_disk_under_a_handler_is_not_counted_against_the_event(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    async def handler(event: fp.Event[Placed], tx: Transaction) -> None:
        await tx.execute("INSERT INTO effect (key) VALUES (?)", "x" * 5_000_000)

    async with db.transaction() as tx:
        ((pages,),) = await tx.fetch("PRAGMA page_count")
        await tx.fetch(f"PRAGMA max_page_count = {pages + 20}")
    await outbox.publish(Placed("k", 1), key="k")
    shop = await running(outbox, outbox.consumer("g", handler, fp.ConsumerOptions(attempts=1)))
    with pytest.raises(DiskFull):
        await shop.pump()
    assert await outbox.dead_letters("g").list() == []
    assert await rows(db, "SELECT attempts FROM faultproof_parked") == []


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


async def test_an_error_without_words_and_a_second_failure_in_a_batch_park_their_events(
    db: Database, outbox: fp.Outbox, clock: ShiftedClock
) -> None:
    calls: list[int] = []

    async def handler(event: fp.Event[Placed], tx: Transaction) -> None:
        calls.append(event.body.n)
        if event.body.n == 4:
            raise Unspeakable
        if event.body.n == 2 and calls.count(2) > 1:  # well in the batch, and not when it is repeated for the fourth
            raise ValueError("flaky")
        await write_effect(event, tx)

    shop = await running(outbox, outbox.consumer("g", handler, fp.ConsumerOptions(attempts=1)))
    for n in (1, 2, 3, 4, 5):
        await outbox.publish(Placed("k", n), key=f"k{n}")
    await shop.pump()
    dead = {letter.key for letter in await outbox.dead_letters("g").list()}
    assert "k4" in dead
    assert dead <= {"k2", "k4"}
    effects = [n for (n,) in await rows(db, "SELECT n FROM effect ORDER BY n")]
    assert sorted(effects + [int(key[1]) for key in dead if key]) == [1, 2, 3, 4, 5]


class Odd(BaseException):
    """No `Exception`: what test tools and other event loops raise."""


async def cancels_itself() -> None:
    own_task().cancel()
    await asyncio.sleep(0)


async def leaves_its_cancel_behind() -> None:
    own_task().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    other = asyncio.get_running_loop().create_future()
    other.cancel()
    await other


async def is_odd() -> None:
    raise Odd


def own_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@pytest.mark.parametrize("act", [cancels_itself, leaves_its_cancel_behind, is_odd])
@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_what_a_handler_does_to_its_own_task_counts_against_the_event_alone(
    db: Database,
    outbox: fp.Outbox,
    clock: ShiftedClock,
    recorder: Recorder,
    act: Callable[[], Awaitable[None]],
    relay: bool,
) -> None:
    """Found: a relay's loop restarted for ever and the partition stood still; an inbox's ended the whole worker."""
    done: list[int] = []

    async def handler(event: fp.Event[Placed], tx: Transaction | None = None) -> None:
        if event.body.n == 1:
            await act()
        done.append(event.body.n)

    options = fp.ConsumerOptions(attempts=2, backoff=1.0)
    shop = await running(outbox, (outbox.relay if relay else outbox.consumer)("g", handler, options))
    await outbox.publish(Placed("k", 1), key="k")
    for n in (2, 3):
        await outbox.publish(Placed("other", n), key=f"other-{n}")
        await shop.pump()
        clock.advance(2.0)
    await shop.pump()
    (letter,) = await outbox.dead_letters("g").list()
    assert letter.attempts == 2
    assert (letter.error or "").partition(":")[0] == ("Odd" if act is is_odd else "CancelledError")
    assert set(done) == {2, 3}
    assert own_task().cancelling() == 0
    assert recorder.values(STUCK) == []


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_a_cancel_from_outside_is_not_the_event_s_failure(db: Database, outbox: fp.Outbox, relay: bool) -> None:
    inside, ends = asyncio.Event(), []

    async def handler(event: fp.Event[Placed], tx: Transaction | None = None) -> None:
        inside.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends.append(event.body.n)

    shop = await running(outbox, (outbox.relay if relay else outbox.consumer)("g", handler))
    await outbox.publish(Placed("k", 1), key="k")
    task = asyncio.create_task(shop.pump())
    await within(inside.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert ends == [1], "it has ended before its caller"
    assert await rows(db, "SELECT attempts FROM faultproof_parked") == []

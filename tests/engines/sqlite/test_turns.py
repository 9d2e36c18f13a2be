"""Transactions of one process take turns: the wait is bounded, and whoever is interrupted leaves the turn to the next."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

import faultproof.engines.sqlite.database as sqlite_database
from faultproof.engines.sqlite.database import LOCK_TIMEOUT_S, SqliteDatabase
from faultproof.errors import Busy, TransactionOpen, TryAgain
from faultproof.ports.script import Script, Wake, sql
from tests.children import WAIT_S
from tests.fakes import until

pytestmark = pytest.mark.anyio


@sql("INSERT INTO orders (item) VALUES (:item)")
def insert(item: str) -> None: ...


@sql("SELECT item FROM orders ORDER BY item")
def items() -> list[str]: ...


@pytest.fixture
async def orders(db: SqliteDatabase) -> SqliteDatabase:
    """A database with a table of the test's own."""
    async with db.transaction() as tx:
        await tx.execute("CREATE TABLE orders (item TEXT)")
    return db


class Held:
    """A transaction that another task of this process keeps open."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._db = db
        self._opened = asyncio.Event()
        self._over = asyncio.Event()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._hold())
        await self._opened.wait()

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._task

    async def _hold(self) -> None:
        async with self._db.transaction() as tx:
            await tx.run(insert("held"))
            self._opened.set()
            await self._over.wait()


async def test_commit_whose_caller_is_cancelled_wakes_all_the_same(orders: SqliteDatabase) -> None:
    news = orders.changed("orders")

    def place() -> Script[None]:
        yield from insert("apple")
        yield Wake("orders")

    async def in_a_block() -> None:
        async with orders.transaction() as tx:
            await tx.run(place())

    async def at_once() -> None:
        await orders.transact(place())

    async def count() -> int:
        return len(await orders.read(items()))

    for work in (in_a_block, at_once):
        for moments in range(40):
            before = await count()
            task = asyncio.create_task(work())
            for _ in range(moments):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await orders.transact(insert("after"))  # by now the other has committed or not
            if await count() == before + 2:
                assert await news.wait(WAIT_S) is True


async def test_second_transaction_of_a_task_is_refused_when_it_is_entered_too(orders: SqliteDatabase) -> None:
    first, second = orders.transaction(), orders.transaction()
    async with first as tx:
        with pytest.raises(TransactionOpen):
            await second.__aenter__()
        await tx.run(insert("apple"))
    assert await orders.read(items()) == ["apple"]


async def test_time_that_a_transaction_may_be_open_begins_when_it_does(orders: SqliteDatabase) -> None:
    made = orders.transaction(timeout=0.5)
    await asyncio.sleep(0.6)  # sleeps: what is shown is that this time does not count
    async with made as tx:
        await tx.run(insert("apple"))
    assert await orders.read(items()) == ["apple"]


async def test_turn_that_does_not_come_is_busy_and_nothing_happened(
    orders: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def script() -> Script[None]:
        begun.append(1)
        yield from insert("never")

    async def write() -> None:
        async with orders.transaction() as tx:
            await tx.run(script())

    monkeypatch.setattr(sqlite_database, "LOCK_TIMEOUT_S", 0.05)
    async with asyncio.timeout(WAIT_S):
        async with Held(orders):
            calls = [orders.transact(script()), write(), orders.transact(script())]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Busy] * 3
            assert all(isinstance(outcome, Busy) and outcome.retry_after == 0.05 for outcome in outcomes)
            assert "other transactions of this process" in str(outcomes[0])
        assert begun == []
        assert not orders.in_transaction()
        await orders.transact(insert("next"))  # nobody who gave up holds the turn
    assert await orders.read(items()) == ["held", "next"]


async def test_transaction_waits_for_its_turn_no_longer_than_it_may_be_open(orders: SqliteDatabase) -> None:
    loop = asyncio.get_running_loop()
    async with Held(orders):
        asked = loop.time()
        with pytest.raises(Busy):
            await orders.transaction(timeout=0.02).__aenter__()
        assert loop.time() - asked < LOCK_TIMEOUT_S
    async with orders.transaction(timeout=WAIT_S) as tx:
        assert await tx.run(items()) == ["held"]


async def test_turn_that_comes_in_time_is_waited_for_in_order(orders: SqliteDatabase) -> None:
    done: list[str] = []

    async def write(item: str) -> None:
        await orders.transact(insert(item))
        done.append(item)

    async with Held(orders):
        waiting = [asyncio.create_task(write(f"{n}")) for n in range(5)]
        await asyncio.sleep(0)
        assert done == []
    await asyncio.gather(*waiting)
    assert done == [f"{n}" for n in range(5)]


async def test_ten_thousand_cancels_at_any_moment_leave_no_turn_and_no_transaction_behind(
    orders: SqliteDatabase, path: Path
) -> None:
    rng, cancels = random.Random(3), 0
    committed: set[str] = set()
    refused: set[str] = set()

    async def interactive(item: str, timeout: float) -> None:
        async with orders.transaction(timeout=timeout) as tx:
            await tx.run(insert(item))
            await tx.fetch("SELECT 1")

    async def call(item: str) -> None:
        kind = rng.randrange(4)
        if kind == 0:
            await orders.read(items())
            return
        await (orders.transact(insert(item)) if kind == 1 else interactive(item, (0.0005, WAIT_S)[kind - 2]))
        committed.add(item)

    async def interrupted(name: int) -> None:
        nonlocal cancels
        for n in range(200):
            task = asyncio.create_task(call(f"{name}.{n}"))
            if n % 2:  # while it queues
                for _ in range(rng.randrange(12)):
                    await asyncio.sleep(0)
            else:  # while it has its turn, or nearly
                await asyncio.wait([task], timeout=rng.random() * 0.1)
            task.cancel()
            cancels += 1
            if rng.random() < 0.2:  # and once more while it cleans up
                await asyncio.sleep(0)
                task.cancel()
            with suppress(asyncio.CancelledError):
                try:
                    await task
                except TryAgain:  # no turn, or open for too long: either way nothing happened
                    refused.add(f"{name}.{n}")

    async with asyncio.timeout(WAIT_S * 3):
        await asyncio.gather(*(interrupted(name) for name in range(50)))
        assert cancels == 10_000
        await orders.transact(insert("last"))  # behind what the last one cancelled is still rolling back
        await until(lambda: not orders._gate.locked())  # the checkpointer may have it behind a commit
        assert not await orders._writer.call(lambda connection: connection.raw.in_transaction)
        assert not await orders._reader.call(lambda connection: connection.raw.in_transaction)
        stored = await orders.read(items())
        assert len(stored) == len(set(stored))
        assert committed < set(stored)
        assert refused
        assert not refused & set(stored)
        await orders.close()
    for lane in (orders._writer, orders._reader):
        lane._thread.join(WAIT_S)  # type: ignore[attr-defined]
        assert not lane._thread.is_alive()  # type: ignore[attr-defined]
    assert not Path(f"{path}-wal").exists()

"""Synchronous code: joined transactions on the driver itself, everything else through one background loop."""

import asyncio
import gc
import math
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Closed, InvalidInput, Misuse, OutcomeUnknown, UsedAfterFork
from tests.children import WAIT_S


@pytest.fixture
def blocking() -> Iterator[fp.Blocking]:
    with fp.Blocking(timeout=20) as made:
        yield made


def test_a_synchronous_service_publishes_in_its_own_transaction_and_reads_the_lag(
    blocking: fp.Blocking, tmp_path: Path
) -> None:
    path = str(tmp_path / "shop.db")
    db = blocking.call(fp.connect, path)
    outbox = fp.Outbox(db, events={"placed": dict})
    blocking.call(outbox.install)
    mine = sqlite3.connect(path)
    mine.execute("CREATE TABLE orders (id)")
    for ending in (mine.commit, mine.rollback):
        mine.execute("INSERT INTO orders VALUES (1)")
        outbox.publish({"n": 1}, key="k", type="placed", tx=fp.join(mine))
        ending()
    mine.close()
    blocking.call(outbox.publish, {"n": 2}, key="k", type="placed")
    assert blocking.call(outbox.lag).events == 2
    blocking.call(db.close)


def test_calls_from_many_threads_share_transactions(blocking: fp.Blocking, tmp_path: Path) -> None:
    db = blocking.call(fp.connect, str(tmp_path / "shop.db"))
    outbox = fp.Outbox(db, events={"placed": dict})
    blocking.call(outbox.install)
    threads = [
        threading.Thread(target=lambda n=n: blocking.call(outbox.publish, {"n": n}, key="k", type="placed"))  # type: ignore[misc]
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert blocking.call(outbox.lag).events == 20
    blocking.call(db.close)


def test_what_a_call_raises_reaches_the_caller(blocking: fp.Blocking) -> None:
    async def fail() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        blocking.call(fail)
    with pytest.raises(InvalidInput, match="mysql"):
        blocking.call(fp.connect, "mysql://shop")


def test_a_call_that_takes_too_long_is_cancelled_and_unknown() -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    with fp.Blocking(timeout=0.05) as blocking, pytest.raises(OutcomeUnknown, match=r"0\.05 s"):
        blocking.call(hang)
    assert cancelled.wait(10)


def test_closing_cancels_what_still_runs_and_refuses_the_rest() -> None:
    ended = threading.Event()
    blocking = fp.Blocking(timeout=10)

    async def start() -> None:
        async def forever() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        blocking.kept = asyncio.create_task(forever())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    blocking.call(start)
    blocking.close()
    assert ended.is_set()
    with pytest.raises(Closed):
        blocking.call(start)
    blocking.close()


def test_callers_that_race_with_close_are_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what tests before this one have left is not ours
    caplog.clear()
    ended: list[BaseException | None] = []

    def until_refused(blocking: fp.Blocking, started: threading.Semaphore) -> None:
        error: BaseException | None = None
        while error is None:
            try:
                blocking.call(asyncio.sleep, 0)
                started.release()
            except BaseException as raised:
                error = raised
        ended.append(error)

    for _ in range(30):
        blocking, started = fp.Blocking(timeout=WAIT_S), threading.Semaphore(0)
        callers = [threading.Thread(target=until_refused, args=(blocking, started)) for _ in range(8)]
        for caller in callers:
            caller.start()
        started.acquire()
        blocking.close()
        for caller in callers:
            caller.join(WAIT_S / 2)
            assert not caller.is_alive()
    assert len(ended) == 240
    assert {type(error) for error in ended} <= {Closed, OutcomeUnknown}
    gc.collect()
    assert caplog.messages == []


def test_call_that_close_cuts_off_is_unknown_and_has_cleaned_up() -> None:
    blocking, running, cleaned = fp.Blocking(timeout=WAIT_S), threading.Event(), threading.Event()

    async def hang() -> None:
        running.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)  # which a second cancel would interrupt
            cleaned.set()

    def cut_off() -> None:
        with pytest.raises(OutcomeUnknown, match="closed"):
            blocking.call(hang)
        told.set()

    told = threading.Event()
    caller = threading.Thread(target=cut_off)
    caller.start()
    assert running.wait(WAIT_S)
    blocking.close()
    caller.join(WAIT_S / 2)
    assert told.is_set()
    assert cleaned.is_set()


def test_closes_of_several_threads_wait_for_the_first_and_all_succeed() -> None:
    for _ in range(10):
        blocking = fp.Blocking(timeout=WAIT_S)
        with ThreadPoolExecutor(4) as pool:
            closings = [pool.submit(blocking.close) for _ in range(4)]
            for closing in closings:
                closing.result(WAIT_S / 2)
        assert not blocking._thread.is_alive()


def test_close_says_what_keeps_it_waiting_and_can_be_called_again() -> None:
    blocking, blocked, over = fp.Blocking(timeout=0.05), threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        over.wait(WAIT_S)

    with pytest.raises(OutcomeUnknown):
        blocking.call(block)
    assert blocked.is_set()
    with pytest.raises(OutcomeUnknown, match=r"0\.05 s"):
        blocking.close()
    over.set()
    blocking._thread.join(WAIT_S)
    blocking.close()


def test_close_on_its_own_thread_is_refused(blocking: fp.Blocking) -> None:
    async def inside() -> None:
        with pytest.raises(Misuse, match="own thread"):
            blocking.close()

    blocking.call(inside)
    blocking.call(asyncio.sleep, 0)


def test_its_own_thread_and_a_forked_child_are_told(blocking: fp.Blocking) -> None:
    async def inside() -> None:
        with pytest.raises(Misuse, match="await"):
            blocking.call(asyncio.sleep, 0)

    blocking.call(inside)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            blocking.call(asyncio.sleep, 0)
        except UsedAfterFork:
            os.write(writing, b"told")
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"told"
    os.close(reading)


def test_what_was_made_on_it_is_used_through_it_and_nowhere_else(blocking: fp.Blocking, tmp_path: Path) -> None:
    db = blocking.call(fp.connect, str(tmp_path / "shop.db"))
    outbox = fp.Outbox(db, events={"placed": dict})
    blocking.call(outbox.install)

    async def publish() -> None:
        await outbox.publish({"n": 1}, key="k", type="placed")

    with pytest.raises(Misuse, match="Blocking"):
        asyncio.run(publish())
    with fp.Blocking(timeout=20) as another, pytest.raises(Misuse, match="event loop"):
        another.call(publish)
    assert blocking.call(outbox.lag).events == 0
    blocking.call(publish)
    assert blocking.call(outbox.lag).events == 1
    blocking.call(db.close)


def test_a_database_that_was_forgotten_in_it_can_still_be_closed(tmp_path: Path) -> None:
    with fp.Blocking(timeout=20) as blocking:
        db = blocking.call(fp.connect, str(tmp_path / "shop.db"))
        blocking.call(fp.Outbox(db, events={}).install)
    with fp.Blocking(timeout=20) as another:
        with pytest.raises(Misuse, match="event loop"):
            another.call(db.health)
        another.call(db.close)
    assert not (tmp_path / "shop.db-wal").exists()


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan, "60", True], ids=repr)
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    threads = threading.active_count()
    with pytest.raises(InvalidInput, match="`timeout` must be"):
        fp.Blocking(timeout=timeout)
    assert threading.active_count() == threads

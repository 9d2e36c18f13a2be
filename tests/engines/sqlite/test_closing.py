"""Closing: whoever interrupts it, calling again finishes it; and another event loop may, once the first is gone."""

import asyncio
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import faultproof
import faultproof.engines.sqlite.connection as connection_module
from faultproof.engines.sqlite import open_database
from faultproof.engines.sqlite.connection import Connection
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.errors import Closed
from tests.children import WAIT_S
from tests.engines.sqlite.conftest import Open
from tests.fakes import until

pytestmark = pytest.mark.anyio


def released(db: SqliteDatabase, path: Path) -> None:
    """No thread, no socket, no connection is left."""
    for lane in (db._writer, db._reader):
        lane._thread.join(WAIT_S)  # type: ignore[attr-defined]
        assert not lane._thread.is_alive()  # type: ignore[attr-defined]
    assert db._wakeups._socket is None  # type: ignore[attr-defined]
    assert os.listdir(f"{path}-wake") == []
    # The last connection takes the log with it; it could not if one of ours were still open.
    assert not Path(f"{path}-wal").exists()


async def busy(db: SqliteDatabase, name: str, until: threading.Event) -> None:
    """A lane that is held up until then."""
    started = threading.Event()

    def wait(connection: Connection) -> None:
        started.set()
        until.wait(WAIT_S)

    asyncio.get_running_loop().create_task(getattr(db, name).call(wait))
    await asyncio.to_thread(started.wait, WAIT_S)


@pytest.mark.parametrize("lane", ["_writer", "_reader"])
@pytest.mark.parametrize("moments", range(4))
async def test_close_that_was_cancelled_is_finished_by_the_next(
    connect: Open, path: Path, lane: str, moments: int
) -> None:
    db, over = await connect(), threading.Event()
    db.changed("topic")
    await db.install(db.claims.schema)
    await busy(db, lane, over)
    for _ in range(2):
        closing = asyncio.create_task(db.close())
        for _ in range(moments):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    over.set()
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(db.close(), db.close())
        await db.close()
    released(db, path)
    with pytest.raises(Closed):
        await db.read(db.claims.holders("job"))


async def test_close_that_was_cancelled_at_its_very_last_wait_is_finished_by_the_next(
    connect: Open, path: Path
) -> None:
    db, over = await connect(), threading.Event()
    db.changed("topic")
    await busy(db, "_reader", over)
    async with asyncio.timeout(WAIT_S):
        closing = asyncio.create_task(db.close())
        await until(lambda: db._reader._closed)  # type: ignore[attr-defined]
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        over.set()
        await db.close()
    released(db, path)


async def test_close_that_nobody_repeats_after_a_cancel_leaves_nothing_open_either(path: Path) -> None:
    left: list[SqliteDatabase] = []

    async def use(leaving: asyncio.Event) -> None:
        async with faultproof.connect(path) as db:
            db.changed("topic")
            left.append(db)  # type: ignore[arg-type]
            leaving.set()

    for moments in range(8):
        leaving = asyncio.Event()
        user = asyncio.create_task(use(leaving))
        await leaving.wait()
        for _ in range(moments):
            await asyncio.sleep(0)
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
    for db in left:
        await asyncio.to_thread(db._writer._thread.join, WAIT_S)  # type: ignore[attr-defined]
        await asyncio.to_thread(db._reader._thread.join, WAIT_S)  # type: ignore[attr-defined]
    assert len(left) == 8
    released(left[-1], path)
    assert not is_open(path)


def is_open(path: Path) -> bool:
    return any(one.name == str(path) for one in connection_module._open)


def test_connect_that_was_cancelled_leaves_nothing_open(path: Path) -> None:
    async def cancelled(moments: int) -> None:
        connecting = asyncio.ensure_future(open_database(str(path), env=faultproof.Env()))
        for _ in range(moments):
            await asyncio.sleep(0)
        connecting.cancel()
        with suppress(asyncio.CancelledError):
            await (await connecting).close()  # the thread was quicker

    for moments in range(6):
        asyncio.run(cancelled(moments))  # which waits for the threads
        assert not is_open(path)


def test_loop_that_ended_amid_connect_leaves_nothing_open(path: Path) -> None:
    async def left(moments: int) -> None:
        connecting = asyncio.ensure_future(open_database(str(path), env=faultproof.Env()))
        connecting.add_done_callback(made.append)
        for _ in range(moments):
            await asyncio.sleep(0)

    made: list[asyncio.Future[SqliteDatabase]] = []
    for moments in range(4):
        asyncio.run(left(moments))
        if not made[-1].cancelled():  # the thread was quicker
            asyncio.run(made[-1].result().close())
        assert not is_open(path)


async def test_close_waits_for_what_runs_also_when_it_is_called_twice(connect: Open) -> None:
    db, over = await connect(), threading.Event()
    await busy(db, "_writer", over)
    closings = [asyncio.create_task(db.close()) for _ in range(2)]
    done, _ = await asyncio.wait(closings, timeout=0.05)
    assert not done
    over.set()
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*closings)


async def test_file_in_place_of_the_sockets_does_not_keep_it_from_closing(connect: Open, path: Path) -> None:
    db = await connect()
    await db.install(db.claims.schema)
    db.changed("topic")
    wake = Path(f"{path}-wake")
    for name in os.listdir(wake):
        (wake / name).unlink()
    wake.rmdir()
    wake.write_text("somebody else's")
    await db.close()
    assert wake.read_text() == "somebody else's"
    wake.unlink()
    wake.mkdir()
    released(db, path)


def test_loop_that_ended_amid_a_transaction_leaves_a_database_that_another_one_closes(path: Path) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> SqliteDatabase:
        db = await open_database(str(path), env=faultproof.Env())
        await db.install(db.claims.schema)
        listening = asyncio.create_task(db.changed("topic").wait(WAIT_S))
        opened = db.transaction()
        await (await opened.__aenter__()).run(db.claims.add("job", ["never"]))
        abandoned.extend([opened, listening])
        return db

    abandoned: list[object] = []
    db = loop.run_until_complete(begin())
    loop.close()
    with sqlite3.connect(path, timeout=0) as raw, pytest.raises(sqlite3.OperationalError, match="locked"):
        raw.execute("BEGIN IMMEDIATE")
    raw.close()
    asyncio.run(db.close())
    released(db, path)
    raw = sqlite3.connect(path, timeout=0)
    assert raw.execute("SELECT count(*) FROM faultproof_claim").fetchall() == [(0,)]
    raw.close()

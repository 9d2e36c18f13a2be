"""The write-ahead log stays bounded, and no checkpoint meets a commit."""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from faultproof.engines.sqlite import checkpoint
from faultproof.engines.sqlite.checkpoint import COMMITS_MAX, Checkpointer
from faultproof.engines.sqlite.connection import Connection
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.ports.script import Script, sql
from tests.engines.sqlite.conftest import Open

pytestmark = pytest.mark.anyio


@sql("INSERT INTO orders (item) VALUES (:item)")
def insert(item: str) -> None: ...


@sql("INSERT INTO orders (item) SELECT value FROM {items}")
def insert_all(items: Sequence[str]) -> None: ...


@pytest.fixture
async def orders(db: SqliteDatabase, path: Path) -> SqliteDatabase:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("CREATE TABLE orders (item TEXT)")
    raw.close()
    return db


def wal_bytes(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


class Watched:
    """The checkpointing connection, with an eye on what is true while it works."""

    def __init__(self, raw: sqlite3.Connection, path: Path) -> None:
        self._raw = raw
        self._path = path
        self.checkpoints = 0
        self.locked: list[bool] = []

    def execute(self, text: str) -> sqlite3.Cursor:
        self.checkpoints += 1
        other = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            self.locked.append(False)
        except sqlite3.OperationalError:
            self.locked.append(True)
        finally:
            other.close()
        return self._raw.execute(text)

    def close(self) -> None:
        self._raw.close()


def watch(db: SqliteDatabase, path: Path) -> Watched:
    assert db._checkpointer is not None
    connection: Any = db._checkpointer._connection
    connection.raw = Watched(connection.raw, path)
    watched: Watched = connection.raw
    return watched


async def settled(db: SqliteDatabase) -> None:
    """Return when the checkpoint that is under way, if any, has ended."""
    assert db._checkpointer is not None
    if db._checkpointer._running is not None:
        await db._checkpointer._running


async def test_log_stays_bounded_under_many_commits_and_every_checkpoint_holds_the_write_lock(
    orders: SqliteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = COMMITS_MAX // 4  # the same in a quarter of the time
    monkeypatch.setattr(checkpoint, "COMMITS_MAX", most)
    watched = watch(orders, path)
    largest = 0
    async with asyncio.timeout(120):
        for n in range(5_000):
            await orders.transact(insert(f"order {n}"))
            if n % 100 == 0:
                largest = max(largest, wal_bytes(path))
    await settled(orders)
    assert watched.checkpoints >= 5_000 // (most + 100)
    assert all(watched.locked)
    # Each commit here writes two or three pages; without any checkpoint the log would be ten times as long.
    assert largest < 3 * most * 3 * 4_200
    assert orders._checkpointer is not None


async def test_few_large_commits_are_checkpointed_too(
    orders: SqliteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "ROWS_MAX", 5_000)
    watched = watch(orders, path)
    for _ in range(100):
        await orders.transact(insert_all([f"{n}" for n in range(200)]))
    await settled(orders)
    assert watched.checkpoints >= 1
    assert all(watched.locked)


async def test_what_was_checkpointed_is_in_the_file_itself(
    orders: SqliteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "COMMITS_MAX", 50)
    for n in range(50):  # the fixtures' commits were counted too
        await orders.transact(insert(f"order {n}"))
    await settled(orders)
    copy = path.with_name("copy.db")  # without the log
    copy.write_bytes(path.read_bytes())
    raw = sqlite3.connect(copy)
    try:
        assert raw.execute("SELECT count(*) FROM orders").fetchone()[0] >= 45
    finally:
        raw.close()


async def test_checkpoint_that_cannot_have_the_lock_is_tried_again_later(
    orders: SqliteDatabase, path: Path, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "COMMITS_MAX", 50)
    watched = watch(orders, path)
    other = await connect()
    assert orders._checkpointer is not None
    async with other.transaction():
        await orders._checkpointer._run(orders._writer, orders._gate)
        orders._checkpointer._commits = 50
        await orders._checkpointer._run(orders._writer, orders._gate)
        assert watched.checkpoints == 0
    await orders._checkpointer._run(orders._writer, orders._gate)
    assert watched.checkpoints == 1


async def test_failing_checkpoint_hurts_no_commit_and_says_nothing_untrue(
    orders: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def execute(self, text: str) -> sqlite3.Cursor:
            raise sqlite3.OperationalError("disk I/O error")

        def close(self) -> None:
            real.close()

    monkeypatch.setattr(checkpoint, "COMMITS_MAX", 50)
    assert orders._checkpointer is not None
    connection: Any = orders._checkpointer._connection
    real = connection.raw
    connection.raw = Failing()
    for n in range(120):
        await orders.transact(insert(f"order {n}"))
    await settled(orders)
    assert orders._checkpointer._commits >= 50  # it is still due


async def test_close_in_the_moment_of_a_checkpoint_is_quiet(connect: Open, orders: SqliteDatabase) -> None:
    """A task that fails without anybody looking would be an error of this test run."""
    for offset in (0, 1):
        db = await connect()
        assert db._checkpointer is not None
        db._checkpointer._commits = COMMITS_MAX - 1
        await db.transact(insert("the one that makes it due"))
        for _ in range(offset):
            await asyncio.sleep(0)
        await db.close()
        await settled(db)


async def test_health_names_a_long_log_and_a_library_with_the_reset_bug(
    orders: SqliteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def big(connection: Connection) -> None:
        connection.raw.execute("BEGIN IMMEDIATE")
        connection.raw.execute("INSERT INTO orders VALUES (zeroblob(300000))")
        connection.raw.execute("COMMIT")

    monkeypatch.setattr(checkpoint, "FIXED_IN", (3, 0, 0))
    assert (await orders.health()).warnings == ()
    monkeypatch.setattr(checkpoint, "WAL_WARN_BYTES", 200_000)
    await orders._writer.call(big)
    (warning,) = (await orders.health()).warnings
    assert "write-ahead log" in warning
    monkeypatch.setattr(checkpoint, "FIXED_IN", (99, 0, 0))
    assert any("WAL-reset" in warning for warning in (await orders.health()).warnings)


async def test_nothing_is_checkpointed_by_sqlite_itself(path: Path, connect: Open) -> None:
    """SQLite's own automatic checkpoint would come at 1000 pages, without the write lock."""
    db = await connect()
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("CREATE TABLE orders (item TEXT)")
    raw.close()
    size = path.stat().st_size

    def many() -> Script[None]:
        for _ in range(40):
            yield from insert_all(["x" * 2_000] * 100)

    await db.transact(many())
    await db.transact(insert("one more"))
    assert wal_bytes(path) > 1_500 * 4_096
    assert path.stat().st_size == size
    assert isinstance(db._checkpointer, Checkpointer)


async def test_transactions_back_to_back_do_not_keep_the_log_from_being_checkpointed(
    orders: SqliteDatabase, path: Path
) -> None:
    async with orders.transaction() as tx:
        await tx.execute("CREATE TABLE back_to_back (text TEXT)")
    largest = 0
    for _ in range(1_500):
        async with orders.transaction() as tx:
            await tx.execute("INSERT INTO back_to_back VALUES (?)", "x" * 12_000)
        largest = max(largest, wal_bytes(path))
    assert largest < 20 * 1024 * 1024

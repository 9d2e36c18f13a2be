"""News between processes on one file: by datagram at once, by a look at the log where nobody sends one."""

import asyncio
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from faultproof.clock import Env
from faultproof.engines.sqlite import open_database
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.ports.database import News
from faultproof.ports.script import Script, Wake
from tests.children import WAIT_S, Python
from tests.engines.sqlite.conftest import Open

pytestmark = pytest.mark.anyio

COMMITTER = """
import asyncio, sys, faultproof
from faultproof.ports.script import Wake

def wake(topics):
    for topic in topics:
        yield Wake(topic)

async def main():
    async with faultproof.connect(sys.argv[1]) as db:
        print("ready", flush=True)
        while topics := (await asyncio.to_thread(sys.stdin.readline)).split():
            await db.transact(wake(topics))
            print("done", flush=True)

asyncio.run(main())
"""

LISTENER = """
import asyncio, sys, faultproof

async def main():
    db = await faultproof.connect(sys.argv[1])
    news = db.changed("orders")
    print("ready", flush=True)
    while await news.wait(60):
        print("heard", flush=True)

asyncio.run(main())
"""

RAW = """
import sqlite3, sys
raw = sqlite3.connect(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    raw.execute("INSERT INTO faultproof_schema VALUES (?, 1)", (line,))
    raw.commit()
    print("done", flush=True)
"""


def wake(*topics: str) -> Script[None]:
    for topic in topics:
        yield Wake(topic)


def add_one_claim(db: SqliteDatabase) -> Script[None]:
    yield from db.claims.add("work", [db.env.ids.new()])


NEVER_S = 3600.0
"""A poll so rare that what is heard here was heard by datagram."""


async def heard(news: News) -> None:
    async with asyncio.timeout(WAIT_S):
        assert await news.wait(WAIT_S * 2) is True


async def forget(news: News) -> None:
    """Nothing that happened before counts any more."""
    await asyncio.sleep(0)
    await news.wait(0.001)


async def test_listener_hears_another_process_by_datagram(db: SqliteDatabase, path: Path, connect: Open) -> None:
    listener = await connect(poll_s=NEVER_S)
    orders, other = listener.changed("orders"), listener.changed("other")
    with Python(COMMITTER, path) as committer:
        assert committer.hear() == "ready"
        for topics in ("orders", "x orders y", "orders"):
            committer.tell(topics)
            await heard(orders)
            assert committer.hear() == "done"
        assert await other.wait(0.001) is False  # its topic was not among them
        committer.tell("other")
        await heard(other)
        assert await orders.wait(0.001) is False


async def test_another_process_hears_us(db: SqliteDatabase, path: Path) -> None:
    with Python(LISTENER, path) as listener:
        assert listener.hear() == "ready"
        await db.transact(wake("orders"))
        assert await asyncio.to_thread(listener.hear) == "heard"


async def test_raw_commit_of_another_process_is_heard_by_a_look_at_the_log(
    db: SqliteDatabase, path: Path, connect: Open
) -> None:
    listener = await connect()
    news = listener.changed("orders")
    with Python(RAW, path) as committer:
        assert committer.hear() == "ready"
        for line in "abc":
            await forget(news)
            committer.tell(line)
            assert committer.hear() == "done"
            await heard(news)


async def test_poll_without_any_commit_wakes_nobody(db: SqliteDatabase, connect: Open) -> None:
    listener = await connect()
    news = listener.changed("orders")
    await forget(news)
    assert await news.wait(0.15) is False  # three looks at the log


async def test_commits_of_our_own_wake_only_those_who_were_called(connect: Open) -> None:
    db = await connect(poll_s=0.01)
    await db.install(db.claims.schema)
    orders, other = db.changed("orders"), db.changed("other")
    await db.transact(add_one_claim(db))
    await heard(other)  # the first look at the log cannot know whose commit it sees
    for _ in range(20):
        await db.transact(wake("orders"))
        await heard(orders)
        await db.transact(add_one_claim(db))
    assert await other.wait(0.1) is False  # ten looks, which found that nobody else had committed


async def test_raw_commit_right_beside_our_own_is_heard(path: Path, connect: Open) -> None:
    db = await connect(poll_s=0.01)
    await db.install(db.claims.schema)
    news = db.changed("orders")
    raw = sqlite3.connect(path)
    for n in range(30):  # within one tick of the file system's clock, and with a checkpoint's reset of the log between
        await forget(news)
        raw.execute("INSERT INTO faultproof_schema VALUES (?, 1)", (f"x{n}",))
        raw.commit()
        await db.transact(add_one_claim(db))
        await heard(news)
        raw.execute("PRAGMA wal_checkpoint(RESTART)")
    raw.close()


async def test_rolled_back_transaction_sends_nothing(db: SqliteDatabase, connect: Open) -> None:
    class ChangedMindError(Exception):
        pass

    async def wake_and_fail() -> None:
        async with db.transaction() as tx:
            await tx.run(wake("orders"))
            raise ChangedMindError

    listener = await connect(poll_s=NEVER_S)
    news = listener.changed("orders")
    with pytest.raises(ChangedMindError):
        await wake_and_fail()
    await db.transact(wake("other"))  # and the next transaction does not send it either
    assert await news.wait(0.001) is False


async def test_socket_of_a_killed_process_is_removed_by_the_next_commit(db: SqliteDatabase, path: Path) -> None:
    directory = Path(f"{path}-wake")
    with Python(LISTENER, path) as listener:
        assert listener.hear() == "ready"
        (leftover,) = os.listdir(directory)
        assert leftover.startswith(f"{listener.pid}-")
        listener.kill()
    assert os.listdir(directory) == [leftover]
    await db.transact(wake("orders"))
    assert os.listdir(directory) == []


async def test_listener_that_does_not_empty_its_socket_holds_nobody_up(
    db: SqliteDatabase, path: Path, connect: Open
) -> None:
    listener = await connect(poll_s=NEVER_S)
    listener.changed("orders")
    (name,) = os.listdir(f"{path}-wake")
    deaf = Path(f"{path}-wake", "deaf")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unread:
        unread.bind(str(deaf))
        async with asyncio.timeout(WAIT_S):
            for _ in range(500):
                await db.transact(wake("orders"))
        assert sorted(os.listdir(f"{path}-wake")) == sorted([name, "deaf"])  # full, but not dead


async def test_listener_that_comes_later_is_found(db: SqliteDatabase, connect: Open) -> None:
    await db.transact(wake("orders"))  # looks for listeners, and finds none
    for _ in range(3):
        listener = await connect(poll_s=NEVER_S)
        news = listener.changed("orders")
        await db.transact(wake("orders"))
        await heard(news)


async def test_directory_whose_path_is_too_long_for_a_socket_works_too(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    path = deep / "shop.db"
    assert len(str(path)) > 108
    listener = await open_database(str(path), env=Env(), poll_s=NEVER_S)
    try:
        await listener.install(listener.claims.schema)
        news = listener.changed("orders")
        with Python(COMMITTER, path) as committer:
            assert committer.hear() == "ready"
            committer.tell("orders")
            await heard(news)
    finally:
        await listener.close()
    assert os.listdir(f"{path}-wake") == []


async def test_directory_that_cannot_be_made_leaves_the_poll(db: SqliteDatabase, path: Path, connect: Open) -> None:
    Path(f"{path}-wake").write_text("in the way")
    listener = await connect()
    news = listener.changed("orders")
    await forget(news)
    await db.transact(wake("orders"))
    raw = sqlite3.connect(path)
    raw.execute("INSERT INTO faultproof_schema VALUES ('x', 1)")
    raw.commit()
    raw.close()
    await heard(news)


async def test_listening_costs_no_descriptor_of_the_database_file(db: SqliteDatabase, path: Path) -> None:
    """Closing any descriptor of the file would drop the locks that SQLite holds on it in this process."""
    opened = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)]
    before = sorted(name for name in opened if _holds_locks(name, path))
    news = db.changed("orders")
    await db.transact(wake("orders"))
    await heard(news)
    opened = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)]
    assert sorted(name for name in opened if _holds_locks(name, path)) == before


def _holds_locks(name: str, path: Path) -> bool:
    """Not the log, nor the directory of the wake-ups: who looks may open them for a moment."""
    return name in (str(path), f"{path}-shm")


def _is_open(number: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{number}")

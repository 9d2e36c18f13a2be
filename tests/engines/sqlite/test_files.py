"""Opening files: what cannot be used is named before anything is done with it, and settings are really set."""

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import faultproof
from faultproof.engines.sqlite import open_database
from faultproof.engines.sqlite.connection import Connection
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.errors import CannotOpen, DiskFull, InvalidInput, NotADatabase, NoTransaction, Repair, TransactionOpen
from faultproof.ports.script import Script, Wake, sql
from tests.children import Python
from tests.engines.sqlite.conftest import Open

pytestmark = pytest.mark.anyio


@sql("INSERT INTO orders (item) VALUES (:item)")
def insert(item: str) -> None: ...


@sql("SELECT item FROM orders ORDER BY item")
def items() -> list[str]: ...


class PureBytes(os.PathLike[bytes]):
    """A path as bytes: its text depends on who reads it."""

    def __fspath__(self) -> bytes:
        return b"shop.db"

    def __repr__(self) -> str:
        return "PureBytes()"


async def refuse(url: str | Path, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        await faultproof.connect(url)


# --- paths ------------------------------------------------------------------------------------------------------------


async def test_missing_directory_is_named_and_not_made(tmp_path: Path) -> None:
    await refuse(f"{tmp_path}/none/shop.db", CannotOpen, "none does not exist")
    assert os.listdir(tmp_path) == []


async def test_directory_is_not_a_file(tmp_path: Path) -> None:
    await refuse(str(tmp_path), CannotOpen, "is a directory")


@pytest.mark.parametrize("content", [b"certainly not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_something_else_is_not_a_database_and_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    await refuse(str(path), NotADatabase, "not an SQLite database")
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["", ":memory:", "a\0b"])
async def test_name_of_no_file_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        await open_database(name, env=faultproof.Env())


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("", "not a path"),
        ("sqlite://", "not a path"),
        ("sqlite:///", "not a path"),
        ("sqlite:///:memory:", "not a path"),
        ("sqlite:///a%00b", "not a path"),
        ("sqlite://shop.db", "three slashes"),
        ("http://[::1", "not a URL"),
        ("sqlite://[x]/shop.db", "not a URL|three slashes"),
        ("http://\u2100.example/shop.db", "not a URL|not a database"),
        ("://shop.db", "not a database"),
        ("mysql://shop", "not a database"),
        ("sqlite:///shop.db#1", "%"),
        ("sqlite:///shop\n.db", "%"),
        ("sqlite:///shop%ff.db", "not UTF-8"),
        ("shop\ud800.db", "not UTF-8"),
        ("other\udcff.db", "not UTF-8"),
        ("sqlite:///shop\udcff.db", "not UTF-8"),
        (Path("shop\udcff.db"), "not UTF-8"),
        (b"shop.db", "as text"),
        (PureBytes(), "as text|path or a URL"),
        (None, "as text"),
        (7, "as text"),
    ],
    ids=repr,
)
async def test_what_names_no_file_is_refused_in_a_sentence_and_makes_none(
    url: Any, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for create in (True, False):
        with pytest.raises(InvalidInput, match=match) as raised:
            await faultproof.connect(url, create=create)
        str(raised.value).encode()  # it can be printed
        assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []


async def test_path_is_as_good_as_its_text(tmp_path: Path) -> None:
    path = tmp_path / "späti #1%20?x.db"
    async with faultproof.connect(path) as db:
        await db.install(db.claims.schema)
    assert path.is_file()
    async with (
        faultproof.connect(path, create=False),
        faultproof.connect(f"sqlite:///{quote(str(path))}", create=False),
    ):
        pass
    await refuse(tmp_path, CannotOpen, "is a directory")
    await refuse(str(tmp_path / ("n" * 300)), CannotOpen, "cannot be opened")


async def test_relative_path_from_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    await refuse("shop.db", CannotOpen, "current directory is gone")


async def test_names_that_mean_something_in_a_url_are_only_names(tmp_path: Path) -> None:
    for name in ("file:x?mode=ro", "50%.db", "shop?.db", "späti \U0001f34e.db"):
        async with faultproof.connect(str(tmp_path / name)) as db:
            await db.install(db.claims.schema)
        assert (tmp_path / name).is_file()


async def test_relative_path_stays_the_same_file_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with faultproof.connect("shop.db") as db:
        monkeypatch.chdir("/")
        await db.install(db.claims.schema)
        news = db.changed("topic")
        news.close()
    assert (tmp_path / "shop.db").is_file()


READ_ONLY = """
import asyncio, os, sys
import faultproof, faultproof.errors
asyncio.run(asyncio.to_thread(int))  # what is imported late must be here before
path = sys.argv[1]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)

async def main():
    try:
        async with faultproof.connect(path):
            print("opened")
    except faultproof.errors.CannotOpen as error:
        print("CannotOpen")
    except Exception as error:
        print(repr(error))

asyncio.run(main())
"""


@pytest.mark.parametrize("kept", ["nothing", "the database", "the database and its log"])
async def test_file_or_directory_without_the_right_to_write_is_refused(
    tmp_path_factory: pytest.TempPathFactory, kept: str
) -> None:
    directory = tmp_path_factory.mktemp("read-only")
    for parent in (directory, *directory.parents):
        if parent.owner() == directory.owner() and parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o711)  # root's other self has to get here at all
    path = directory / "shop.db"
    holder = None
    if kept != "nothing":
        holder = sqlite3.connect(path)
        holder.execute("PRAGMA journal_mode=WAL")
        holder.execute("CREATE TABLE orders (item TEXT)")
        if kept == "the database":
            holder.close()
    for file in directory.iterdir():
        file.chmod(0o444)
    directory.chmod(0o555)
    try:
        with Python(READ_ONLY, path) as process:
            assert process.hear() == "CannotOpen"
    finally:
        directory.chmod(0o755)
        if holder is not None:
            holder.close()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "level", "word"), [("full", 2, "FULL"), ("normal", 1, "NORMAL")])
async def test_synchronous_is_set_on_every_connection_and_said(
    connect: Open, asked: str, level: int, word: str
) -> None:
    db = await connect(synchronous=asked)

    def pragmas(connection: Connection) -> tuple[int, int, str]:
        return tuple(
            connection.raw.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "wal_autocheckpoint", "journal_mode")
        )

    assert db._checkpointer is not None
    assert await db._writer.call(pragmas) == (level, 0, "wal")
    assert await db._reader.call(pragmas) == (level, 0, "wal")
    assert pragmas(db._checkpointer._connection) == (level, 0, "wal")
    assert word in db.durability
    assert (await db.health()).durability == db.durability


async def test_full_is_the_default(path: Path) -> None:
    async with faultproof.connect(str(path)) as db:
        assert "FULL" in db.durability
    async with faultproof.connect(f"sqlite:///{path}") as db:
        assert "FULL" in db.durability
    async with faultproof.connect(f"sqlite:///{path}?synchronous=normal") as db:
        assert "NORMAL" in db.durability


@pytest.mark.parametrize(
    "options", ["synchronous=off", "synchronous=", "synchronous=FULL;x", "journal_mode=delete", "synchronous=full&x="]
)
async def test_unknown_option_is_refused_and_makes_no_file(path: Path, options: str) -> None:
    await refuse(f"sqlite:///{path}?{options}", InvalidInput, "synchronous")
    assert not path.exists()


# --- trouble afterwards -----------------------------------------------------------------------------------------------


@pytest.fixture
async def full(db: SqliteDatabase) -> SqliteDatabase:
    """A database on a disk with four pages left."""

    def limit(connection: Connection) -> None:
        connection.raw.execute("CREATE TABLE orders (item TEXT)")
        (pages,) = connection.raw.execute("PRAGMA page_count").fetchone()
        connection.raw.execute(f"PRAGMA max_page_count={pages + 4}")

    await db._writer.call(limit)
    return db


def too_much() -> Script[None]:
    yield from insert("small")
    yield from insert("x" * 1_000_000)


async def test_full_disk_is_named_and_what_was_committed_is_safe(full: SqliteDatabase) -> None:
    await full.transact(insert("before"))
    with pytest.raises(DiskFull) as raised:
        await full.transact(too_much())
    assert isinstance(raised.value, Repair)
    assert await full.read(items()) == ["before"]
    await full.transact(insert("after"))
    assert await full.read(items()) == ["after", "before"]


async def test_nothing_is_committed_alone_after_a_full_disk_rolled_the_transaction_back(full: SqliteDatabase) -> None:
    def careless() -> Script[None]:
        yield from insert("first")
        try:
            yield from insert("x" * 1_000_000)
        except DiskFull:
            yield from insert("and on we go")

    with pytest.raises(NoTransaction):
        await full.transact(careless())
    assert await full.read(items()) == []

    async def careless_user() -> None:
        async with full.transaction() as tx:
            await tx.execute("INSERT INTO orders VALUES ('first')")
            with pytest.raises(DiskFull):
                await tx.execute("INSERT INTO orders VALUES (?)", "x" * 1_000_000)
            await tx.execute("INSERT INTO orders VALUES ('and on we go')")

    with pytest.raises(NoTransaction):
        await careless_user()
    assert await full.read(items()) == []


async def test_user_who_catches_a_full_disk_and_leaves_is_not_told_that_it_was_committed(full: SqliteDatabase) -> None:
    async def careless() -> None:
        async with full.transaction() as tx:
            await tx.execute("INSERT INTO orders VALUES ('first')")
            with pytest.raises(DiskFull):
                await tx.run(too_much())

    with pytest.raises(NoTransaction):
        await careless()
    assert await full.read(items()) == []


async def test_close_releases_the_file(path: Path, connect: Open) -> None:
    db = await connect()
    await db.install(db.claims.schema)
    db.changed("topic")
    await db.close()
    # The last connection takes the log with it; it could not if one of ours were still open.
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + "-wake"]
    assert os.listdir(f"{path}-wake") == []


def add_and_wake(db: SqliteDatabase) -> Script[None]:
    yield from db.claims.add("job", ["a"])
    yield Wake("jobs")


async def test_commit_that_ends_after_close_leaves_nothing_behind(connect: Open, db: SqliteDatabase) -> None:
    peer = await connect()
    news = peer.changed("jobs")  # so that there is somebody to tell
    async with asyncio.timeout(20):
        for _ in range(10):
            short_lived = await connect()
            running = asyncio.create_task(short_lived.transact(add_and_wake(short_lived)))
            await asyncio.sleep(0)
            await short_lived.close()
            await asyncio.gather(running, return_exceptions=True)
            assert short_lived._wakeups._socket is None  # type: ignore[attr-defined]
    news.close()


async def test_inside_of_two_transactions_neither_database_may_be_called_bare(tmp_path: Path) -> None:
    async with faultproof.connect(str(tmp_path / "a.db")) as a, faultproof.connect(str(tmp_path / "b.db")) as b:
        async with asyncio.timeout(20):
            async with a.transaction(), b.transaction():
                for db in (a, b):
                    assert db.in_transaction()
                    with pytest.raises(TransactionOpen):
                        await db.transact(insert("x"))
            assert not a.in_transaction()

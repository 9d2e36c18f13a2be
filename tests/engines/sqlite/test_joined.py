"""A `sqlite3` connection of the user's own: joined in its transaction, left with its settings."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import faultproof
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.errors import Busy, Closed, ConstraintViolated, DiskFull, InvalidInput, LeaseLost, NoTransaction
from faultproof.ports.claims import Claim, Holder
from faultproof.ports.log import Cursor, Entry
from faultproof.ports.script import Begin, Commit, Script, Wake, sql
from faultproof.ports.statement import Changed
from tests.engines.sqlite.conftest import Open
from tests.moving import moving

pytestmark = pytest.mark.anyio

KIND = "job"


@pytest.fixture
def raw(db: SqliteDatabase, path: Path) -> Iterator[sqlite3.Connection]:
    """The user's connection, as `sqlite3.connect` makes it."""
    connection = sqlite3.connect(path, timeout=0)
    connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)")
    yield connection
    connection.close()


@sql("INSERT INTO orders (id, item) VALUES (:id, :item)")
def insert(id: int, item: str) -> None: ...


@sql("SELECT item FROM orders ORDER BY id")
def items() -> list[str]: ...


class Nested(NamedTuple):
    id: int
    inner: str
    item: str


async def holders(db: SqliteDatabase) -> list[Holder]:
    return await db.read(db.claims.holders(KIND))


# --- one transaction, the user's --------------------------------------------------------------------------------------


async def test_changes_commit_with_the_user_s_and_not_before(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO orders VALUES (1, 'apple')")
    assert faultproof.join(raw).run(db.claims.add(KIND, ["a"])) == 1
    assert raw.in_transaction
    assert await holders(db) == []
    raw.commit()
    assert [holder.id for holder in await holders(db)] == ["a"]
    assert await db.read(items()) == ["apple"]


async def test_changes_vanish_with_the_user_s(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO orders VALUES (1, 'apple')")
    faultproof.join(raw).run(db.claims.add(KIND, ["a"]))
    raw.rollback()
    assert await holders(db) == []
    assert await db.read(items()) == []


async def test_call_before_the_user_s_first_change_begins_the_transaction_that_the_user_commits(
    db: SqliteDatabase, raw: sqlite3.Connection
) -> None:
    faultproof.join(raw).run(db.claims.add(KIND, ["a"]))
    assert raw.in_transaction
    assert await holders(db) == []
    raw.execute("INSERT INTO orders VALUES (1, 'apple')")
    raw.commit()
    assert len(await holders(db)) == 1


async def test_user_s_savepoint_undoes_what_came_after_it(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    tx = faultproof.join(raw)
    tx.run(db.claims.add(KIND, ["before"]))
    raw.execute("SAVEPOINT mine")
    tx.run(db.claims.add(KIND, ["after"]))
    raw.execute("ROLLBACK TO mine")
    raw.commit()
    assert [holder.id for holder in await holders(db)] == ["before"]


async def test_failed_call_is_undone_alone(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    def half() -> Script[None]:
        yield from insert(2, "half")
        yield from insert(1, "again")

    raw.execute("INSERT INTO orders VALUES (1, 'apple')")
    tx = faultproof.join(raw)
    with pytest.raises(ConstraintViolated):
        tx.run(half())
    with pytest.raises(LeaseLost):
        tx.run(db.claims.guard(KIND, [Claim("a", 1, 1)]))
    assert raw.in_transaction
    raw.commit()
    assert await db.read(items()) == ["apple"]


async def test_failed_call_leaves_no_transaction_that_the_user_did_not_begin(
    db: SqliteDatabase, raw: sqlite3.Connection
) -> None:
    with pytest.raises(LeaseLost):
        faultproof.join(raw).run(db.claims.guard(KIND, [Claim("a", 1, 1)]))
    assert not raw.in_transaction
    await db.transact(db.claims.add(KIND, ["a"]))  # nothing is locked


async def test_disk_full_that_a_script_catches_does_not_commit_the_rest_alone(
    db: SqliteDatabase, raw: sqlite3.Connection
) -> None:
    def careless() -> Script[None]:
        yield from insert(1, "apple")
        try:
            yield from insert(2, "x" * 1_000_000)
        except DiskFull:
            yield from insert(3, "pear")

    raw.execute("BEGIN")
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    raw.execute(f"PRAGMA max_page_count={pages + 4}")
    with pytest.raises((DiskFull, NoTransaction)):
        faultproof.join(raw).run(careless())
    raw.rollback()
    assert await db.read(items()) == []


async def test_log_and_claims_work_through_it(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    await db.transact(db.logs.create("orders", partitions=1, epoch="e"))
    tx = faultproof.join(raw)
    tx.run(db.logs.append("orders", [Entry(0, "event", "k", "T", "{}", None, 0)], partitions=1))
    tx.run(db.claims.add(KIND, ["a"]))
    (claim,) = tx.run(db.claims.take(KIND, "me", ttl_us=60_000_000, limit=1))
    raw.commit()
    await db.transact(db.claims.guard(KIND, [claim]))
    assert (await db.read(db.logs.intake("orders"))).events == 1


async def test_script_that_ends_transactions_is_refused(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    def greedy(step: Begin | Commit) -> Script[None]:
        yield from insert(1, "apple")
        yield step

    raw.execute("BEGIN")
    for step in (Begin(writes=True), Commit()):
        with pytest.raises(InvalidInput):
            faultproof.join(raw).run(greedy(step))
    assert raw.in_transaction
    raw.commit()
    assert await db.read(items()) == []


async def test_commit_of_the_user_s_is_heard_of_by_the_poll(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    def add_and_wake() -> Script[None]:
        yield from db.claims.add(KIND, ["a"])
        yield Wake("jobs")

    news = db.changed("jobs")
    waiting = asyncio.create_task(news.wait(20.0))
    faultproof.join(raw).run(add_and_wake())
    raw.commit()
    assert await waiting is True


# --- handles that would commit alone ----------------------------------------------------------------------------------


async def test_handle_in_autocommit_mode_is_refused_outside_a_transaction(
    db: SqliteDatabase, raw: sqlite3.Connection
) -> None:
    raw.isolation_level = None
    with pytest.raises(NoTransaction, match="BEGIN"):
        faultproof.join(raw)
    raw.execute("BEGIN")
    tx = faultproof.join(raw)
    tx.run(db.claims.add(KIND, ["a"]))
    raw.execute("ROLLBACK")
    assert await holders(db) == []
    with pytest.raises(NoTransaction):
        tx.run(db.claims.add(KIND, ["a"]))
    assert await holders(db) == []


async def test_closed_handle_is_refused(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    tx = faultproof.join(raw)
    raw.close()
    with pytest.raises(Closed):
        tx.run(db.claims.add(KIND, ["a"]))
    with pytest.raises(Closed):
        faultproof.join(raw)


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_user_s_factories_neither_leak_in_nor_are_changed(db: SqliteDatabase, raw: sqlite3.Connection) -> None:
    def refuse(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Any:
        raise AssertionError("a row of ours was given to the user's factory")

    await db.transact(db.claims.add(KIND, ["a"]))
    raw.row_factory, raw.text_factory = refuse, bytes
    tx = faultproof.join(raw)
    (claim,) = tx.run(db.claims.take(KIND, "me", ttl_us=60_000_000, limit=1))
    assert claim == Claim("a", 1, 1)
    with pytest.raises(LeaseLost):
        tx.run(db.claims.guard(KIND, [Claim("none", 1, 1)]))
    assert (raw.row_factory, raw.text_factory) == (refuse, bytes)
    raw.row_factory = sqlite3.Row
    assert raw.execute("SELECT id AS found FROM faultproof_claim").fetchone()["found"] == b"a"
    raw.rollback()


@pytest.fixture
def converters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own, for the types of all our columns; `sqlite3` keeps them for the whole process."""
    for name in ("TEXT", "BIGINT", "INTEGER", "BLOB", "REAL", ""):
        monkeypatch.setitem(sqlite3.converters, name, lambda value: ("the user's", value))  # type: ignore[attr-defined]


@sql("SELECT o.id, (SELECT p.item FROM orders AS p WHERE p.id = o.id), o.item FROM orders AS o ORDER BY o.id DESC")
def nested() -> list[Nested]: ...


@sql("WITH late AS (SELECT id, item FROM orders) SELECT DISTINCT item FROM late ORDER BY item DESC")
def distinct() -> list[str]: ...


@sql("UPDATE orders SET id = id + 10 WHERE id < 10 RETURNING id, (SELECT max(item) FROM orders), item")
def moved() -> list[Nested]: ...


@sql('INSERT INTO orders (id, item) VALUES (:id, :item) RETURNING orders."item"')
def returning(id: int, item: str) -> str: ...


@sql("SELECT item FROM orders WHERE id = :id")
def one(id: int) -> str | None: ...


@sql("DELETE FROM orders WHERE id > :id")
def delete(id: int) -> Changed: ...


@pytest.mark.parametrize("detect", [sqlite3.PARSE_DECLTYPES, sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES])
async def test_user_s_converters_get_nothing_of_ours(
    db: SqliteDatabase, raw: sqlite3.Connection, path: Path, converters: None, detect: int
) -> None:
    await db.transact(db.logs.create("orders", partitions=2, epoch="e"))
    with closing(sqlite3.connect(path, timeout=0, detect_types=detect)) as typed:
        tx = faultproof.join(typed)
        assert [tx.run(returning(n, item)) for n, item in ((1, "pear"), (2, "apple"), (3, "pear"))] == [
            "pear",
            "apple",
            "pear",
        ]
        assert tx.run(items()) == ["pear", "apple", "pear"]
        assert tx.run(nested()) == [(3, "pear", "pear"), (2, "apple", "apple"), (1, "pear", "pear")]
        assert tx.run(distinct()) == ["pear", "apple"]
        assert tx.run(one(2)) == "apple"
        assert tx.run(one(7)) is None
        assert sorted(tx.run(moved())) == [(11, "pear", "pear"), (12, "pear", "apple"), (13, "pear", "pear")]
        assert tx.run(delete(12)) == 1
        tx.run(db.claims.add(KIND, ["a"]))
        (claim,) = tx.run(db.claims.take(KIND, "me", ttl_us=60_000_000, limit=1))
        assert claim == Claim("a", 1, 1)
        assert tx.run(db.claims.renew(KIND, [claim], ttl_us=60_000_000)) == [claim]
        assert [(holder.id, holder.state, holder.owner) for holder in tx.run(db.claims.holders(KIND))] == [
            ("a", "held", "me")
        ]
        entries = [Entry(n % 2, f"event {n}", "k", "T", "{}", None, 0) for n in range(4)]
        tx.run(db.logs.append("orders", entries, partitions=2))
        tx.run(moving(db.logs, "orders", [0, 1], limit=10))
        records = tx.run(db.logs.read("orders", [Cursor(1, 0), Cursor(0, 0)], limit=10))
        assert [(record.partition, record.offset, record.id) for record in records] == [
            (0, 0, "event 0"),
            (0, 1, "event 2"),
            (1, 0, "event 1"),
            (1, 1, "event 3"),
        ]
        # What the user reads is the user's as before.
        assert typed.execute("SELECT item FROM orders WHERE id = 12").fetchone() == (("the user's", b"apple"),)
        typed.rollback()


# --- locks ------------------------------------------------------------------------------------------------------------


async def test_deferred_transaction_with_a_stale_read_says_what_to_do(
    db: SqliteDatabase, raw: sqlite3.Connection
) -> None:
    raw.execute("BEGIN")
    raw.execute("SELECT * FROM orders").fetchall()
    await db.transact(db.claims.add(KIND, ["somebody else's"]))
    with pytest.raises(Busy, match="BEGIN IMMEDIATE"):
        faultproof.join(raw).run(db.claims.add(KIND, ["a"]))
    raw.rollback()
    assert [holder.id for holder in await holders(db)] == ["somebody else's"]
    raw.execute("BEGIN IMMEDIATE")
    faultproof.join(raw).run(db.claims.add(KIND, ["a"]))
    raw.commit()
    assert len(await holders(db)) == 2


async def test_lock_of_another_writer_is_busy(db: SqliteDatabase, raw: sqlite3.Connection, connect: Open) -> None:
    other = await connect()
    async with other.transaction() as tx:
        await tx.run(insert(1, "apple"))
        with pytest.raises(Busy):
            faultproof.join(raw).run(db.claims.add(KIND, ["a"]))
        assert not raw.in_transaction
    assert await holders(db) == []


async def test_health_names_a_joined_connection_that_checkpoints_by_itself(
    db: SqliteDatabase, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def named() -> bool:
        return any("joined to" in warning and "1000 pages" in warning for warning in (await db.health()).warnings)

    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 45, 0))  # one that has the bug
    assert not await named()
    faultproof.join(raw)
    assert await named()
    raw.execute("PRAGMA wal_autocheckpoint=0")
    faultproof.join(raw)
    assert not await named()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    raw.execute("PRAGMA wal_autocheckpoint=1000")
    faultproof.join(raw)
    assert (await db.health()).warnings == ()

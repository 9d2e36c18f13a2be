"""The proxy does to real connections of a real server what it says, and nothing when it is not told to."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import psycopg
import pytest

import faultproof as fp
from faultproof.errors import Busy, CannotOpen, ConstraintViolated, OutcomeUnknown, TryAgain
from faultproof.ports.database import Database
from faultproof.ports.script import Patience, Script, ddl, sql
from faultproof.prove.live.address import changed, places
from faultproof.prove.live.messages import KEPT_MAX, Frames
from faultproof.prove.live.proxy import Proxy, Towards
from tests.fakes import until, within

pytestmark = pytest.mark.anyio

OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"


@sql("INSERT INTO item (name) VALUES (:name)")
def insert(name: str | None) -> None: ...


@sql("INSERT INTO note (text) VALUES (:text)")
def write(text: str) -> None: ...


@sql("SELECT text FROM note")
def texts() -> list[str]: ...


@sql("SELECT name FROM item ORDER BY name")
def names() -> list[str]: ...


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    ((host, port),) = places(postgres_url)
    proxy = Proxy(host, port)
    await proxy.start()
    yield proxy
    await proxy.close()


@pytest.fixture
def url(postgres_url: str, proxy: Proxy) -> str:
    return changed(postgres_url, host="127.0.0.1", port=proxy.port)


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    async with fp.connect(url) as database:
        await database.transact(ddl("CREATE TABLE item (name TEXT PRIMARY KEY)"))
        yield database


async def test_an_idle_proxy_changes_nothing(db: Database, proxy: Proxy) -> None:
    long = "x" * 300_000  # in several pieces, and longer than what is kept of a message
    await db.transact(ddl("CREATE TABLE note (text TEXT)"))
    await db.transact(write(long))
    with pytest.raises(ConstraintViolated):
        await db.transact(insert(None))
    assert await db.read(texts()) == [long]
    assert not proxy.fired


async def test_a_commit_whose_answer_is_dropped_is_committed_and_unknown(db: Database, proxy: Proxy) -> None:
    proxy.drop_commit_answer(2)
    await db.transact(insert("a"))
    await db.read(names())  # a transaction that only reads ends in a COMMIT too, which is not counted
    with pytest.raises(OutcomeUnknown):
        await db.transact(insert("b"))
    assert await db.read(names()) == ["a", "b"]
    await db.transact(insert("c"))
    assert proxy.fired == {"dropped answer": 1}


async def test_a_commit_that_is_refused_is_answered_and_the_next_one_dropped(db: Database, proxy: Proxy) -> None:
    await db.transact(
        ddl("ALTER TABLE item ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED, DROP CONSTRAINT item_pkey")
    )
    await db.transact(insert("a"))
    proxy.drop_commit_answer()
    with pytest.raises(ConstraintViolated):
        await db.transact(insert("a"))
    assert not proxy.fired
    with pytest.raises(OutcomeUnknown):
        await db.transact(insert("b"))
    assert await db.read(names()) == ["a", "b"]


async def test_the_user_s_own_way_to_commit_is_known_too(db: Database, url: str, proxy: Proxy) -> None:
    def commit_by_hand() -> None:
        with psycopg.connect(url) as raw:
            raw.execute("INSERT INTO item VALUES ('a')")

    proxy.drop_commit_answer()
    with pytest.raises(psycopg.OperationalError):
        await asyncio.to_thread(commit_by_hand)
    assert await db.read(names()) == ["a"]


async def test_reset_cuts_who_is_inside_and_nothing_is_committed(db: Database, proxy: Proxy) -> None:
    async def be_cut() -> None:
        async with db.transaction() as tx:
            await tx.run(insert("a"))
            proxy.reset()
            await tx.run(insert("b"))

    with pytest.raises(TryAgain):
        await be_cut()
    assert await db.read(names()) == []
    assert proxy.fired["reset"] >= 1


@pytest.mark.parametrize(("towards", "left"), [("server", []), ("client", ["a"])])
async def test_a_blackhole_swallows_one_way_until_it_heals(
    db: Database, proxy: Proxy, towards: Towards, left: list[str]
) -> None:
    async def commit_into_it() -> None:
        async with db.transaction() as tx:
            await tx.run(insert("a"))
            proxy.blackhole(towards, 60.0)

    committing = asyncio.create_task(commit_into_it())
    await until(lambda: proxy.fired[f"blackhole to the {towards}"])
    proxy.heal()
    with pytest.raises(OutcomeUnknown):
        await within(committing)
    assert await db.read(names()) == left


async def test_half_open_leaves_the_client_waiting_and_the_server_free(
    db: Database, proxy: Proxy, postgres_url: str
) -> None:
    async def use_a_connection_that_is_gone() -> None:
        async with db.transaction() as tx:
            await tx.run(insert("a"))
            proxy.half_open(0.3)
            with psycopg.connect(postgres_url, autocommit=True) as raw:
                await until(lambda: raw.execute(OPEN).fetchone() == (0,))
                raw.execute("INSERT INTO item VALUES ('a')")  # no lock of the client's is left
            await tx.run(insert("b"))

    with pytest.raises(TryAgain):
        await within(use_a_connection_that_is_gone())
    assert await db.read(names()) == ["a"]
    assert proxy.fired["half-open"] >= 1


async def test_latency_is_added_both_ways_and_taken_away_again(db: Database, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    proxy.delay(0.05)
    began = loop.time()
    await db.transact(insert("a"))
    took = loop.time() - began
    assert took >= 0.2  # two round trips
    assert proxy.fired["latency"] >= 4
    proxy.heal()
    late = proxy.fired["latency"]
    await db.transact(insert("b"))
    assert proxy.fired["latency"] == late


async def test_an_orphan_keeps_its_locks_until_the_proxy_lets_go(db: Database, proxy: Proxy, url: str) -> None:
    proxy.keep_s = 60.0
    client = await psycopg.AsyncConnection.connect(url)
    await client.execute("INSERT INTO item VALUES ('a')")
    with socket.socket(fileno=os.dup(client.pgconn.socket)) as raw:
        raw.shutdown(socket.SHUT_RDWR)  # what the kernel does when its process is killed
    with pytest.raises(Busy):
        await db.transact(_impatient("a"))
    assert proxy.fired["orphan"] == 1
    proxy.heal()
    await db.transact(insert("a"))
    await client.close()


async def test_who_takes_leave_leaves_no_orphan(db: Database, proxy: Proxy, url: str) -> None:
    proxy.keep_s = 60.0
    client = await psycopg.AsyncConnection.connect(url)
    await client.execute("INSERT INTO item VALUES ('a')")
    await client.close()
    await db.transact(insert("a"))
    assert not proxy.fired


async def test_encryption_is_refused_and_who_demands_it_is_told(url: str) -> None:
    with pytest.raises(CannotOpen, match="server does not support SSL, but SSL was required"):
        await fp.connect(changed(url, sslmode="require"))


async def test_what_is_no_client_is_turned_away(db: Database, proxy: Proxy) -> None:
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f" * 4):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(greeting)
        assert (await within(reader.read())).strip(b"N") == b""
        writer.close()
    await db.transact(insert("a"))


def _impatient(name: str) -> Script[None]:
    yield Patience(0.1)
    yield from insert(name)


def test_a_long_message_is_passed_over_and_the_next_one_understood() -> None:
    frames = Frames()
    long = b"D" + (KEPT_MAX * 3 + 4).to_bytes(4, "big") + bytes(KEPT_MAX * 3)
    ready = b"Z\0\0\0\x05I"
    found = [message for at in range(0, len(long), 1_000) for message in frames.feed((long + ready)[at : at + 1_000])]
    assert [(message.kind, len(message.body)) for message in found] == [("D", KEPT_MAX), ("Z", 1)]

"""Connections and servers that go away, and what is not there at all."""

import asyncio
import os

import psycopg
import pytest

from faultproof.clock import Env
from faultproof.engines.postgres import open_database
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.engines.postgres.options import PostgresOptions
from faultproof.errors import (
    Busy,
    ConstraintViolated,
    OutcomeUnknown,
    SchemaMismatch,
    TryAgain,
)
from faultproof.ports.script import Script, ddl, sql
from tests.children import Python
from tests.engines.postgres.conftest import Open
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.anyio

WAIT_S = 20.0


@sql("INSERT INTO orders (item) VALUES (:item)")
def insert(item: str) -> None: ...


@sql("SELECT item FROM orders ORDER BY item")
def items() -> list[str]: ...


@sql("SELECT pg_backend_pid()")
def backend() -> int: ...


@pytest.fixture
async def orders(db: PostgresDatabase) -> PostgresDatabase:
    await db.transact(ddl("CREATE TABLE orders (item TEXT NOT NULL)"))
    return db


def terminate(url: str, pid: int) -> None:
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


# --- a connection that is lost ----------------------------------------------------------------------------------------


async def test_connection_lost_inside_a_transaction_means_that_nothing_happened(
    orders: PostgresDatabase, postgres_url: str
) -> None:
    def cut() -> Script[None]:
        yield from insert("apple")
        terminate(postgres_url, (yield from backend()))
        yield from insert("pear")

    with pytest.raises(TryAgain):
        await orders.transact(cut())
    assert await orders.read(items()) == []


async def test_connection_lost_during_the_commit_means_that_nobody_knows(
    orders: PostgresDatabase, postgres_url: str
) -> None:
    # A constraint that is checked at COMMIT, and takes that moment to end its own connection.
    async with orders.transaction() as tx:
        await tx.execute(
            """CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"""
        )
        await tx.execute(
            "CREATE CONSTRAINT TRIGGER cutting AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION cut()"
        )
    with pytest.raises(OutcomeUnknown):
        await orders.transact(insert("apple"))
    with pytest.raises(OutcomeUnknown):
        async with orders.transaction() as tx:
            await tx.run(insert("pear"))
    assert await orders.read(items()) == []


async def test_constraint_that_is_checked_at_the_commit_is_no_unknown_outcome(orders: PostgresDatabase) -> None:
    await orders.transact(ddl("ALTER TABLE orders ADD UNIQUE (item) DEFERRABLE INITIALLY DEFERRED"))
    await orders.transact(insert("apple"))
    with pytest.raises(ConstraintViolated):
        await orders.transact(insert("apple"))
    await orders.transact(insert("pear"))
    assert await orders.read(items()) == ["apple", "pear"]


async def test_idle_connections_that_broke_are_replaced_unnoticed(orders: PostgresDatabase, postgres_url: str) -> None:
    together = asyncio.Barrier(4)

    async def use_one() -> None:
        async with orders.transaction() as tx:
            await tx.execute("SELECT 1")
            await together.wait()

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(use_one() for _ in range(4)))
        with psycopg.connect(postgres_url, autocommit=True) as raw:
            cut = raw.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        assert len(cut) == 4
        await orders.transact(insert("apple"))
        async with orders.transaction() as tx:
            await tx.run(insert("pear"))
        assert await orders.read(items()) == ["apple", "pear"]


async def test_server_that_is_away_is_an_invitation_to_try_again(
    orders: PostgresDatabase, server: PostgresServer
) -> None:
    await orders.transact(insert("apple"))
    server.kill()
    for _ in range(2):
        with pytest.raises(TryAgain):
            await orders.transact(insert("lost"))
        with pytest.raises(TryAgain):
            async with orders.transaction() as tx:
                await tx.execute("SELECT 1")
    server.start()
    await orders.transact(insert("pear"))
    assert await orders.read(items()) == ["apple", "pear"]


async def test_defaults_of_the_user_s_do_not_change_what_transactions_promise(postgres_url: str) -> None:
    options = "-cdefault_transaction_isolation%3Dserializable%20-cdefault_transaction_read_only%3Don"
    odd = await open_database(f"{postgres_url}?options={options}", env=Env())
    try:
        async with odd.transaction() as tx:
            assert await tx.fetch("SHOW transaction_isolation") == [("read committed",)]
            await tx.execute("CREATE TABLE written (n int)")
    finally:
        await odd.close()


async def test_log_that_was_never_created_is_named(db: PostgresDatabase) -> None:
    with pytest.raises(SchemaMismatch, match="no log 'other'"):
        await db.read(db.logs.epoch("other"))


# --- the pool ---------------------------------------------------------------------------------------------------------


async def test_no_more_connections_than_the_pool_holds(
    orders: PostgresDatabase, connect: Open, postgres_url: str
) -> None:
    size = 4
    small = await connect(PostgresOptions(pool_max=size, pool_timeout=1.0))
    full = asyncio.Barrier(size + 1)
    over = asyncio.Event()

    async def hold() -> None:
        async with small.transaction():
            await full.wait()
            await over.wait()

    async with asyncio.timeout(WAIT_S):
        holders = [asyncio.create_task(hold()) for _ in range(size)]
        await full.wait()
        with pytest.raises(Busy, match="all 4 connections are in use"):
            await small.read(items())
        over.set()
        await asyncio.gather(*holders)
        await asyncio.gather(*(small.read(items()) for _ in range(size * 3)))
    with psycopg.connect(postgres_url) as raw:
        connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert raw.execute(connections).fetchone() == (size + 2,)  # with the other database's, and this one


async def test_connection_is_kept_over_errors_and_cancels(orders: PostgresDatabase) -> None:
    """Replaced, it would cost a connection each; closed with its transaction open, it would hold its locks a while."""

    def fail() -> Script[None]:
        yield from insert("apple")
        raise ZeroDivisionError

    async def fail_in_a_block() -> None:
        async with orders.transaction() as tx:
            await tx.run(fail())

    pid = await orders.read(backend())
    for failing in (orders.transact(fail()), fail_in_a_block()):
        with pytest.raises(ZeroDivisionError):
            await failing
        assert await orders.read(backend()) == pid
    inside = asyncio.Event()

    async def wait_in_a_block() -> None:
        async with orders.transaction() as tx:
            await tx.run(insert("apple"))
            inside.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(wait_in_a_block())
    async with asyncio.timeout(WAIT_S):
        await inside.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await orders.read(backend()) == pid
    assert await orders.read(items()) == []


async def test_close_leaves_no_connection(connect: Open, postgres_url: str) -> None:
    db = await connect()
    await asyncio.gather(*(db.read(backend()) for _ in range(4)))
    await db.close()
    mine = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        async with asyncio.timeout(WAIT_S):  # the server needs a moment to notice
            while await asyncio.to_thread(lambda: raw.execute(mine).fetchone()) != (1,):
                pass


FORK = """
import asyncio, os, sys
from faultproof.clock import Env
from faultproof.engines.postgres import open_database
from faultproof.errors import UsedAfterFork

async def child(db):
    for call in (lambda: db.read(db.claims.holders("job")), lambda: db.transaction().__aenter__(), db.close):
        try:
            await asyncio.wait_for(call(), 5)
            print("worked", flush=True)
        except UsedAfterFork:
            print("refused", flush=True)

async def main(url):
    db = await open_database(url, env=Env())
    await db.install(db.claims.schema)
    if os.fork() == 0:
        asyncio._set_running_loop(None)
        asyncio.new_event_loop().run_until_complete(child(db))
        os._exit(0)
    os.wait()
    print(await db.read(db.claims.holders("job")))
    await db.close()

asyncio.run(main(sys.argv[1]))
"""


async def test_nothing_made_before_a_fork_is_used_after_it(postgres_url: str) -> None:
    with Python(FORK, postgres_url) as process:
        said = await asyncio.to_thread(process.finish)
    assert said.splitlines() == ["refused", "refused", "refused", "[]"]
    assert os.getpid() != process.pid

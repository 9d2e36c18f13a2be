"""What goes wrong under way: begun again where the work is ours, told where it is the user's, and never half done."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

import faultproof as fp
from faultproof.engines.postgres import connection as connections
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.engines.postgres.faults import Lost
from faultproof.engines.postgres.wire import Command
from faultproof.errors import Busy, ConstraintViolated, NoTransaction, OutcomeUnknown, TryAgain
from faultproof.ports.script import Script, Wake, ddl, sql
from tests.engines.postgres.conftest import Open
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.anyio

WAIT_S = 20.0


@sql("INSERT INTO orders (item) VALUES (:item)")
def insert(item: str) -> None: ...


@sql("INSERT INTO orders (item) VALUES (:item)", deferred=True)
def insert_later(item: str) -> None: ...


@sql("SELECT item FROM orders ORDER BY item")
def items() -> list[str]: ...


@sql("UPDATE orders SET item = item WHERE item = :item")
def touch(item: str) -> None: ...


@sql("SELECT pg_backend_pid()")
def backend() -> int: ...


@pytest.fixture
async def orders(db: PostgresDatabase) -> PostgresDatabase:
    await db.transact(ddl("CREATE TABLE orders (item TEXT NOT NULL CHECK (item <> 'refused'))"))
    return db


def terminate(url: str, pid: int) -> None:
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


# --- begun again ------------------------------------------------------------------------------------------------------


@sql("SELECT set_config('deadlock_timeout', :milliseconds, true)")
def looks_for_deadlocks_after(milliseconds: str) -> str: ...


PATIENT, IMPATIENT = "4000", "300"
"""Whoever waits for less long before it looks for a deadlock finds it, and is its victim."""


@pytest.mark.parametrize("victim", ["ours", "the user's"])
async def test_deadlock_of_ours_is_begun_again_and_of_the_users_is_told(
    orders: PostgresDatabase, connect: Open, victim: str
) -> None:
    await orders.transact(insert("a"))
    await orders.transact(insert("b"))
    peer = await connect()
    inside = asyncio.Event()
    begun = told = 0

    def ours() -> Script[None]:
        nonlocal begun
        begun += 1
        yield from looks_for_deadlocks_after(IMPATIENT if victim == "ours" else PATIENT)
        yield from touch("a")
        inside.set()
        yield from touch("b")

    async with asyncio.timeout(WAIT_S):
        while begun < 2 if victim == "ours" else not told:  # a busy machine may have it the other way round
            begun, task = 0, None
            inside.clear()
            try:
                async with peer.transaction() as tx:
                    await tx.run(looks_for_deadlocks_after(PATIENT if victim == "ours" else IMPATIENT))
                    await tx.execute("UPDATE orders SET item = item WHERE item = 'b'")
                    task = asyncio.create_task(orders.transact(ours))
                    await inside.wait()
                    await tx.execute("UPDATE orders SET item = item WHERE item = 'a'")
            except Busy as error:
                told += isinstance(error.__cause__, psycopg.errors.DeadlockDetected)
            assert task is not None
            await task  # without an error, whoever was the victim


async def test_connection_lost_before_the_commit_is_begun_again(orders: PostgresDatabase, postgres_url: str) -> None:
    tries: list[int] = []

    def cut_once() -> Script[None]:
        tries.append((yield from backend()))
        yield from insert(f"try {len(tries)}")
        if len(tries) == 1:
            terminate(postgres_url, tries[0])
        yield from insert("pear")

    await orders.transact(cut_once)
    assert await orders.read(items()) == ["pear", "try 2"]
    tries.clear()
    with pytest.raises(TryAgain):  # a script that was begun cannot be
        await orders.transact(cut_once())
    assert await orders.read(items()) == ["pear", "try 2"]


async def test_error_that_repeating_cannot_help_is_not_repeated(orders: PostgresDatabase) -> None:
    tries: list[int] = []

    def refused() -> Script[None]:
        tries.append(1)
        yield from insert("refused")

    with pytest.raises(ConstraintViolated):
        await orders.transact(refused)
    assert len(tries) == 1


async def test_lost_commit_is_not_begun_again(orders: PostgresDatabase) -> None:
    async with orders.transaction() as tx:
        await tx.execute(
            """CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"""
        )
        await tx.execute(
            "CREATE CONSTRAINT TRIGGER cutting AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION cut()"
        )
    tries: list[int] = []

    def once() -> Script[None]:
        tries.append(1)
        yield from insert("apple")

    with pytest.raises(OutcomeUnknown):
        await orders.transact(once)
    with pytest.raises(OutcomeUnknown):  # BEGIN, INSERT and COMMIT in one round trip
        await orders.transact(lambda: insert_later("pear"))
    assert len(tries) == 1


async def test_users_statement_on_a_lost_connection_says_try_again(orders: PostgresDatabase, postgres_url: str) -> None:
    async def cut() -> None:
        async with orders.transaction() as tx:
            ((pid,),) = await tx.fetch("SELECT pg_backend_pid()")
            terminate(postgres_url, pid)
            await tx.execute("INSERT INTO orders VALUES ('lost')")

    with pytest.raises(Lost):
        await cut()
    assert await orders.read(items()) == []


# --- statements that were prepared ------------------------------------------------------------------------------------


async def test_prepared_statements_survive_a_change_of_their_table(orders: PostgresDatabase, postgres_url: str) -> None:
    def everything() -> Script[list[tuple[str, ...]]]:
        return (yield from whole_rows())

    await orders.transact(insert("apple"))
    for _ in range(10):  # psycopg prepares what comes for the sixth time
        await orders.transact(everything)
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("ALTER TABLE orders ADD COLUMN size BIGINT")
    assert await orders.transact(everything) == ["(apple,)"]
    async with orders.transaction() as tx:
        for _ in range(10):
            await tx.fetch("SELECT * FROM orders WHERE item = %s", "apple")
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("ALTER TABLE orders ADD COLUMN colour TEXT")
    with pytest.raises(TryAgain, match="has changed since"):
        async with orders.transaction() as tx:
            await tx.fetch("SELECT * FROM orders WHERE item = %s", "apple")
    async with orders.transaction() as tx:
        assert await tx.fetch("SELECT * FROM orders WHERE item = %s", "apple") == [("apple", None, None)]


@sql("SELECT orders FROM orders")
def whole_rows() -> list[str]: ...


# --- what waits to be sent --------------------------------------------------------------------------------------------


async def test_transaction_in_which_nothing_was_done_never_reaches_the_server(orders: PostgresDatabase) -> None:
    sent = count_commands(orders)
    async with orders.transaction():
        pass
    async with orders.transaction() as tx:
        with pytest.raises(ZeroDivisionError):
            await tx.run(_fails())
    assert sent() == 0


def _fails() -> Script[None]:
    yield Wake("nothing")
    raise ZeroDivisionError


def count_commands(db: PostgresDatabase) -> Callable[[], int]:
    """How many round trips there were since."""
    trips: list[int] = []
    original = connections.send

    async def counted(raw: object, commands: list[Command], *, prepare: bool) -> object:
        trips.append(len(commands))
        return await original(raw, commands, prepare=prepare)  # type: ignore[arg-type]

    connections.send = counted  # type: ignore[assignment]

    def done() -> int:
        connections.send = original
        return len(trips)

    return done


async def test_publish_costs_no_round_trip_of_its_own(orders: PostgresDatabase) -> None:
    outbox = fp.Outbox(orders, events={"Said": dict})
    await outbox.install()
    await outbox.publish({"n": 0}, key="a", type="Said")
    sent = count_commands(orders)
    async with orders.transaction() as tx:
        await tx.execute("INSERT INTO orders VALUES (%s)", "apple")
        await outbox.publish({"n": 1}, key="a", type="Said", tx=tx)
    assert sent() == 2  # BEGIN and the user's statement; the event and COMMIT
    sent = count_commands(orders)
    await outbox.publish({"n": 2}, key="a", type="Said")
    assert sent() == 1
    assert (await outbox.lag()).events == 3
    await outbox.close()


async def test_deferred_statement_that_fails_takes_the_transaction_with_it(orders: PostgresDatabase) -> None:
    async def at_the_commit() -> None:
        async with orders.transaction() as tx:
            await tx.run(insert("apple"))
            await tx.run(insert_later("refused"))

    async def at_the_next_statement() -> None:
        async with orders.transaction() as tx:
            await tx.run(insert_later("refused"))
            await tx.execute("INSERT INTO orders VALUES (%s)", "pear")

    for failing in (at_the_commit, at_the_next_statement):
        with pytest.raises(ConstraintViolated):
            await failing()
    assert await orders.read(items()) == []
    async with orders.transaction() as tx:
        await tx.run(insert_later("plum"))
        assert await tx.fetch("SELECT item FROM orders") == [("plum",)]


async def test_users_several_statements_at_once_still_go(orders: PostgresDatabase) -> None:
    async with orders.transaction() as tx:
        await tx.execute("INSERT INTO orders VALUES ('a'); INSERT INTO orders VALUES ('b')")
    assert await orders.read(items()) == ["a", "b"]


# --- several tasks in one transaction ---------------------------------------------------------------------------------


async def test_calls_at_once_in_one_transaction_take_turns(orders: PostgresDatabase) -> None:
    def slowly(item: str) -> Script[None]:
        yield from insert(item)
        yield from backend()
        if item.startswith("bad"):
            yield from insert("refused")
        yield from insert(f"{item}'s second")

    async with asyncio.timeout(WAIT_S):
        async with orders.transaction() as tx:
            work = [tx.run(slowly(name)) for name in ("a", "bad b", "c", "bad d")]
            done = await asyncio.gather(*work, tx.fetch("SELECT 1"), return_exceptions=True)
    assert [isinstance(each, Exception) for each in done] == [False, True, False, True, False]
    assert await orders.read(items()) == ["a", "a's second", "c", "c's second"]


async def test_call_that_was_cut_off_is_not_committed_by_halves(orders: PostgresDatabase) -> None:
    at = asyncio.Event()

    def halves() -> Script[None]:
        yield from insert("first half")
        at.set()
        yield from insert("second half")

    async def careless() -> None:
        async with orders.transaction() as tx:
            task = asyncio.create_task(tx.run(halves()))
            await at.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(WAIT_S):
        with pytest.raises(NoTransaction, match="cancelled"):
            await careless()
    assert await orders.read(items()) == []


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_workers_ride_out_a_server_that_crashes_and_comes_back() -> None:
    with PostgresServer() as server:
        async with asyncio.timeout(WAIT_S * 3), fp.connect(server.url) as db:
            outbox = fp.Outbox(db, events={"Said": dict})
            await outbox.install()
            seen: list[int] = []
            arrived = asyncio.Event()

            async def handle(event: fp.Event[dict[str, int]], tx: object) -> None:
                seen.append(event.body["n"])
                arrived.set()

            worker = fp.Worker(db.env, outbox.sequencer(ttl=1.0), outbox.consumer("all", handle))
            running = asyncio.create_task(worker.run())
            for n in range(3):
                while True:
                    try:
                        await outbox.publish({"n": n}, key="a", type="Said")
                        break
                    except (TryAgain, OutcomeUnknown):
                        await asyncio.sleep(0.05)  # sleeps: the server is on its way back
                while not seen or seen[-1] != n:
                    arrived.clear()
                    await arrived.wait()
                server.kill()
                server.start()
            worker.stop()
            await running
            assert [n for i, n in enumerate(seen) if n not in seen[:i]] == [0, 1, 2]

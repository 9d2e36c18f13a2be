"""Transactions: all or nothing, whoever interrupts them; and no call that would wait for itself."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, cast

import anyio
import pytest

from faultproof.errors import (
    Busy,
    Closed,
    ConstraintViolated,
    DeadlineExceeded,
    InvalidInput,
    Misuse,
    NoTransaction,
    SchemaMismatch,
    TransactionOpen,
)
from faultproof.ports.database import Database, Transaction
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, later, sql
from faultproof.ports.statement import Changed
from tests.conformance.conftest import Connect
from tests.conformance.engines import WAIT_S, Engine

pytestmark = pytest.mark.anyio


class ChangedMind(Exception):
    """What a user's code raises in the middle of a transaction."""


STOCK = Schema(
    name="stock",
    versions=[["CREATE TABLE stock (item TEXT PRIMARY KEY, units BIGINT NOT NULL CHECK (units >= 0))"]],
    works_from=1,
    works_to=1,
)


class Item(NamedTuple):
    item: str
    units: int


@sql("INSERT INTO stock (item, units) VALUES (:item, :units)")
def insert(item: str, units: int) -> Changed: ...


@sql("UPDATE stock SET units = :units WHERE item = :item")
def update(item: str, units: int) -> Changed: ...


@sql("SELECT item, units FROM stock ORDER BY item")
def everything() -> list[Item]: ...


@pytest.fixture
async def stock(db: Database) -> Database:
    """A `Database` with a table of the test's own."""
    await db.install(STOCK)
    return db


async def items(db: Database) -> list[Item]:
    return await db.read(everything())


async def is_usable(db: Database) -> None:
    """Whatever happened before, the next transaction commits."""
    async with asyncio.timeout(WAIT_S):
        await db.transact(insert("still usable", 1))
    assert Item("still usable", 1) in await items(db)


# --- all or nothing ---------------------------------------------------------------------------------------------------


async def test_committed_changes_are_seen_by_everybody(engine: Engine, stock: Database, peer: Database) -> None:
    assert await stock.transact(insert("apple", 3)) == 1
    async with stock.transaction() as tx:
        await tx.run(insert("pear", 4))
    assert await items(peer) == [("apple", 3), ("pear", 4)]
    assert engine.execute("SELECT count(*) FROM stock") == [(2,)]


async def test_uncommitted_changes_are_seen_by_nobody_else(stock: Database, peer: Database) -> None:
    async with stock.transaction() as tx:
        await tx.run(insert("apple", 3))
        assert await tx.run(everything()) == [("apple", 3)]
        assert await items(peer) == []
    assert await items(peer) == [("apple", 3)]


async def test_error_in_the_block_leaves_nothing_and_is_the_user_s_own(stock: Database) -> None:
    async def change_and_fail() -> None:
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 3))
            await tx.execute("INSERT INTO stock (item, units) VALUES ('pear', 4)")
            raise ChangedMind

    with pytest.raises(ChangedMind):
        await change_and_fail()
    assert await items(stock) == []
    await is_usable(stock)


async def test_error_in_a_script_rolls_it_back(stock: Database) -> None:
    def half() -> Script[None]:
        yield from insert("apple", 3)
        raise ChangedMind

    with pytest.raises(ChangedMind):
        await stock.transact(half())
    assert await items(stock) == []
    await is_usable(stock)


async def test_what_the_database_refuses_is_a_constraint_violated_and_undone(stock: Database) -> None:
    def twice() -> Script[None]:
        yield from insert("apple", 3)
        yield from insert("apple", 4)

    with pytest.raises(ConstraintViolated):
        await stock.transact(twice())
    with pytest.raises(ConstraintViolated):
        await stock.transact(insert("pear", -1))
    assert await items(stock) == []
    await is_usable(stock)


async def test_failed_script_is_undone_alone_and_the_transaction_goes_on(stock: Database) -> None:
    def half() -> Script[None]:
        yield from insert("half", 1)
        raise ChangedMind

    def refused() -> Script[None]:
        yield from insert("refused", 1)
        yield from insert("refused", 2)

    async with stock.transaction() as tx:
        await tx.run(insert("before", 1))
        with pytest.raises(ChangedMind):
            await tx.run(half())
        with pytest.raises(ConstraintViolated):
            await tx.run(refused())
        await tx.run(insert("after", 1))
    assert await items(stock) == [("after", 1), ("before", 1)]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_script_may_handle_an_error_and_go_on_where_the_engine_can(stock: Database, goes_on: bool) -> None:
    """On PostgreSQL a failed statement takes its transaction with it; half a result, or a commit that was none, must
    not happen anywhere."""

    def careless() -> Script[None]:
        yield from insert("apple", 1)
        try:
            yield from insert("apple", 2)
        except ConstraintViolated:
            if goes_on:
                yield from insert("pear", 3)

    try:
        await stock.transact(careless())
    except NoTransaction:
        assert await items(stock) == []
    else:
        assert await items(stock) == [("apple", 1), ("pear", 3)][: 1 + goes_on]


async def test_transaction_ended_from_inside_is_an_error(stock: Database) -> None:
    async def commit_inside() -> None:
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 1))
            await tx.execute("ROLLBACK")

    with pytest.raises(NoTransaction):
        await commit_inside()
    assert await items(stock) == []
    await is_usable(stock)


# --- the user's own SQL -----------------------------------------------------------------------------------------------


async def test_user_s_sql_goes_to_the_driver_as_it_is(engine: Engine, stock: Database) -> None:
    async with stock.transaction() as tx:
        assert await tx.execute(engine.spelled("INSERT INTO stock VALUES (?, ?), ('50', 2)"), "apple", 1) == 2
        assert await tx.execute("UPDATE stock SET item = '50%' WHERE item = '50'") == 1
        assert await tx.execute("UPDATE stock SET units = units + 1") == 2
        assert await tx.execute(engine.spelled("DELETE FROM stock WHERE item = ?"), "none") == 0
        rows = await tx.fetch(engine.spelled("SELECT item, units FROM stock WHERE units > ? ORDER BY item"), 0)
        assert rows == [("50%", 3), ("apple", 2)]
        assert await tx.fetch("SELECT item FROM stock WHERE item LIKE '50%'") == [("50%",)]
    assert await items(stock) == [("50%", 3), ("apple", 2)]


async def test_user_s_wrong_sql_raises_the_driver_s_own_error(engine: Engine, stock: Database) -> None:
    async def wrong() -> None:
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 1))
            await tx.execute("SELEC")

    with pytest.raises(engine.driver_error):
        await wrong()
    assert await items(stock) == []
    await is_usable(stock)


FORGOTTEN: dict[str, Callable[[Transaction], object]] = {
    "run": lambda tx: tx.run(insert("pear", 2)),
    "execute": lambda tx: tx.execute("INSERT INTO stock (item, units) VALUES ('pear', 2)"),
    "fetch": lambda tx: tx.fetch("SELECT 1"),
}


@pytest.mark.parametrize("call", FORGOTTEN)
async def test_call_that_was_never_awaited_keeps_the_rest_from_committing_without_it(
    stock: Database, call: str
) -> None:
    async def forgetful() -> None:
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 1))
            FORGOTTEN[call](tx)

    with pytest.raises(Misuse, match="never awaited"), pytest.warns(RuntimeWarning, match="never awaited"):
        await forgetful()
    assert await items(stock) == []
    await is_usable(stock)


async def test_call_that_was_left_to_a_task_which_has_not_begun_is_not_awaited_either(stock: Database) -> None:
    async def hasty() -> None:
        async with stock.transaction() as tx:
            tasks.append(asyncio.ensure_future(tx.run(insert("apple", 1))))

    tasks: list[asyncio.Future[Any]] = []
    with pytest.raises(Misuse, match="never awaited"):
        await hasty()
    with pytest.raises(Closed):
        await tasks[0]
    assert await items(stock) == []


async def test_calls_that_were_awaited_in_any_way_commit(stock: Database) -> None:
    async with stock.transaction() as tx:
        early = tx.run(insert("apple", 1))
        await asyncio.create_task(tx.run(insert("pear", 2)))
        with pytest.raises(ConstraintViolated):
            await tx.run(insert("plum", -1))
        await early
    assert len(await items(stock)) == 2


async def _cancelled_task(call: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.create_task(call)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _no_time(call: Coroutine[Any, Any, Any]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0)


async def _failed_group(call: Coroutine[Any, Any, Any]) -> None:
    async def fail() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(call)
            raise ChangedMind

    with pytest.raises(ExceptionGroup):
        await fail()


async def _closed(call: Coroutine[Any, Any, Any]) -> None:
    call.close()


GIVEN_UP = [_cancelled_task, _no_time, _failed_group, _closed]


@pytest.mark.parametrize("give_up", GIVEN_UP, ids=lambda way: way.__name__.strip("_"))
@pytest.mark.parametrize("call", FORGOTTEN)
async def test_call_that_was_given_up_before_it_began_lets_the_rest_commit(
    stock: Database, call: str, give_up: Callable[[Coroutine[Any, Any, Any]], Awaitable[None]]
) -> None:
    async with stock.transaction() as tx:
        await tx.run(insert("apple", 1))
        await give_up(cast(Coroutine[Any, Any, Any], FORGOTTEN[call](tx)))
    assert await items(stock) == [("apple", 1)]


async def test_call_that_was_given_up_does_not_hide_one_that_was_forgotten(stock: Database) -> None:
    async def both() -> None:
        async with stock.transaction() as tx:
            call = tx.run(insert("apple", 1))
            await _cancelled_task(cast(Coroutine[Any, Any, Any], call))
            call.close()  # type: ignore[attr-defined]
            tx.run(insert("pear", 2))

    with pytest.raises(Misuse, match="never awaited"), pytest.warns(RuntimeWarning, match="never awaited") as warned:
        await both()
    assert warned[0].filename == __file__  # where it was forgotten
    assert await items(stock) == []


async def test_calls_are_taken_by_all_that_takes_coroutines(stock: Database) -> None:
    async with stock.transaction() as tx:
        await asyncio.gather(tx.run(insert("apple", 1)), asyncio.shield(tx.run(insert("pear", 2))))
        await asyncio.wait_for(tx.run(insert("plum", 3)), WAIT_S)
        async with anyio.create_task_group() as group:
            group.start_soon(tx.execute, "INSERT INTO stock (item, units) VALUES ('fig', 4)")
        task = asyncio.create_task(tx.fetch("SELECT count(*) FROM stock"))
        assert "_checked" in repr(task)
        assert await task == [(4,)]


async def test_error_in_the_block_is_told_and_not_what_was_never_awaited(stock: Database) -> None:
    async def both() -> None:
        async with stock.transaction() as tx:
            tx.run(insert("apple", 1))
            raise ChangedMind

    with pytest.raises(ChangedMind), pytest.warns(RuntimeWarning, match="never awaited"):
        await both()
    assert await items(stock) == []


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_read_sees_one_snapshot_from_beginning_to_end(engine: Engine, stock: Database) -> None:
    await stock.transact(insert("apple", 1))

    def look_twice() -> Script[tuple[list[Item], list[Item]]]:
        before = yield from everything()
        engine.execute("UPDATE stock SET units = 2")
        return before, (yield from everything())

    assert await stock.read(look_twice()) == ([("apple", 1)], [("apple", 1)])
    assert await items(stock) == [("apple", 2)]


async def test_read_refuses_to_write(stock: Database) -> None:
    with pytest.raises(InvalidInput, match="transact"):
        await stock.read(insert("apple", 1))
    assert await items(stock) == []
    await is_usable(stock)


# --- calls that would wait for themselves -----------------------------------------------------------------------------

BARE: dict[str, Callable[[Database], Awaitable[Any]]] = {
    "transact": lambda db: db.transact(insert("apple", 1)),
    "read": lambda db: db.read(everything()),
    "install": lambda db: db.install(STOCK),
    "transaction": lambda db: db.transaction().__aenter__(),
}


@pytest.mark.parametrize("call", BARE)
async def test_bare_call_inside_an_open_transaction_is_refused(stock: Database, call: str) -> None:
    async with asyncio.timeout(WAIT_S):
        async with stock.transaction() as tx:
            await tx.run(insert("pear", 1))
            with pytest.raises(TransactionOpen, match="tx="):
                await BARE[call](stock)
    assert await items(stock) == [("pear", 1)]


async def test_only_the_database_of_the_transaction_is_refused(stock: Database, peer: Database) -> None:
    async with stock.transaction():
        assert stock.in_transaction()
        assert not peer.in_transaction()
        assert await items(peer) == []
    assert not stock.in_transaction()


async def test_task_that_outlives_the_transaction_it_was_started_in_may_call_again(stock: Database) -> None:
    over = asyncio.Event()

    async def child() -> list[Item]:
        with pytest.raises(TransactionOpen):
            await items(stock)
        over_soon.set()
        await over.wait()
        return await items(stock)

    over_soon = asyncio.Event()
    async with asyncio.timeout(WAIT_S):
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 1))
            task = asyncio.create_task(child())
            await over_soon.wait()
        over.set()
        assert await task == [("apple", 1)]


async def test_transaction_that_has_ended_runs_nothing_more(stock: Database) -> None:
    async with stock.transaction() as tx:
        pass
    for call in (lambda: tx.run(insert("apple", 1)), lambda: tx.execute("SELECT 1"), lambda: tx.fetch("SELECT 1")):
        with pytest.raises(Closed):
            await call()
    assert await items(stock) == []


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan, 10**30, "5", True], ids=repr)
async def test_timeout_that_is_none_is_refused_and_nothing_is_open(stock: Database, timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="`timeout` must be"):
        async with stock.transaction(timeout=timeout):
            raise AssertionError("begun")
    assert not stock.in_transaction()
    async with stock.transaction() as tx:  # nobody holds the lock
        assert await tx.fetch("SELECT 1") == [(1,)]


async def test_transaction_open_for_too_long_is_rolled_back(stock: Database) -> None:
    async def dawdle() -> None:
        async with stock.transaction(timeout=0.05) as tx:
            await tx.run(insert("apple", 1))
            await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(WAIT_S):
        with pytest.raises(DeadlineExceeded):
            await dawdle()
    assert await items(stock) == []
    await is_usable(stock)


async def test_user_s_own_timeout_stays_a_timeout(stock: Database) -> None:
    async def dawdle() -> None:
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 1))
            async with asyncio.timeout(0.01):
                await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        await dawdle()
    assert await items(stock) == []
    await is_usable(stock)


async def test_cancelled_transaction_is_rolled_back(stock: Database, peer: Database) -> None:
    inside = asyncio.Event()

    async def change_and_wait() -> None:
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 1))
            inside.set()
            await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(WAIT_S):
        task = asyncio.create_task(change_and_wait())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await is_usable(peer)  # no lock has stayed behind
    assert await items(stock) == [("still usable", 1)]
    assert not stock.in_transaction()


async def test_call_cancelled_while_it_waits_for_a_lock_does_nothing(
    engine: Engine, stock: Database, peer: Database
) -> None:
    await stock.transact(insert("apple", 1))
    async with asyncio.timeout(WAIT_S):
        async with peer.transaction() as tx:
            await tx.run(update("apple", 2))
            waiting = [asyncio.create_task(stock.transact(update("apple", 3))) for _ in range(3)]
            await engine.until_somebody_waits()
            for task in waiting:
                task.cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 3
    assert await items(stock) == [("apple", 2)]
    await is_usable(stock)


async def test_cancel_is_forgotten_at_no_moment(stock: Database, peer: Database) -> None:
    """A cancel that is swallowed on the way would let the call go on, and wait for the lock."""
    await stock.transact(insert("apple", 0))
    for moments in range(12):
        async with asyncio.timeout(WAIT_S):
            async with peer.transaction() as tx:
                await tx.run(update("apple", moments))
                tasks = [asyncio.create_task(stock.transact(update("apple", 999))) for _ in range(2)]
                for _ in range(moments):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
        assert await items(stock) == [("apple", moments)]


async def test_cancelled_many_times_at_any_moment_it_is_all_or_nothing(stock: Database) -> None:
    def both(n: int) -> Script[None]:
        yield from insert(f"a{n}", n)
        yield from insert(f"b{n}", n)

    async def interrupted(n: int) -> None:
        task = asyncio.create_task(stock.transact(both(n)))
        for _ in range(n):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(WAIT_S):
        for n in range(20):
            await interrupted(n)
    await is_usable(stock)
    found = {row.item for row in await items(stock)} - {"still usable"}
    assert {name[1:] for name in found if name[0] == "a"} == {name[1:] for name in found if name[0] == "b"}


async def test_lock_held_by_another_connection_for_too_long_is_busy(
    engine: Engine, stock: Database, peer: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.impatient(monkeypatch)
    impatient = await engine.open()
    await stock.transact(insert("apple", 1))
    try:
        async with asyncio.timeout(WAIT_S):
            async with peer.transaction() as tx:
                await tx.run(update("apple", 2))
                with pytest.raises(Busy):
                    await impatient.transact(update("apple", 3))
        assert await items(stock) == [("apple", 2)]
        await is_usable(impatient)
    finally:
        await impatient.close()


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_closed_database_refuses_everything(stock: Database) -> None:
    await stock.close()
    await stock.close()  # twice is fine
    for call in BARE.values():
        with pytest.raises(Closed):
            await call(stock)
    with pytest.raises(Closed):
        await stock.health()
    with pytest.raises(Closed):
        stock.changed("topic")


async def test_close_lets_what_runs_finish(stock: Database, peer: Database) -> None:
    running = [asyncio.create_task(stock.transact(insert(f"{n}", n))) for n in range(3)]
    await asyncio.sleep(0)  # they begin
    await stock.close()
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    assert all(outcome == 1 or isinstance(outcome, Closed) for outcome in outcomes)
    assert [row.item for row in await items(peer)] == [str(n) for n, outcome in enumerate(outcomes) if outcome == 1]


async def test_close_under_an_open_transaction_rolls_it_back(stock: Database, peer: Database) -> None:
    async def write_after_close() -> None:
        async with stock.transaction() as tx:
            await tx.run(insert("apple", 1))
            await asyncio.create_task(stock.close())
            await tx.run(insert("pear", 1))

    async with asyncio.timeout(WAIT_S):
        with pytest.raises(Closed):
            await write_after_close()
    await is_usable(peer)
    assert await items(peer) == [("still usable", 1)]


async def test_health_names_the_engine_and_its_durability(db: Database) -> None:
    engine, durability, warnings = await db.health()
    assert engine.split()[0] in ("SQLite", "PostgreSQL")
    assert durability == db.durability
    assert all(isinstance(warning, str) for warning in warnings)


# --- schema -----------------------------------------------------------------------------------------------------------


def schema(*versions: str, works_to: int = 0) -> Schema:
    return Schema(
        name="thing", versions=[[version] for version in versions], works_from=1, works_to=works_to or len(versions)
    )


V1 = "CREATE TABLE thing (id {serial}, name TEXT NOT NULL)"
V2 = "ALTER TABLE thing ADD COLUMN size BIGINT"


async def test_install_at_once_by_many_is_safe_and_idempotent(engine: Engine, connect: Connect) -> None:
    async with asyncio.timeout(WAIT_S):
        databases = [await connect() for _ in range(4)]
        for _ in range(2):
            await asyncio.gather(*(db.install(schema(V1, V2), db.claims.schema, db.logs.schema) for db in databases))
    engine.execute("INSERT INTO thing (name, size) VALUES ('a', 1)")
    assert engine.execute("SELECT version FROM faultproof_schema WHERE name = 'thing'") == [(2,)]


async def test_serial_keys_grow_and_are_never_used_again(engine: Engine, db: Database) -> None:
    await db.install(schema(V1))
    for name in "abc":
        engine.execute("INSERT INTO thing (name) VALUES (?)", (name,))
    ids = [id for (id,) in engine.execute("SELECT id FROM thing ORDER BY name")]
    assert ids == sorted(ids)
    engine.execute("DELETE FROM thing")
    engine.execute("INSERT INTO thing (name) VALUES ('d')")
    ((last,),) = engine.execute("SELECT id FROM thing")
    assert last > ids[-1]


async def test_upgrade_keeps_the_data_and_runs_only_what_is_new(engine: Engine, db: Database) -> None:
    await db.install(schema(V1))
    engine.execute("INSERT INTO thing (name) VALUES ('kept')")
    await db.install(schema(V1, V2))
    assert engine.execute("SELECT name, size FROM thing") == [("kept", None)]


async def test_upgrade_that_fails_leaves_the_old_version(engine: Engine, db: Database) -> None:
    await db.install(schema(V1))
    with pytest.raises(Exception, match="no_such_table"):
        await db.install(schema(V1, V2, "ALTER TABLE no_such_table ADD COLUMN x BIGINT"))
    assert engine.execute("SELECT version FROM faultproof_schema WHERE name = 'thing'") == [(1,)]
    await db.install(schema(V1, V2))  # which it could not if half of it were there


async def test_schema_of_a_newer_release_is_refused(db: Database) -> None:
    await db.install(schema(V1, V2))
    with pytest.raises(SchemaMismatch, match="newer"):
        await db.install(schema(V1))
    await db.install(schema(V1, works_to=2))  # unless this release says that it works with it


async def test_missing_tables_are_a_schema_mismatch(connect: Connect) -> None:
    db = await connect()
    with pytest.raises(SchemaMismatch, match="install"):
        await db.read(db.claims.holders("job"))
    with pytest.raises(SchemaMismatch, match="install"):
        await db.transact(db.logs.append("orders", [], partitions=1))


async def test_an_interrupt_inside_a_script_leaves_no_transaction_open(db: Database) -> None:
    def interrupted() -> Script[None]:
        yield from ()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await db.transact(interrupted())
    async with db.transaction() as tx:
        assert await tx.fetch("SELECT 1") == [(1,)]


# --- answers that come later ------------------------------------------------------------------------------------------


@sql("SELECT units FROM stock WHERE item = :item")
def units_of(item: str) -> list[int]: ...


@pytest.mark.parametrize("in_transaction", [True, False])
async def test_an_answer_that_comes_later_is_there_with_the_next(stock: Database, in_transaction: bool) -> None:
    await stock.transact(insert("milk", 3))
    await stock.transact(insert("bread", 5))
    found = list[int]()

    def script() -> Script[tuple[list[int], list[int]]]:
        yield from later(units_of("milk"), found.extend)
        bread = yield from units_of("bread")
        return list(found), bread

    assert await (stock.transact(script()) if in_transaction else stock.read(script(), snapshot=False)) == ([3], [5])


@pytest.mark.parametrize("in_transaction", [True, False])
async def test_an_answer_that_comes_later_is_there_at_the_end(stock: Database, in_transaction: bool) -> None:
    await stock.transact(insert("milk", 3))
    found = list[int]()
    script = later(units_of("milk"), found.extend)
    await (stock.transact(script) if in_transaction else stock.read(script, snapshot=False))
    assert found == [3]


async def test_what_a_later_answer_is_refused_for_ends_the_read(stock: Database) -> None:
    def refuse(units: list[int]) -> None:
        raise InvalidInput(f"{units}")

    def script() -> Script[list[int]]:
        yield from later(units_of("milk"), refuse)
        return (yield from units_of("bread"))

    with pytest.raises(InvalidInput, match=r"^\[\]$"):
        await stock.read(script(), snapshot=False)
    assert await stock.read(units_of("milk"), snapshot=False) == []  # on the same connection

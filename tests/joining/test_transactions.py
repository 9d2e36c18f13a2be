"""A transaction of the user's own: the same on every handle, with the library that the user has."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import faultproof
from faultproof.errors import (
    Busy,
    Closed,
    ConstraintViolated,
    InvalidInput,
    KeyReused,
    LeaseLost,
    NoTransaction,
    SchemaMismatch,
)
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.script import Begin, Commit, Inline, Script, sql
from tests.conformance.engines import Engine
from tests.joining.handles import ON_POSTGRES, Handle, Joined, maybe

pytestmark = pytest.mark.anyio

KIND = "job"
Opener = Callable[..., Awaitable[Any]]


@sql("INSERT INTO orders (id, item) VALUES (:id, :item)")
def insert(id: int, item: str) -> None: ...


def half() -> Script[None]:
    yield from insert(2, "half")
    yield from insert(1, "again")


def events(engine: Engine) -> int:
    ((count,),) = engine.execute("SELECT count(*) FROM faultproof_intake")
    return int(count)


def items(engine: Engine) -> list[str]:
    return [item for (item,) in engine.execute("SELECT item FROM orders ORDER BY id")]


async def publish(outbox: faultproof.Outbox, handle: Handle, number: int = 1) -> str:
    tx: Any = faultproof.join(handle.raw)
    return str(await maybe(outbox.publish({"number": number}, key="k", tx=tx, type="order-placed")))


# --- one transaction, the user's --------------------------------------------------------------------------------------


async def test_an_event_commits_with_the_user_s_change_and_not_before(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    await handle.execute("INSERT INTO orders VALUES (1, 'apple')")
    published = await publish(outbox, handle)
    assert (events(engine), items(engine)) == (0, [])
    await handle.commit()
    assert items(engine) == ["apple"]
    assert engine.execute("SELECT event_id FROM faultproof_intake") == [(published,)]


async def test_an_event_vanishes_with_the_user_s_change(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    await publish(outbox, handle)
    await handle.execute("INSERT INTO orders VALUES (1, 'apple')")
    await handle.rollback()
    assert (events(engine), items(engine)) == (0, [])


async def test_the_next_transaction_of_a_connection_is_joined_anew(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    for number, ends in enumerate([handle.commit, handle.rollback, handle.commit]):
        await handle.begin()
        await publish(outbox, handle, number)
        await ends()
    assert events(engine) == 2


@pytest.mark.parametrize("kept", [True, False])
async def test_a_savepoint_of_the_user_s_decides_about_what_came_after_it(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine, kept: bool
) -> None:
    await handle.begin()
    await publish(outbox, handle, 1)
    end = await handle.savepoint()
    await publish(outbox, handle, 2)
    await Joined(handle).run(insert(1, "apple"))
    await end(kept)
    await handle.commit()
    assert (events(engine), items(engine)) == ((2, ["apple"]) if kept else (1, []))


async def test_what_statements_return_arrives_as_from_the_engine_itself(
    outbox: faultproof.Outbox, db: Database, handle: Handle
) -> None:
    await handle.begin()
    joined = Joined(handle)
    assert await joined.run(db.claims.add(KIND, ["a", "b", "ä'\"%s$1:x"])) == 3
    taken = await joined.run(db.claims.take(KIND, "me", ttl_us=60_000_000, limit=5))
    assert [claim.id for claim in taken] == ["a", "b", "ä'\"%s$1:x"]
    assert all(type(claim) is Claim and type(claim.token) is int for claim in taken)
    await handle.commit()
    await db.transact(db.claims.guard(KIND, taken))


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_other_isolation_levels_are_the_user_s_to_choose(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine, level: str
) -> None:
    await handle.begin("DEFERRED" if engine.name == "sqlite" else level)
    await publish(outbox, handle)
    if engine.name == "postgres":
        (found,) = (await Joined(handle).run(isolation())).split(",")
        assert found == level.lower()
    await handle.commit()
    assert events(engine) == 1


@sql("SELECT current_setting('transaction_isolation')")
def isolation() -> str: ...


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_a_script_that_fails_is_undone_alone(
    outbox: faultproof.Outbox, db: Database, handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    await handle.execute("INSERT INTO orders VALUES (1, 'apple')")
    joined = Joined(handle)
    with pytest.raises(ConstraintViolated):
        await joined.run(half())
    with pytest.raises(LeaseLost):
        await joined.run(db.claims.guard(KIND, [Claim("a", 1, 1)]))
    await publish(outbox, handle)
    await handle.commit()
    assert (events(engine), items(engine)) == (1, ["apple"])


async def test_after_an_error_of_a_single_change_postgresql_can_only_roll_back(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    await handle.execute("INSERT INTO orders VALUES (1, 'apple')")
    with pytest.raises(ConstraintViolated):
        await Joined(handle).run(insert(1, "again"), single=True)
    if engine.name == "sqlite":
        await publish(outbox, handle)
        await handle.commit()
        assert (events(engine), items(engine)) == (1, ["apple"])
        return
    with pytest.raises(NoTransaction):
        await publish(outbox, handle)
    await handle.rollback()
    assert (events(engine), items(engine)) == (0, [])
    await handle.begin()
    await publish(outbox, handle)
    await handle.commit()
    assert events(engine) == 1


async def test_a_script_that_ends_transactions_is_refused(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    def greedy(step: Begin | Commit) -> Script[None]:
        yield from insert(1, "apple")
        yield step

    await handle.begin()
    for step in (Begin(writes=True), Commit()):
        with pytest.raises(InvalidInput, match="ends transactions"):
            await Joined(handle).run(greedy(step))
    await handle.commit()
    assert items(engine) == []


async def test_a_value_that_no_database_takes_is_refused_and_harms_nothing(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    for text in ("nul\0", "lone \ud800"):
        with pytest.raises(InvalidInput):
            await Joined(handle).run(insert(1, text))
    with pytest.raises(InvalidInput):
        await Joined(handle).run(insert(2**63, "too large"))
    await publish(outbox, handle)
    await handle.commit()
    assert events(engine) == 1


async def test_a_handle_that_would_commit_alone_is_refused(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    await handle.autocommit()
    with pytest.raises(NoTransaction):
        await publish(outbox, handle)
    assert events(engine) == 0


async def test_a_closed_handle_is_refused(outbox: faultproof.Outbox, handle: Handle, kind: str, engine: Engine) -> None:
    await handle.begin()
    await handle.rollback()
    await handle.close()
    # Django opens a closed connection again, and is then outside of any `atomic` block.
    with pytest.raises(NoTransaction if kind.startswith("django") else Closed):
        await publish(outbox, handle)
    assert events(engine) == 0


@sql("SELECT count(*) FROM faultproof_nothing")
def nothing() -> int: ...


async def test_missing_tables_are_named(outbox: faultproof.Outbox, handle: Handle) -> None:
    await handle.begin()
    with pytest.raises(SchemaMismatch, match="install"):
        await Joined(handle).run(nothing())
    await handle.rollback()


async def test_an_event_that_nobody_would_sequence_is_refused(
    outbox: faultproof.Outbox, db: Database, handle: Handle, engine: Engine
) -> None:
    options = faultproof.OutboxOptions(partitions=3)  # and it was installed with eight
    other = faultproof.Outbox(db, events={"order-placed": dict}, options=options)
    await handle.begin()
    with pytest.raises(SchemaMismatch, match="partitions"):
        await publish(other, handle)
    await handle.rollback()
    assert events(engine) == 0
    await other.close()


# --- durable calls besides publish ------------------------------------------------------------------------------------


def answers(answer: int) -> Script[int]:
    yield from insert(answer, "made")
    return answer


async def test_a_repeated_request_gets_the_first_answer_and_a_rollback_frees_its_key(
    outbox: faultproof.Outbox, db: Database, handle: Handle, engine: Engine
) -> None:
    guard = faultproof.Idempotency(db, "orders", answer=int)
    await handle.begin()
    assert await Joined(handle).run(guard.script("key", {"a": 1}, answers(7))) == 7
    await handle.rollback()
    await handle.begin()
    assert await Joined(handle).run(guard.script("key", {"a": 1}, answers(8))) == 8
    await handle.commit()
    await handle.begin()
    assert await Joined(handle).run(guard.script("key", {"a": 1}, answers(9))) == 8
    with pytest.raises(KeyReused):
        await Joined(handle).run(guard.script("key", {"a": 2}, answers(9)))
    await handle.commit()
    assert engine.execute("SELECT id FROM orders") == [(8,)]


async def test_a_message_is_seen_for_the_first_time_once(
    outbox: faultproof.Outbox, db: Database, handle: Handle, engine: Engine
) -> None:
    inbox = faultproof.MessageInbox(db, "mail")

    async def first(id: str = "m-1") -> bool:
        tx: Any = faultproof.join(handle.raw)
        return bool(await maybe(inbox.first(id, tx=tx)))

    await handle.begin()
    assert await first()
    await handle.rollback()
    await handle.begin()
    assert await first()
    assert not await first()
    assert await first("m-2")
    await handle.commit()
    await handle.begin()
    assert not await first()
    await handle.commit()
    assert await inbox.trim(older=0, limit=1) == 1
    assert engine.execute("SELECT count(*) FROM faultproof_seen") == [(1,)]


# --- what the commit promises -----------------------------------------------------------------------------------------


async def test_a_commit_that_does_not_wait_for_the_disk_is_allowed_and_reported(
    outbox: faultproof.Outbox, handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    before = await Joined(handle).health()
    assert [warning for warning in before.warnings if "synchronous" in warning] == []
    if engine.name == "sqlite":
        await handle.rollback()  # it cannot be changed inside a transaction
        await handle.execute("PRAGMA synchronous=NORMAL")
        await handle.rollback()
        await handle.begin()
    else:
        await handle.execute("SET LOCAL synchronous_commit = off")
    health = await Joined(handle).health()
    assert health.engine.startswith("SQLite 3" if engine.name == "sqlite" else "PostgreSQL 18")
    assert health.durability.lower().endswith("normal") or "synchronous_commit=off" in health.durability
    assert any("synchronous" in warning for warning in health.warnings)
    await publish(outbox, handle)
    await handle.commit()
    assert events(engine) == 1


# --- two connections --------------------------------------------------------------------------------------------------


async def test_a_duplicate_on_another_connection_is_held_off_until_the_first_has_ended(
    outbox: faultproof.Outbox, db: Database, handle: Handle, open_one: Opener, engine: Engine
) -> None:
    inbox = faultproof.MessageInbox(db, "mail")
    other = await open_one("sqlite3" if engine.name == "sqlite" else "psycopg")
    await handle.begin()
    assert await Joined(handle).run(inbox.first("m", tx=Inline()), single=True)
    if engine.name == "postgres":
        await other.execute("SET lock_timeout = 1")
    with pytest.raises(Busy):
        await Joined(other).run(inbox.first("m", tx=Inline()), single=True)
    await other.rollback()
    await handle.commit()
    assert not await Joined(other).run(inbox.first("m", tx=Inline()), single=True)
    await other.commit()


@pytest.mark.parametrize("kind", ON_POSTGRES, indirect=True)
async def test_a_snapshot_that_is_too_old_is_told_to_come_back(
    outbox: faultproof.Outbox, db: Database, handle: Handle, open_one: Opener
) -> None:
    inbox = faultproof.MessageInbox(db, "mail")
    other = await open_one("psycopg")
    await handle.begin("REPEATABLE READ")
    await handle.execute("SELECT 1 FROM orders")
    assert await Joined(other).run(inbox.first("m", tx=Inline()))
    await other.commit()
    with pytest.raises(Busy):
        await Joined(handle).run(inbox.first("m", tx=Inline()), single=True)
    await handle.rollback()

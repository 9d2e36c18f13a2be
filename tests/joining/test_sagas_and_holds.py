"""Sagas that are started, and holds that are made and ended, in a transaction of the user's: on every handle."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import (
    Busy,
    HoldEnded,
    InsufficientStock,
    KeyReused,
    NoTransaction,
    SchemaMismatch,
    UnknownHold,
    UnknownItem,
)
from faultproof.ports.database import Database
from tests.conformance.engines import Engine
from tests.fakes import within
from tests.joining.handles import HOOKED, Handle, maybe

pytestmark = pytest.mark.anyio

Opener = Callable[..., Awaitable[Any]]


async def ship(context: fp.StepContext[int]) -> int:
    return context.input + 1


def fulfilment(db: Database) -> fp.Saga[int]:
    return fp.Saga(db, "fulfil", input=int, steps=[fp.Step.remote(ship, undo=fp.NOTHING_TO_UNDO)])


@pytest.fixture
async def saga(db: Database) -> AsyncIterator[fp.Saga[int]]:
    saga = fulfilment(db)
    yield saga
    await saga.close()


@pytest.fixture
async def escrow(db: Database) -> AsyncIterator[fp.Escrow]:
    """With 5 milk."""
    escrow = fp.Escrow(db)
    await escrow.restock("milk", 5, key="d-1")
    yield escrow
    await escrow.close()


def joined(handle: Handle, wake: Database | None = None) -> Any:
    return fp.join(handle.raw, wake=wake)


async def start(saga: fp.Saga[int], handle: Handle, id: str, input: int = 1) -> bool:
    return bool(await maybe(saga.start(id, input, tx=joined(handle))))


def sagas(engine: Engine) -> list[str]:
    """Those that are stored; each has its claim, and nobody else has one."""
    there = [id for (id,) in engine.execute("SELECT id FROM faultproof_saga ORDER BY id")]
    assert [(id,) for id in there] == engine.execute(
        "SELECT id FROM faultproof_claim WHERE kind = 'saga:fulfil' ORDER BY id"
    )
    return there


async def numbers(escrow: fp.Escrow, item: str = "milk") -> tuple[int, int, int, int]:
    """Total, available, reserved, sold; of books that are in order."""
    assert (await escrow.audit()).violations == ()
    return (await escrow.item(item))[1:]


# --- sagas ------------------------------------------------------------------------------------------------------------


async def test_a_saga_is_started_with_the_user_s_change_or_not_at_all(
    saga: fp.Saga[int], handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    await handle.execute("INSERT INTO orders VALUES (1, 'apple')")
    assert await start(saga, handle, "o-1") is True
    assert sagas(engine) == []
    await handle.commit()
    assert sagas(engine) == ["o-1"]
    await handle.begin()
    assert await start(saga, handle, "o-2") is True
    await handle.rollback()
    assert sagas(engine) == ["o-1"]
    assert engine.execute("SELECT item FROM orders") == [("apple",)]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_savepoint_of_the_user_s_decides_about_the_saga_behind_it(
    saga: fp.Saga[int], handle: Handle, engine: Engine, kept: bool
) -> None:
    await handle.begin()
    await start(saga, handle, "before")
    end = await handle.savepoint()
    await start(saga, handle, "behind")
    await end(kept)
    await handle.commit()
    assert sagas(engine) == (["before", "behind"] if kept else ["before"])


async def test_no_saga_is_started_on_a_handle_that_would_commit_alone(
    saga: fp.Saga[int], handle: Handle, engine: Engine
) -> None:
    await handle.autocommit()
    with pytest.raises(NoTransaction):
        await start(saga, handle, "o-1")
    assert sagas(engine) == []


async def test_a_repeated_start_changes_nothing_and_a_refused_one_spoils_nothing(
    saga: fp.Saga[int], handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    assert [await start(saga, handle, "o-1"), await start(saga, handle, "o-1")] == [True, False]
    with pytest.raises(KeyReused, match="another input"):
        await start(saga, handle, "o-1", 2)
    assert await start(saga, handle, "o-2") is True
    await handle.commit()
    assert sagas(engine) == ["o-1", "o-2"]
    await handle.begin()
    with pytest.raises(KeyReused, match="another input"):
        await start(saga, handle, "o-2", 2)
    assert await start(saga, handle, "o-2") is False
    await handle.rollback()


async def test_a_saga_that_was_started_there_is_carried_through(
    saga: fp.Saga[int], db: Database, handle: Handle, kind: str
) -> None:
    worker = fp.Worker(db.env, saga.runner())
    running = asyncio.create_task(worker.run())
    await handle.begin()
    wake = db if kind.startswith(HOOKED) else None  # the others are found by looking
    await maybe(saga.start("o-1", 41, tx=joined(handle, wake)))
    await handle.commit()
    outcome = await within(saga.wait("o-1"))
    worker.stop()
    await within(running)
    assert isinstance(outcome, fp.Completed)
    assert dict(outcome.results) == {"ship": "42"}


async def test_tables_of_another_release_are_refused_before_a_saga_or_a_hold_is_written(
    saga: fp.Saga[int], escrow: fp.Escrow, db: Database, handle: Handle, engine: Engine
) -> None:
    engine.execute("UPDATE faultproof_schema SET version = 99 WHERE name IN ('saga', 'escrow')")
    try:
        await handle.begin()
        with pytest.raises(SchemaMismatch, match="upgrade faultproof"):
            await start(saga, handle, "o-1")
        with pytest.raises(SchemaMismatch, match="upgrade faultproof"):
            await maybe(fp.Escrow(db).reserve({"milk": 1}, key="o-1", tx=joined(handle)))
        await handle.commit()
    finally:
        engine.execute("UPDATE faultproof_schema SET version = 1 WHERE name IN ('saga', 'escrow')")
    assert sagas(engine) == []
    assert await numbers(escrow) == (5, 5, 0, 0)


@pytest.mark.parametrize("call", ["complete", "fail", "retry", "skip", "resolve", "adopt", "wait", "history"])
def test_what_is_decided_about_a_saga_joins_no_transaction(call: str) -> None:
    """README says so, and why; inside a transaction of ours it is refused with a sentence."""
    assert "tx" not in inspect.signature(getattr(fp.Saga, call)).parameters


# --- holds ------------------------------------------------------------------------------------------------------------


async def all_calls(escrow: fp.Escrow, handle: Handle) -> None:
    """Five milk and four beer become two milk sold, one milk and one beer held."""
    tx = joined(handle)
    assert await maybe(escrow.restock("beer", 4, key="d-2", tx=tx)) == ("beer", 4, 4, 0, 0)
    hold = await maybe(escrow.reserve({"milk": 2, "beer": 1}, key="o-1", ttl=60, tx=tx))
    assert (hold.key, hold.items, hold.state) == ("o-1", {"milk": 2, "beer": 1}, "held")
    longer = await maybe(escrow.extend("o-1", ttl=600, tx=tx))
    assert longer.until_us > hold.until_us
    assert (await maybe(escrow.release("o-1", tx=tx))).state == "released"
    await maybe(escrow.reserve({"milk": 2}, key="o-2", tx=tx))
    assert (await maybe(escrow.confirm("o-2", tx=tx))).state == "confirmed"
    assert (await maybe(escrow.reserve({"milk": 1, "beer": 1}, key="o-3", tx=tx))).state == "held"


async def test_every_call_commits_with_the_user_s_change_and_not_before(
    escrow: fp.Escrow, handle: Handle, engine: Engine
) -> None:
    await handle.begin()
    await handle.execute("INSERT INTO orders VALUES (1, 'apple')")
    await all_calls(escrow, handle)
    assert await numbers(escrow) == (5, 5, 0, 0)
    await handle.commit()
    assert await numbers(escrow) == (5, 2, 1, 2)
    assert await numbers(escrow, "beer") == (4, 3, 1, 0)
    assert [(await escrow.hold(key)).state for key in ("o-1", "o-2", "o-3")] == ["released", "confirmed", "held"]
    assert engine.execute("SELECT item FROM orders") == [("apple",)]


async def test_every_call_vanishes_with_the_user_s_change(escrow: fp.Escrow, handle: Handle) -> None:
    await handle.begin()
    await all_calls(escrow, handle)
    await handle.rollback()
    assert await numbers(escrow) == (5, 5, 0, 0)
    with pytest.raises(UnknownItem):
        await escrow.item("beer")
    with pytest.raises(UnknownHold):
        await escrow.hold("o-3")


@pytest.mark.parametrize("kept", [True, False])
async def test_a_savepoint_of_the_user_s_decides_about_the_holds_behind_it(
    escrow: fp.Escrow, handle: Handle, kept: bool
) -> None:
    await handle.begin()
    tx = joined(handle)
    await maybe(escrow.reserve({"milk": 1}, key="before", tx=tx))
    end = await handle.savepoint()
    await maybe(escrow.reserve({"milk": 2}, key="behind", tx=tx))
    await maybe(escrow.confirm("before", tx=tx))
    await end(kept)
    await handle.commit()
    assert await numbers(escrow) == ((5, 2, 2, 1) if kept else (5, 4, 1, 0))


async def test_no_call_is_made_on_a_handle_that_would_commit_alone(escrow: fp.Escrow, handle: Handle) -> None:
    await escrow.reserve({"milk": 1}, key="o-1")
    await handle.autocommit()
    calls: list[Callable[[], Any]] = [
        lambda: escrow.restock("milk", 1, key="d-2", tx=joined(handle)),
        lambda: escrow.reserve({"milk": 1}, key="o-2", tx=joined(handle)),
        lambda: escrow.confirm("o-1", tx=joined(handle)),
        lambda: escrow.release("o-1", tx=joined(handle)),
        lambda: escrow.extend("o-1", tx=joined(handle)),
    ]
    for call in calls:
        with pytest.raises(NoTransaction):
            await maybe(call())
    assert await numbers(escrow) == (5, 4, 1, 0)


async def test_a_refusal_changes_nothing_and_the_transaction_goes_on(escrow: fp.Escrow, handle: Handle) -> None:
    await handle.begin()
    tx = joined(handle)
    refusals: list[tuple[type[Exception], Callable[[], Any]]] = [
        (InsufficientStock, lambda: escrow.reserve({"milk": 6}, key="o-1", tx=tx)),
        (UnknownItem, lambda: escrow.reserve({"milk": 1, "beer": 1}, key="o-1", tx=tx)),
        (UnknownHold, lambda: escrow.confirm("o-1", tx=tx)),
        (KeyReused, lambda: escrow.restock("milk", 7, key="d-1", tx=tx)),
    ]
    for refused, call in refusals:
        with pytest.raises(refused):
            await maybe(call())
    await maybe(escrow.reserve({"milk": 5}, key="o-1", tx=tx))
    await maybe(escrow.release("o-1", tx=tx))
    with pytest.raises(HoldEnded):
        await maybe(escrow.confirm("o-1", tx=tx))
    await maybe(escrow.reserve({"milk": 1}, key="o-2", tx=tx))
    await handle.commit()
    assert await numbers(escrow) == (5, 4, 1, 0)


async def test_the_same_key_is_the_same_hold_inside_and_outside(escrow: fp.Escrow, handle: Handle) -> None:
    first = await escrow.reserve({"milk": 2}, key="o-1")
    await handle.begin()
    tx = joined(handle)
    assert (await maybe(escrow.reserve({"milk": 2}, key="o-1", tx=tx))).until_us == first.until_us
    second = await maybe(escrow.reserve({"milk": 1}, key="o-2", tx=tx))
    await handle.commit()
    assert (await escrow.reserve({"milk": 1}, key="o-2")).until_us == second.until_us
    assert await numbers(escrow) == (5, 2, 3, 0)


async def test_what_the_user_s_transaction_has_locked_is_busy_for_others_until_it_ends(
    db: Database, escrow: fp.Escrow, handle: Handle, engine: Engine, open_one: Opener
) -> None:
    other = await open_one("sqlite3" if engine.name == "sqlite" else "psycopg")
    impatient = fp.Escrow(db, options=fp.EscrowOptions(lock_timeout=0.05))
    await handle.begin()
    await maybe(escrow.reserve({"milk": 5}, key="o-1", tx=joined(handle)))
    if engine.name == "postgres":
        await other.execute("SET lock_timeout = 1")
        with pytest.raises(Busy):
            await impatient.reserve({"milk": 1}, key="o-2")
    with pytest.raises(Busy):
        await maybe(escrow.reserve({"milk": 1}, key="o-3", tx=joined(other)))
    await other.rollback()
    await handle.rollback()
    await maybe(escrow.reserve({"milk": 1}, key="o-3", tx=joined(other)))
    await other.commit()
    assert await numbers(escrow) == (5, 4, 1, 0)
    await impatient.close()

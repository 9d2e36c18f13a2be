"""A database works in the event loop that it was connected in; anywhere else it says so, instead of waiting for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from faultproof.errors import Closed, Misuse
from faultproof.ports.database import Database
from tests.conformance.engines import WAIT_S, Engine

pytestmark = pytest.mark.anyio


async def _listen(db: Database) -> None:
    db.changed("topic")


async def _ask(db: Database) -> None:
    db.in_transaction()


CALLS: dict[str, Callable[[Database], Awaitable[Any]]] = {
    "transact": lambda db: db.transact(db.claims.add("job", ["elsewhere"])),
    "read": lambda db: db.read(db.claims.holders("job")),
    "transaction": lambda db: db.transaction().__aenter__(),
    "install": lambda db: db.install(db.claims.schema),
    "health": lambda db: db.health(),
    "changed": _listen,
    "in_transaction": _ask,
    "close": lambda db: db.close(),
}


def _run(call: Callable[[Database], Awaitable[Any]], db: Database) -> Any:
    """In an event loop of its own, for which nobody has to wait for ever."""

    async def bounded() -> Any:
        async with asyncio.timeout(WAIT_S):
            return await call(db)

    return asyncio.run(bounded())


@pytest.mark.parametrize("call", CALLS)
async def test_another_event_loop_is_refused_at_once_and_harms_nothing(db: Database, call: str) -> None:
    with pytest.raises(Misuse, match="another: connect in each"):
        await asyncio.to_thread(_run, CALLS[call], db)
    async with db.transaction() as tx:  # it would have to wait for this one
        await tx.run(db.claims.add("job", ["here"]))
        with pytest.raises(Misuse, match="another: connect in each"):
            await asyncio.to_thread(_run, CALLS[call], db)
    assert [holder.id for holder in await db.read(db.claims.holders("job"))] == ["here"]


async def test_an_open_transaction_is_not_used_from_another_event_loop(db: Database) -> None:
    async with db.transaction() as tx:
        calls: list[Callable[[Database], Awaitable[Any]]] = [
            lambda _: tx.execute("SELECT 1"),
            lambda _: tx.fetch("SELECT 1"),
            lambda _: tx.run(db.claims.add("job", ["elsewhere"])),
        ]
        for call in calls:
            with pytest.raises(Misuse, match="event loop"):
                await asyncio.to_thread(_run, call, db)
        assert await tx.fetch("SELECT 1") == [(1,)]
    assert await db.read(db.claims.holders("job")) == []


async def test_code_outside_any_event_loop_is_told_the_same(db: Database) -> None:
    for call in (lambda: db.changed("topic"), db.in_transaction):
        with pytest.raises(Misuse, match="event loop"):
            await asyncio.to_thread(call)


def test_a_database_whose_loop_was_closed_is_refused_and_can_still_be_closed(engine: Engine) -> None:
    async def connected() -> Database:
        database = await engine.open()
        await database.install(database.claims.schema)
        database.changed("topic")
        return database

    db = asyncio.run(connected())
    for name, call in CALLS.items():
        if name != "close":
            with pytest.raises(Misuse, match="event loop"):
                _run(call, db)
    _run(CALLS["close"], db)
    _run(CALLS["close"], db)
    with pytest.raises(Closed):
        _run(CALLS["transact"], db)
    assert engine.execute("SELECT count(*) FROM faultproof_claim") == [(0,)]

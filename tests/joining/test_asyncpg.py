"""asyncpg's own: its codecs, its pool, and one operation at a time."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

import faultproof
from faultproof.errors import Closed, Misuse, NoTransaction
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from tests.conformance.engines import Postgres
from tests.joining.test_transactions import events, insert

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("kind", ["asyncpg"], indirect=True)]


@pytest.fixture
async def raw(place: str) -> AsyncIterator[Any]:
    """The user's connection."""
    raw = await asyncpg.connect(place)
    yield raw
    await raw.close()


async def test_codecs_and_record_classes_of_the_user_s_stay_out_of_it(
    outbox: faultproof.Outbox, db: Database, place: str, engine: Postgres
) -> None:
    class Mine(asyncpg.Record):  # type: ignore[misc]
        def __iter__(self) -> Any:
            return iter(self.keys())

    for cached in (100, 0):
        raw = await asyncpg.connect(place, record_class=Mine, statement_cache_size=cached)
        for kind in ("json", "jsonb"):
            await raw.set_type_codec(kind, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        async with raw.transaction():
            tx = faultproof.join(raw)
            await outbox.publish({"a": [1]}, key="k", tx=tx, type="order-placed")
            await tx.run(db.claims.add("job", ["a"]))
            (claim,) = await tx.run(db.claims.take("job", "me", ttl_us=0, limit=1))
            assert type(claim) is Claim
            assert claim.id == "a"
        await raw.close()
    assert engine.execute("SELECT payload FROM faultproof_intake") == [('{"a":[1]}',)] * 2


async def test_use_by_two_tasks_at_once_is_one_clear_error(
    outbox: faultproof.Outbox, raw: Any, engine: Postgres
) -> None:
    async with raw.transaction():
        tx = faultproof.join(raw)
        busy = asyncio.create_task(raw.fetch("SELECT pg_sleep(0.2)"))
        await asyncio.sleep(0)
        with pytest.raises(Misuse, match="busy with another operation"):
            await outbox.publish({}, key="k", tx=tx, type="order-placed")
        await busy
        await outbox.publish({}, key="k", tx=tx, type="order-placed")
    assert events(engine) == 1


async def test_outside_a_transaction_the_block_to_open_is_named(outbox: faultproof.Outbox, raw: Any) -> None:
    with pytest.raises(NoTransaction, match=r"connection.transaction\(\)"):
        faultproof.join(raw)


async def test_what_was_given_back_to_the_pool_is_refused(outbox: faultproof.Outbox, place: str) -> None:
    async with asyncpg.create_pool(place, min_size=1, max_size=1) as pool:
        raw = await pool.acquire()
        transaction = raw.transaction()
        await transaction.start()
        tx = faultproof.join(raw)
        await transaction.rollback()
        await pool.release(raw)
        with pytest.raises(Closed, match="given back"):
            await tx.run(insert(1, "apple"))
        with pytest.raises(Closed, match="given back"):
            faultproof.join(raw)


async def test_another_event_loop_is_refused(outbox: faultproof.Outbox, raw: Any) -> None:
    async with raw.transaction():
        tx = faultproof.join(raw)

        def with_what_was_joined_here() -> None:
            with pytest.raises(Misuse, match="another event loop"):
                asyncio.run(tx.run(insert(1, "apple")))

        async def joined_there() -> None:
            await faultproof.join(raw).run(insert(1, "apple"))

        def with_what_is_joined_there() -> None:
            with pytest.raises(Misuse, match="another event loop"):
                asyncio.run(joined_there())

        await asyncio.to_thread(with_what_was_joined_here)
        await asyncio.to_thread(with_what_is_joined_there)
        await tx.run(insert(1, "apple"))  # nothing was sent, so nothing is broken


async def test_a_server_s_end_is_news_of_a_lost_transaction(
    outbox: faultproof.Outbox, raw: Any, engine: Postgres
) -> None:
    async with asyncio.timeout(20):
        transaction = raw.transaction()
        await transaction.start()
        tx = faultproof.join(raw)
        engine.execute("SELECT pg_terminate_backend(?, 5000)", (raw.get_server_pid(),))
        with pytest.raises((faultproof.errors.TryAgain, Closed)):
            await tx.run(insert(1, "apple"))
        with pytest.raises(Closed):
            await tx.run(insert(1, "apple"))

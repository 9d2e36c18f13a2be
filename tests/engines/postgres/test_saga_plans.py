"""A table that is empty whenever the server looks at it, and full of dead rows in between, is looked into by its index."""

import asyncio

import psycopg
import pytest

import faultproof as fp
from tests.engines.postgres.conftest import Open
from tests.fakes import within

pytestmark = pytest.mark.anyio

SAGAS = 300


async def _charge(context: fp.StepContext[int]) -> None: ...


async def test_claims_are_not_read_from_end_to_end_after_they_were_analyzed_empty(
    connect: Open, postgres_url: str
) -> None:
    db = await connect()
    saga = fp.Saga(db, "order", input=int, steps=[fp.Step.remote(_charge, undo=fp.NOTHING_TO_UNDO)])
    await saga.install()
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("VACUUM ANALYZE faultproof_claim, faultproof_saga, faultproof_saga_entry")
        worker = fp.Worker(db.env, saga.runner())
        running = asyncio.create_task(worker.run())
        for batch in range(0, SAGAS, 30):
            ids = [f"order-{batch + n}" for n in range(30)]
            await within(asyncio.gather(*(saga.start(id, 1) for id in ids)))
            for id in ids:
                assert isinstance(await within(saga.wait(id)), fp.Completed)
        worker.stop()
        await within(running)
        await saga.close()
        await db.close()  # a process of the server says what it has done at its end
        rows = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'faultproof_claim'"
        for _ in range(100):
            ((whole, by_index),) = raw.execute(rows).fetchall()
            if by_index >= SAGAS:
                break
            await db.env.clock.sleep(0.05)
    assert by_index >= SAGAS
    assert whole < SAGAS / 10

"""A pgbouncer before the server: worked with in transaction mode, and refused where there are no transactions."""

import asyncio
import itertools

import pytest

import faultproof as fp
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.errors import NotSupported
from faultproof.ports.database import Transaction
from faultproof.ports.script import Script, Wake
from tests.cli.executable import refusals
from tests.engines.postgres.pooler import POOLERS, pooler
from tests.engines.postgres.test_line import listeners

pytestmark = pytest.mark.anyio

WAIT_S = 20.0


async def test_pooler_in_transaction_mode_is_found_out_and_worked_with(postgres_url: str) -> None:
    """Three server connections behind it, lent round robin: what a session keeps is somewhere else each time."""
    with pooler(postgres_url, mode="transaction", program=POOLERS[0]) as url:
        async with asyncio.timeout(WAIT_S * 2), fp.connect(url) as db, fp.connect(url) as peer:
            outbox = fp.Outbox(db, events={"Said": dict})
            await outbox.install()
            seen: list[int] = []
            all_seen = asyncio.Event()

            async def handle(event: fp.Event[dict[str, int]], tx: Transaction) -> None:
                assert await tx.fetch("SHOW lock_timeout") == [("5s",)]
                seen.append(event.body["n"])
                if len(seen) == 30:
                    all_seen.set()

            worker = fp.Worker(db.env, outbox.sequencer(), outbox.consumer("all", handle))
            running = asyncio.create_task(worker.run())
            others = fp.Outbox(peer, events={"Said": dict})
            for n in range(30):
                await others.publish({"n": n}, key="a", type="Said")
            await all_seen.wait()
            worker.stop()
            await running
            assert seen == list(range(30))
            await outbox.close()
            await others.close()


async def test_through_a_pooler_one_is_heard_and_hears_by_looking(postgres_url: str, db: PostgresDatabase) -> None:
    def wake(topic: str) -> Script[None]:
        yield Wake(topic)
        yield from db.claims.add(topic, [f"{next(numbers)}"])  # who looks sees commits that wrote something

    numbers = itertools.count()
    with pooler(postgres_url, mode="transaction", program=POOLERS[0]) as url:
        async with asyncio.timeout(WAIT_S), fp.connect(url) as behind:
            for listening, telling in ((db, behind), (behind, db)):
                news = listening.changed("topic")
                while await news.wait(0.3):  # what it tells when it begins to hear
                    pass
                assert len(listeners(postgres_url)) == 1  # who is not behind it
                if listening is db:
                    await telling.transact(wake("another"))
                    assert not await news.wait(0.3)  # it hears which
                await telling.transact(wake("topic"))
                assert await news.wait(WAIT_S)
                news.close()


async def test_pooler_in_statement_mode_is_refused(postgres_url: str) -> None:
    with pooler(postgres_url, mode="statement", program=POOLERS[0]) as url:
        with pytest.raises(NotSupported, match="a pooler before it must be in transaction or session mode") as caught:
            await fp.connect(url)
        (said,) = await asyncio.to_thread(refusals, ["outbox", "lag", "--db", url])
        assert said == str(caught.value)

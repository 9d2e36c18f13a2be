"""Wake-ups: whoever waits hears of commits soon, and waits no longer than it said."""

import asyncio

import pytest

from faultproof.errors import Closed
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake
from tests.conformance.engines import WAIT_S

pytestmark = pytest.mark.anyio


def wake(topic: str) -> Script[None]:
    yield Wake(topic)


async def test_listener_hears_of_a_commit_of_its_own_database_and_of_another(db: Database, peer: Database) -> None:
    async with asyncio.timeout(WAIT_S):
        news = db.changed("orders")
        for committer in (db, peer):
            waiting = asyncio.create_task(news.wait(WAIT_S))
            await committer.transact(wake("orders"))
            assert await waiting is True
        news.close()


async def test_commit_between_two_waits_is_heard_of(db: Database) -> None:
    async with asyncio.timeout(WAIT_S):
        news = db.changed("orders")
        async with db.transaction() as tx:
            await tx.run(wake("orders"))
        assert await news.wait(WAIT_S) is True
        news.close()


async def test_wait_without_news_ends_when_it_said(db: Database) -> None:
    async with asyncio.timeout(WAIT_S):
        news = db.changed("orders")
        while await news.wait(0.005):  # an engine that has just begun to hear tells of what it may have missed
            pass
        news.close()


async def test_two_listeners_both_hear(db: Database) -> None:
    async with asyncio.timeout(WAIT_S):
        listeners = [db.changed("orders"), db.changed("orders")]
        await db.transact(wake("orders"))
        assert [await news.wait(WAIT_S) for news in listeners] == [True, True]
        for news in listeners:
            news.close()
            news.close()  # twice is fine


async def test_waiting_may_be_cancelled_and_resumed(db: Database) -> None:
    async with asyncio.timeout(WAIT_S):
        news = db.changed("orders")
        waiting = asyncio.create_task(news.wait(WAIT_S))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await db.transact(wake("orders"))
        assert await news.wait(WAIT_S) is True
        news.close()


async def test_close_ends_the_waiting(db: Database) -> None:
    async with asyncio.timeout(WAIT_S):
        waiting = asyncio.create_task(db.changed("orders").wait(WAIT_S))
        await asyncio.sleep(0)
        await db.close()
        await waiting
        with pytest.raises(Closed):
            db.changed("orders")

"""Hearing of commits: of those that are told of, of those that nobody tells, and again after the connection was lost."""

import asyncio

import psycopg
import pytest

from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.ports.database import News
from faultproof.ports.log import intake_topic
from faultproof.ports.script import Script, Wake
from tests.engines.postgres.conftest import Open
from tests.moving import moving

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
LOG = "orders"
RAW = (
    'INSERT INTO faultproof_intake (log, "partition", due_us, at_us, event_id, type, payload)'
    " VALUES ('orders', 0, 0, 0, 'a', 'T', '{}')"
)


async def silent(news: News) -> None:
    """Until what it tells when it begins to hear has been told."""
    while await news.wait(0.3):
        pass


async def heard(news: News) -> None:
    async with asyncio.timeout(WAIT_S):
        assert await news.wait(WAIT_S)


def listeners(url: str) -> list[int]:
    with psycopg.connect(url, autocommit=True) as raw:
        found = raw.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        return [pid for (pid,) in found.fetchall()]


def wake(topic: str) -> Script[None]:
    yield Wake(topic)


async def test_raw_commit_is_heard_of_by_who_sequences(db: PostgresDatabase, postgres_url: str) -> None:
    news = db.changed(intake_topic(LOG))
    await silent(news)
    await db.read(db.logs.ready(LOG))  # from here on it is this process's to look after
    with psycopg.connect(postgres_url) as raw:
        raw.execute(RAW)
        assert not await news.wait(0.3)  # it is not committed
        raw.commit()
    await heard(news)
    assert await db.transact(moving(db.logs, LOG, [0, 1], limit=10)) == 1
    await silent(news)
    news.close()


async def test_who_does_not_sequence_does_not_look(db: PostgresDatabase, postgres_url: str) -> None:
    news = db.changed(intake_topic(LOG))
    await silent(news)
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(RAW)
    assert not await news.wait(0.3)
    news.close()


async def test_listening_goes_on_when_its_connection_was_lost(
    db: PostgresDatabase, peer: PostgresDatabase, postgres_url: str
) -> None:
    news = db.changed("topic")
    await silent(news)
    (listener,) = listeners(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("SELECT pg_terminate_backend(%s, 10000)", (listener,))
    await heard(news)  # it tells of what it may have missed
    await silent(news)
    assert len(listeners(postgres_url)) == 1
    await peer.transact(wake("topic"))
    await heard(news)
    news.close()


async def test_speaking_goes_on_when_its_connection_was_lost(
    db: PostgresDatabase, peer: PostgresDatabase, postgres_url: str
) -> None:
    news = db.changed("topic")
    await silent(news)
    await peer.transact(wake("topic"))
    await heard(news)
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE query LIKE '%pg_notify%' AND pid <> pg_backend_pid()"
        )
    await silent(news)
    await peer.transact(wake("topic"))
    await heard(news)
    news.close()


async def test_database_that_only_writes_has_nobody_listening(db: PostgresDatabase, postgres_url: str) -> None:
    await db.transact(wake("topic"))
    assert listeners(postgres_url) == []


async def test_what_was_told_just_before_closing_is_heard(
    db: PostgresDatabase, connect: Open, postgres_url: str
) -> None:
    news = db.changed("topic")
    await silent(news)
    brief = await connect()
    await brief.transact(wake("topic"))  # it has no connection for that yet
    await brief.close()
    await heard(news)
    news.close()


async def test_after_a_line_is_closed_nothing_is_told(db: PostgresDatabase, connect: Open) -> None:
    news = db.changed("topic")
    await silent(news)
    brief = await connect()
    await brief.transact(wake("other"))
    await brief.close()
    brief.wake(["topic"])
    await asyncio.to_thread(brief.wake, ["topic"])
    assert not await news.wait(0.3)
    news.close()


async def test_many_commits_are_told_of_together(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    news = [db.changed(f"topic-{number}") for number in range(50)]
    await asyncio.gather(*(silent(one) for one in news))
    for number in range(50):
        peer.wake([f"topic-{number}"])
    for one in news:
        await heard(one)
        one.close()


async def test_topics_that_no_server_takes_do_not_stop_the_others(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    news = db.changed("topic")
    await silent(news)
    peer.wake(["nul\0", "lone \ud800", "x" * 9_000, "topic"])
    await heard(news)
    news.close()


async def test_a_question_that_fails_is_taken_for_the_commits_end(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    def fails() -> bool:
        raise RuntimeError("closed meanwhile")

    news = db.changed("topic")
    await silent(news)
    peer.wake(["topic"], after=fails)
    await heard(news)
    news.close()


async def test_own_commit_wakes_once(db: PostgresDatabase) -> None:
    news = db.changed("topic")
    await silent(news)
    await db.transact(wake("topic"))
    await heard(news)
    assert not await news.wait(0.3)
    news.close()


async def test_closing_leaves_no_listener(connect: Open, postgres_url: str) -> None:
    other = await connect()
    await silent(other.changed("topic"))
    assert len(listeners(postgres_url)) == 1
    await other.close()
    async with asyncio.timeout(WAIT_S):  # the server needs a moment to notice
        while await asyncio.to_thread(listeners, postgres_url):
            pass

"""News of a commit that is the user's: at once where the library tells of commits, by the poll where it does not."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import faultproof
from faultproof.clock import Env
from faultproof.engines import postgres, sqlite
from faultproof.errors import NotSupported
from faultproof.ports.database import Database, News
from faultproof.ports.log import intake_topic
from tests.conformance.engines import WAIT_S, Engine, Postgres, Sqlite
from tests.joining.handles import HOOKED, ON_POSTGRES, ON_SQLITE, Handle, maybe

pytestmark = pytest.mark.anyio

TOPIC = intake_topic("outbox")
QUIET_S = 0.02
NEVER_S = 3_600.0
WITH_HOOKS = [kind for kind in (*ON_SQLITE, *ON_POSTGRES) if kind.startswith(HOOKED)]
WITHOUT = [kind for kind in (*ON_SQLITE, *ON_POSTGRES) if not kind.startswith(HOOKED)]


async def deaf(engine: Engine) -> Database:
    """A `Database` that hears what is sent, and never looks by itself."""
    if isinstance(engine, Sqlite):
        return await sqlite.open_database(str(engine.path), env=Env(), poll_s=NEVER_S)
    assert isinstance(engine, Postgres)
    options = faultproof.PostgresOptions(poll=NEVER_S)
    return await postgres.open_database(engine.url, env=Env(), options=options)


@pytest.fixture
async def speaker(engine: Engine) -> AsyncIterator[Database]:
    """The database of the process that commits."""
    database = await engine.open()
    yield database
    await database.close()


@pytest.fixture
async def news(engine: Engine, speaker: Database) -> AsyncIterator[News]:
    """What another process hears, and nothing that it would find by looking."""
    listener = await deaf(engine)
    news = listener.changed(TOPIC)
    speaker.wake([TOPIC])
    assert await news.wait(WAIT_S)
    # Whoever has just begun to hear is told of what it may have missed, and of this besides: news come in order.
    settled = listener.changed("settled")
    speaker.wake(["settled"])
    assert await settled.wait(WAIT_S)
    while await news.wait(QUIET_S):
        pass
    yield news
    await listener.close()


async def publish(outbox: faultproof.Outbox, handle: Handle, wake: Database) -> None:
    tx: Any = faultproof.join(handle.raw, wake=wake)
    await maybe(outbox.publish({}, key="k", tx=tx, type="order-placed"))


def seen(engine: Engine) -> int:
    ((count,),) = engine.execute("SELECT count(*) FROM faultproof_intake")
    return int(count)


@pytest.mark.parametrize("kind", WITH_HOOKS, indirect=True)
async def test_a_commit_is_heard_of_at_once_and_never_before_it(
    outbox: faultproof.Outbox, handle: Handle, news: News, speaker: Database, engine: Engine
) -> None:
    for number in range(1, 4):  # on one connection: each transaction tells for itself
        await handle.begin()
        await publish(outbox, handle, speaker)
        await publish(outbox, handle, speaker)
        assert not await news.wait(QUIET_S)
        await handle.commit()
        assert await news.wait(WAIT_S)
        assert seen(engine) == 2 * number
        while await news.wait(QUIET_S):
            pass


@pytest.mark.parametrize(
    "kind", ["session+psycopg", "async-connection+asyncpg", "async-session+psycopg"], indirect=True
)
async def test_while_a_commit_is_under_way_nobody_is_told(
    outbox: faultproof.Outbox, handle: Handle, news: News, speaker: Database, engine: Engine
) -> None:
    async def heard() -> int:
        assert await news.wait(WAIT_S)
        return await asyncio.to_thread(seen, engine)

    await handle.begin()
    await _slow_down_the_commit(handle)
    await publish(outbox, handle, speaker)
    hearing = asyncio.create_task(heard())
    if asyncio.iscoroutinefunction(handle.raw.commit):
        await handle.commit()
    else:
        await asyncio.to_thread(handle.raw.commit)
    assert await hearing == 1


async def _slow_down_the_commit(handle: Handle) -> None:
    """A check that the server puts off until the COMMIT, and takes its time for; it goes with the connection."""
    await handle.execute("CREATE TEMP TABLE checked (id INTEGER)")
    await handle.execute(
        "CREATE FUNCTION pg_temp.check_slowly() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END'"
    )
    await handle.execute(
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION pg_temp.check_slowly()"
    )
    await handle.execute("INSERT INTO checked VALUES (1)")


@pytest.mark.parametrize("kind", WITH_HOOKS, indirect=True)
async def test_nothing_is_heard_of_a_rollback_nor_of_the_commit_after_it(
    outbox: faultproof.Outbox, handle: Handle, news: News, speaker: Database
) -> None:
    await handle.begin()
    await publish(outbox, handle, speaker)
    await handle.rollback()
    assert not await news.wait(QUIET_S)
    await handle.begin()
    await handle.execute("INSERT INTO orders VALUES (1, 'apple')")
    await handle.commit()
    assert not await news.wait(QUIET_S)


@pytest.mark.parametrize("kind", WITH_HOOKS, indirect=True)
async def test_the_end_of_a_savepoint_is_no_commit(
    outbox: faultproof.Outbox, handle: Handle, news: News, speaker: Database
) -> None:
    await handle.begin()
    end = await handle.savepoint()
    await publish(outbox, handle, speaker)
    await end(True)
    assert not await news.wait(QUIET_S)
    await handle.commit()
    assert await news.wait(WAIT_S)


@pytest.mark.parametrize("kind", WITHOUT, indirect=True)
async def test_where_nobody_tells_of_a_commit_the_poll_finds_it(
    outbox: faultproof.Outbox, db: Database, handle: Handle, speaker: Database
) -> None:
    sequencer = outbox.sequencer()
    news = await sequencer.open()
    while await sequencer.step() == 0 or await news.wait(2 * QUIET_S):
        pass
    await handle.begin()
    tx: Any = faultproof.join(handle.raw)
    await maybe(outbox.publish({}, key="k", tx=tx, type="order-placed"))
    await handle.commit()
    assert await news.wait(WAIT_S)
    await sequencer.close()
    with pytest.raises(NotSupported, match="poll"):
        faultproof.join(handle.raw, wake=speaker)


@pytest.mark.parametrize("kind", ["sqlite3", "psycopg"], indirect=True)
async def test_a_user_may_tell_of_a_commit_from_any_thread(news: News, speaker: Database) -> None:
    thread = threading.Thread(target=speaker.wake, args=([TOPIC],))
    thread.start()
    thread.join(WAIT_S)
    assert await news.wait(WAIT_S)


@pytest.mark.parametrize("kind", ["sqlite3", "psycopg"], indirect=True)
async def test_a_database_that_is_closed_tells_nobody_and_fails_nobody(news: News, engine: Engine) -> None:
    closed = await engine.open()
    await closed.close()
    closed.wake([TOPIC])
    assert not await news.wait(QUIET_S)


@pytest.mark.parametrize("kind", ["sqlite3", "psycopg"], indirect=True)
async def test_a_commit_under_way_is_told_of_when_it_has_ended(news: News, speaker: Database) -> None:
    ended = threading.Event()
    speaker.wake([TOPIC], after=ended.is_set)
    assert not await news.wait(QUIET_S)
    ended.set()
    assert await news.wait(WAIT_S)


def test_synchronous_code_wakes_through_the_background_loop(joining_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(joining_file) as template, sqlite3.connect(path) as copy:
        template.backup(copy)
    template.close()
    copy.close()
    engine = sa.create_engine(f"sqlite:///{path}")

    async def listen() -> News:
        return db.changed(TOPIC)

    with faultproof.Blocking() as blocking:
        db = blocking.call(sqlite.open_database, str(path), env=Env(), poll_s=NEVER_S)
        news = blocking.call(listen)
        outbox = faultproof.Outbox(db, events={"order-placed": dict})
        with Session(engine) as session, session.begin():
            outbox.publish({}, key="k", tx=faultproof.join(session, wake=db), type="order-placed")
            assert not blocking.call(news.wait, QUIET_S)
        assert blocking.call(news.wait, WAIT_S)
        blocking.call(db.close)
    db.wake([TOPIC])  # the loop is gone: nobody to tell, and no error
    engine.dispose()

"""SQLAlchemy's own: objects not yet written, its events, its recipes, its scopes, its two phases."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

import faultproof
from faultproof.errors import Misuse, NoTransaction
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from tests.conformance.engines import Engine
from tests.joining.test_transactions import events, insert, items
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.anyio

on_sqlite = pytest.mark.parametrize("kind", ["session+pysqlite"], indirect=True)
on_psycopg = pytest.mark.parametrize("kind", ["session+psycopg"], indirect=True)
on_asyncpg = pytest.mark.parametrize("kind", ["async-session+asyncpg"], indirect=True)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


@sql("SELECT count(*) FROM orders")
def orders() -> int: ...


@pytest.fixture
def alchemy(place: str) -> Iterator[sa.Engine]:
    """The user's engine, on SQLite."""
    engine = sa.create_engine(f"sqlite:///{place}")
    yield engine
    engine.dispose()


@on_sqlite
async def test_objects_of_the_session_are_written_before_the_event(
    outbox: faultproof.Outbox, alchemy: sa.Engine
) -> None:
    # Per key, events keep the order of the commits only if each follows the write that locks the key's row.
    with Session(alchemy) as session:
        session.add(Order(id=1, item="apple"))
        assert faultproof.join(session).run(orders()) == 1
        with session.no_autoflush:
            session.add(Order(id=2, item="pear"))
            assert faultproof.join(session).run(orders()) == 1


@on_sqlite
async def test_an_error_of_the_session_s_own_objects_is_its_user_s(
    outbox: faultproof.Outbox, alchemy: sa.Engine, engine: Engine
) -> None:
    with Session(alchemy) as session:
        session.add(Order(id=1, item="apple"))
        session.flush()
        session.expunge_all()
        session.add(Order(id=1, item="again"))
        with pytest.raises(exc.IntegrityError):
            faultproof.join(session).run(orders())
        session.rollback()
    assert items(engine) == []


@on_sqlite
async def test_the_events_of_a_flush_are_a_place_to_publish_in(
    outbox: faultproof.Outbox, alchemy: sa.Engine, engine: Engine
) -> None:
    with Session(alchemy) as session:

        @event.listens_for(session, "after_flush")
        def publish(session: Session, context: object) -> None:
            outbox.publish({}, key="k", tx=faultproof.join(session), type="order-placed")

        session.add(Order(id=1, item="apple"))
        session.commit()
    assert (events(engine), items(engine)) == (1, ["apple"])


@on_sqlite
async def test_the_recipe_that_begins_by_itself_is_no_autocommit(
    outbox: faultproof.Outbox, alchemy: sa.Engine, engine: Engine
) -> None:
    @event.listens_for(alchemy, "connect")
    def leave_transactions_to_us(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(alchemy, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    for ends in ("commit", "rollback"):
        with Session(alchemy) as session:
            outbox.publish({}, key="k", tx=faultproof.join(session), type="order-placed")
            getattr(session, ends)()
    assert events(engine) == 1


@on_psycopg
async def test_a_session_inside_the_transaction_of_a_connection_commits_with_that(
    outbox: faultproof.Outbox, db: Database, place: str, engine: Engine
) -> None:
    # As test suites have it: the session's commit is then the end of a savepoint.
    alchemy = sa.create_engine(place.replace("postgresql", "postgresql+psycopg"))
    with alchemy.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            outbox.publish({}, key="k", tx=faultproof.join(session, wake=db), type="order-placed")
            session.commit()
        outer.rollback()
    alchemy.dispose()
    assert events(engine) == 0


@on_sqlite
async def test_scoped_sessions_are_those_of_their_scope(
    outbox: faultproof.Outbox, alchemy: sa.Engine, engine: Engine, place: str
) -> None:
    session = scoped_session(sessionmaker(alchemy))
    outbox.publish({}, key="k", tx=faultproof.join(session), type="order-placed")
    session.commit()
    session.remove()
    ours = create_async_engine(f"sqlite+aiosqlite:///{place}")
    scoped = async_scoped_session(async_sessionmaker(ours), scopefunc=asyncio.current_task)
    await outbox.publish({}, key="k", tx=faultproof.join(scoped), type="order-placed")
    await scoped.commit()
    await scoped.remove()
    await ours.dispose()
    assert events(engine) == 2


@on_sqlite
async def test_a_failed_call_leaves_no_lock_that_the_user_did_not_take(
    outbox: faultproof.Outbox, alchemy: sa.Engine, engine: Engine
) -> None:
    def fails() -> Script[None]:
        yield from insert(1, "apple")
        raise KeyError

    with alchemy.connect() as connection:
        with pytest.raises(KeyError):
            faultproof.join(connection).run(fails())
        await outbox.publish({}, key="k", type="order-placed")  # nothing is locked
        connection.commit()
    assert (events(engine), items(engine)) == (1, [])


@on_sqlite
async def test_a_block_that_has_ended_inside_is_refused(outbox: faultproof.Outbox, alchemy: sa.Engine) -> None:
    with Session(alchemy) as session, session.begin():
        tx = faultproof.join(session)
        session.rollback()
        with pytest.raises(NoTransaction):
            tx.run(orders())


@on_sqlite
async def test_drivers_that_nobody_here_speaks_to_are_named(outbox: faultproof.Outbox) -> None:
    from sqlalchemy.dialects.sqlite import pysqlite

    class Other(pysqlite.dialect):
        driver = "other"
        supports_statement_cache = True

    import sqlite3

    other = sa.engine.Engine(sa.pool.StaticPool(lambda: sqlite3.connect(":memory:")), Other(dbapi=sqlite3), "sqlite://")
    with other.connect() as connection:
        with pytest.raises(faultproof.errors.NotSupported, match=r"sqlite\+other"):
            faultproof.join(connection).run(orders())
    other.dispose()


@on_asyncpg
async def test_a_session_used_by_two_tasks_at_once_is_one_clear_error(
    outbox: faultproof.Outbox, place: str, engine: Engine
) -> None:
    ours = create_async_engine(place.replace("postgresql", "postgresql+asyncpg"))
    async with AsyncSession(ours) as session:
        tx = faultproof.join(session)
        busy = asyncio.create_task(session.execute(sa.text("SELECT 1")))
        await asyncio.sleep(0)
        with pytest.raises(Misuse, match="a session for each task"):
            await outbox.publish({}, key="k", tx=tx, type="order-placed")
        await busy
        await session.rollback()
    await ours.dispose()
    assert events(engine) == 0


@on_asyncpg
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_synchronous_side_of_an_async_session_is_refused_outside_it(
    outbox: faultproof.Outbox, place: str, engine: Engine
) -> None:
    ours = create_async_engine(place.replace("postgresql", "postgresql+asyncpg"))
    async with AsyncSession(ours) as session:
        with pytest.raises(Misuse, match="join the asynchronous one"):
            faultproof.join(session.sync_session).run(orders())

        def inside(session: Session) -> None:  # where SQLAlchemy runs its own, it works
            outbox.publish({}, key="k", tx=faultproof.join(session), type="order-placed")

        await session.run_sync(inside)
        await session.commit()
    await ours.dispose()
    assert events(engine) == 1


@on_asyncpg
async def test_an_async_session_of_another_loop_is_refused(outbox: faultproof.Outbox, place: str) -> None:
    ours = create_async_engine(place.replace("postgresql", "postgresql+asyncpg"))
    async with AsyncSession(ours) as session:
        tx = faultproof.join(session)

        def elsewhere() -> None:
            with pytest.raises(Misuse, match="another event loop"):
                asyncio.run(tx.run(orders()))  # type: ignore[arg-type]

        await asyncio.to_thread(elsewhere)
    await ours.dispose()


def test_an_event_of_a_prepared_transaction_is_there_when_somebody_commits_it(tmp_path: Path) -> None:
    with PostgresServer(durable=False, settings={"max_prepared_transactions": "2"}) as server:
        alchemy = sa.create_engine(server.url.replace("postgresql", "postgresql+psycopg"))
        with faultproof.Blocking() as blocking:
            db = blocking.call(faultproof.connect, server.url)
            outbox = faultproof.Outbox(db, events={"order-placed": dict})
            blocking.call(outbox.install)
            found = []
            with alchemy.connect() as connection, alchemy.connect() as other:
                for ends in ("commit", "rollback"):
                    transaction = connection.begin_twophase()
                    outbox.publish({}, key="k", tx=faultproof.join(connection), type="order-placed")
                    transaction.prepare()
                    found.append(other.exec_driver_sql("SELECT count(*) FROM faultproof_intake").scalar_one())
                    getattr(transaction, ends)()
                    found.append(other.exec_driver_sql("SELECT count(*) FROM faultproof_intake").scalar_one())
            blocking.call(db.close)
        alchemy.dispose()
    assert found == [0, 1, 1, 1]

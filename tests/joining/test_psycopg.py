"""psycopg's own: its settings, its pipelines, its round trips, its two phases."""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import faultproof
from faultproof.errors import Closed, ConstraintViolated, InvalidInput, Misuse, NoTransaction
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from tests.conformance.engines import Postgres
from tests.joining.test_transactions import events, half, insert, items

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("kind", ["psycopg"], indirect=True)]


@pytest.fixture
def raw(place: str) -> Iterator[psycopg.Connection[Any]]:
    """The user's connection."""
    with psycopg.connect(place) as raw:
        yield raw


def publish(outbox: faultproof.Outbox, raw: psycopg.Connection[Any]) -> None:
    outbox.publish({}, key="k", tx=faultproof.join(raw), type="order-placed")


async def test_settings_neither_leak_in_nor_are_changed(outbox: faultproof.Outbox, db: Database, place: str) -> None:
    def refuse(cursor: object) -> Any:
        raise AssertionError("a row of ours was given to the user's factory")

    for threshold in (0, 5, None):
        with psycopg.connect(
            place, row_factory=refuse, cursor_factory=psycopg.ClientCursor, prepare_threshold=threshold
        ) as raw:
            tx = faultproof.join(raw)
            for _ in range(7):
                outbox.publish({"a%": "%s"}, key="k", tx=tx, type="order-placed")
                assert tx.run(db.claims.add("job", ["a"])) in (0, 1)
            assert (raw.row_factory, raw.cursor_factory) == (refuse, psycopg.ClientCursor)
            raw.row_factory = dict_row
            assert raw.execute("SELECT count(*) AS found FROM faultproof_intake").fetchone() == {"found": 7}
            raw.rollback()


async def test_a_publish_is_one_round_trip_and_another_script_three(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any]
) -> None:
    tx = faultproof.join(raw)
    publish(outbox, raw)  # the first of a process also looks at the tables' version
    assert _round_trips(raw, lambda: publish(outbox, raw)) == 1
    assert _round_trips(raw, lambda: tx.run(insert(1, "apple"))) == 3


def _round_trips(raw: psycopg.Connection[Any], work: Callable[[], object]) -> int:
    """By libpq's own record: so often the server had answered all that it was sent."""
    with tempfile.TemporaryFile("w+") as log:
        raw.pgconn.trace(log.fileno())
        work()
        raw.pgconn.untrace()
        log.seek(0)
        return log.read().count("ReadyForQuery")


async def test_in_pipeline_mode_errors_show_at_the_call_and_the_user_s_own_stay_the_user_s(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any], engine: Postgres
) -> None:
    tx = faultproof.join(raw)
    with raw.pipeline():
        raw.execute("INSERT INTO orders VALUES (1, 'apple')")
        publish(outbox, raw)
        with pytest.raises(ConstraintViolated):
            tx.run(half())
        publish(outbox, raw)
        raw.commit()
    assert (events(engine), items(engine)) == (2, ["apple"])
    with suppress(psycopg.errors.UniqueViolation), raw.pipeline():
        raw.execute("INSERT INTO orders VALUES (1, 'again')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            tx.run(half())
    raw.rollback()

    def again() -> None:
        with raw.pipeline():
            raw.execute("INSERT INTO orders VALUES (1, 'again')")
            publish(outbox, raw)  # is sent, and skipped by the server
            raw.commit()

    with pytest.raises(psycopg.errors.UniqueViolation):
        again()
    raw.rollback()
    assert events(engine) == 2


async def test_in_the_users_pipeline_a_publication_travels_with_what_the_user_sends(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any], engine: Postgres
) -> None:
    publish(outbox, raw)
    raw.commit()

    def order(number: int, *, publishes: bool) -> None:
        with raw.pipeline():
            raw.execute("INSERT INTO orders VALUES (%s, 'apple')", (number,))
            if publishes:
                publish(outbox, raw)
            raw.commit()

    order(1, publishes=False)
    assert _round_trips(raw, lambda: order(2, publishes=True)) == _round_trips(raw, lambda: order(3, publishes=False))
    assert (events(engine), items(engine)) == (2, ["apple"] * 3)


@sql("INSERT INTO orders (id, item) VALUES (:id, :item)", deferred=True)
def insert_later(id: int, item: str) -> None: ...


def twice() -> Script[None]:
    yield from insert_later(2, "two")
    yield from insert_later(1, "again")


async def test_in_the_users_pipeline_what_has_a_savepoint_is_undone_alone(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any], engine: Postgres
) -> None:
    tx = faultproof.join(raw)
    with raw.pipeline():
        raw.execute("INSERT INTO orders VALUES (1, 'apple')")
        with pytest.raises(ConstraintViolated):
            tx.run(twice())
        publish(outbox, raw)
        raw.commit()
    assert (events(engine), items(engine)) == (1, ["apple"])


async def test_in_the_users_asynchronous_pipeline_too(outbox: faultproof.Outbox, place: str, engine: Postgres) -> None:
    async with await psycopg.AsyncConnection.connect(place) as mine:

        async def order(number: int, item: str) -> None:
            async with mine.pipeline():
                await mine.execute("INSERT INTO orders VALUES (%s, %s)", (number, item))
                await outbox.publish({"n": number}, type="order-placed", key="k", tx=faultproof.join(mine))
                await mine.commit()

        await order(1, "apple")
        await order(2, "pear")
        with pytest.raises(psycopg.errors.UniqueViolation):
            await order(2, "again")
        await mine.rollback()
    assert (events(engine), items(engine)) == (2, ["apple", "pear"])


async def test_in_a_pipeline_autocommit_is_seen_too(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any], engine: Postgres
) -> None:
    raw.autocommit = True
    with raw.pipeline():
        with pytest.raises(NoTransaction):
            publish(outbox, raw)
        with raw.transaction():
            publish(outbox, raw)
    assert events(engine) == 1
    with pytest.raises(NoTransaction, match=r"connection.transaction\(\)"):
        publish(outbox, raw)


async def test_a_transaction_block_in_autocommit_mode_is_joined(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any], engine: Postgres
) -> None:
    raw.autocommit = True
    with raw.transaction():
        publish(outbox, raw)
        raise psycopg.Rollback
    with raw.transaction():
        publish(outbox, raw)
    assert events(engine) == 1


async def test_a_transaction_that_only_reads_is_named(outbox: faultproof.Outbox, raw: psycopg.Connection[Any]) -> None:
    raw.read_only = True
    with pytest.raises(InvalidInput, match="only reads"):
        publish(outbox, raw)


async def test_a_server_s_end_is_news_of_a_lost_transaction(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any], engine: Postgres
) -> None:
    tx = faultproof.join(raw)
    raw.execute("SELECT 1")
    engine.execute("SELECT pg_terminate_backend(?, 5000)", (raw.info.backend_pid,))
    with pytest.raises(faultproof.errors.TryAgain, match="lost"):
        tx.run(insert(1, "apple"))
    with pytest.raises(Closed):
        tx.run(insert(1, "apple"))


async def test_a_connection_may_be_used_from_another_thread(
    outbox: faultproof.Outbox, raw: psycopg.Connection[Any], engine: Postgres
) -> None:
    tx = faultproof.join(raw)
    thread = threading.Thread(target=lambda: tx.run(insert(1, "apple")))
    thread.start()
    thread.join(20.0)
    raw.commit()
    assert items(engine) == ["apple"]


async def test_an_async_connection_of_another_loop_is_refused(outbox: faultproof.Outbox, place: str) -> None:
    raw = await psycopg.AsyncConnection.connect(place)
    tx = faultproof.join(raw)

    def elsewhere() -> None:
        with pytest.raises(Misuse, match="another event loop"):
            asyncio.run(tx.run(insert(1, "apple")))  # type: ignore[arg-type]

    await asyncio.to_thread(elsewhere)
    await raw.close()

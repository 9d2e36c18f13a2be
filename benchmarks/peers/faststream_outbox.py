"""faststream-outbox 0.19: rows in one table, claimed with SKIP LOCKED, deleted when handled.

Its documentation on speed: docs/concepts/performance.md and docs/usage/subscriber.md of modern-python/faststream-outbox
(terminal_flush_batch_size, max_workers, fetch_batch_size, outbox_autovacuum_ddl). FastStream's own command line runs on
uvloop where that is installed, so "best" does here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from benchmarks.arrivals import Arrivals, sending
from benchmarks.load import BODY, by_callers
from benchmarks.model import Contestant, Place, Ready
from benchmarks.pairs import ORDERS, measuring
from benchmarks.peers.address import for_asyncpg
from benchmarks.settings import postgres_settings

PACKAGES = ("faststream-outbox", "faststream", "SQLAlchemy", "asyncpg")
BEST = {
    "max_workers": 4,
    "fetch_batch_size": 1_000,
    "terminal_flush_batch_size": 500,
    "min_fetch_interval": 0.001,
    "max_fetch_interval": 0.001,
}
FILL = 500
QUEUE = "items"


@asynccontextmanager
async def outbox(place: Place, *, pool: int) -> AsyncIterator[tuple[Any, Any]]:
    """An SQLAlchemy engine, and the outbox's table in the database."""
    from faststream_outbox import make_outbox_table
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import create_async_engine

    metadata = MetaData()
    table = make_outbox_table(metadata, table_name="outbox")
    address, given = for_asyncpg(place.url)
    url = address.replace("postgresql://", "postgresql+asyncpg://", 1)
    engine = create_async_engine(url, pool_size=pool, max_overflow=0, connect_args={"server_settings": given})
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield engine, table
    await engine.dispose()


async def settings(engine: Any) -> dict[str, str]:
    """Durability in effect on one of its connections."""
    from sqlalchemy import text

    async with engine.connect() as connection:

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            return list((await connection.execute(text(query))).all())

        return await postgres_settings(ask)


async def is_empty(engine: Any) -> bool:
    """Whether all rows have been deleted: then the work is done, and safe."""
    from sqlalchemy import text

    async with engine.connect() as connection:
        return not (await connection.execute(text("SELECT EXISTS (SELECT 1 FROM outbox)"))).scalar_one()


@asynccontextmanager
async def draining(place: Place, *, options: dict[str, Any], events: int, tuned: bool) -> AsyncIterator[Ready]:
    """A backlog handed to a function that does nothing."""
    from faststream_outbox import OutboxBroker, outbox_autovacuum_ddl
    from sqlalchemy import text

    count = place.size(events, 60)
    async with outbox(place, pool=options.get("max_workers", 1) + 2) as (engine, table):
        if tuned:
            async with engine.begin() as connection:
                await connection.execute(text(outbox_autovacuum_ddl("outbox")))

        async def measure() -> dict[str, float]:
            # Without a logger: the default one writes two lines for each message.
            broker = OutboxBroker(engine, outbox_table=table, logger=None)
            done, seen = asyncio.Event(), 0

            @broker.subscriber(QUEUE, **options)
            async def handle(body: dict[str, Any]) -> None:
                nonlocal seen
                seen += 1
                if seen >= count:
                    done.set()

            for start in range(0, count, FILL):
                async with engine.begin() as connection:
                    await broker.publish_batch(*[BODY] * min(FILL, count - start), queue=QUEUE, session=connection)
            began = time.perf_counter()
            await broker.start()
            await done.wait()
            while not await is_empty(engine):  # noqa: ASYNC110  # only the database knows when
                await asyncio.sleep(0.002)
            seconds = time.perf_counter() - began
            await broker.stop()
            return {"drained": count / seconds}

        yield Ready(measure=measure, settings=await settings(engine))


@asynccontextmanager
async def publishing(place: Place, *, callers: int, pool: int) -> AsyncIterator[Ready]:
    """Publications in a transaction each."""
    from faststream_outbox import OutboxBroker

    async with outbox(place, pool=pool) as (engine, table):
        broker = OutboxBroker(engine, outbox_table=table, logger=None)

        async def publish() -> None:
            async with engine.begin() as connection:
                await broker.publish(BODY, queue=QUEUE, session=connection)

        async def measure() -> dict[str, float]:
            return {"published": await by_callers(callers, place.size(3_200, 2 * callers) // callers, publish)}

        yield Ready(measure=measure, settings=await settings(engine))


@asynccontextmanager
async def in_a_transaction(place: Place) -> AsyncIterator[Ready]:
    """An insert, and a publication behind it, on one AsyncConnection."""
    from faststream_outbox import OutboxBroker
    from sqlalchemy import text

    async with outbox(place, pool=1) as (engine, table):
        broker = OutboxBroker(engine, outbox_table=table, logger=None)
        insert = text("INSERT INTO orders (id, item) VALUES (:id, :item)")
        async with engine.begin() as connection:
            await connection.execute(text(ORDERS))

        async def plain(number: int) -> None:
            async with engine.begin() as connection:
                await connection.execute(insert, {"id": number, "item": "milk"})

        async def publishing(number: int) -> None:
            async with engine.begin() as connection:
                await connection.execute(insert, {"id": number, "item": "milk"})
                await broker.publish(BODY, queue=QUEUE, session=connection)

        yield Ready(measure=measuring(place, plain, publishing), settings=await settings(engine))


async def send(url: str) -> None:
    """The sender's process."""
    from faststream_outbox import OutboxBroker

    async with outbox(Place(url=url, quick=False), pool=1) as (engine, table):
        broker = OutboxBroker(engine, outbox_table=table, logger=None)

        async def once() -> float:
            async with engine.begin() as connection:
                await broker.publish(BODY, queue=QUEUE, session=connection)
                return time.time()

        await sending(once)


@asynccontextmanager
async def receiving(place: Place) -> AsyncIterator[Ready]:
    """A subscriber as it comes: woken by LISTEN."""
    from faststream_outbox import OutboxBroker

    arrivals = Arrivals()
    async with outbox(place, pool=4) as (engine, table):

        async def measure() -> dict[str, float]:
            broker = OutboxBroker(engine, outbox_table=table, logger=None)

            @broker.subscriber(QUEUE)
            async def handle(body: dict[str, Any]) -> None:
                arrivals()

            await broker.start()
            try:
                return await arrivals.measured(place, f"{__name__}:send")
            finally:
                await broker.stop()

        yield Ready(measure=measure, settings=await settings(engine))


DRAINS = (
    Contestant(
        name="faststream-outbox, best",
        side="peer",
        configured="uvloop, 4 workers, fetch_batch_size=1000, terminal_flush_batch_size=500, fetch interval 1 ms,"
        " outbox_autovacuum_ddl; asyncpg; no logger",
        open=partial(draining, options=BEST, events=20_000, tuned=True),
        packages=(*PACKAGES, "uvloop"),
        uvloop=True,
    ),
    Contestant(
        name="faststream-outbox, as it comes",
        side="peer, as it comes",
        configured="subscriber as it comes; asyncpg; no logger; backlog of 3,000",
        open=partial(draining, options={}, events=3_000, tuned=False),
        packages=PACKAGES,
    ),
)

CALLERS = tuple(
    Contestant(
        name=f"faststream-outbox, {callers} callers",
        side="peer",
        configured="AsyncConnection of a pool of 16, a transaction each; asyncpg",
        open=partial(publishing, callers=callers, pool=16),
        packages=PACKAGES,
    )
    for callers in (16, 64)
)

PUBLISHES = (
    Contestant(
        name="faststream-outbox",
        side="peer",
        configured="one caller, AsyncConnection; asyncpg",
        open=in_a_transaction,
        packages=PACKAGES,
    ),
)

DELIVERIES = (
    Contestant(
        name="faststream-outbox",
        side="peer, as it comes",
        configured="subscriber as it comes, woken by LISTEN; asyncpg; no logger",
        open=receiving,
        packages=PACKAGES,
    ),
)

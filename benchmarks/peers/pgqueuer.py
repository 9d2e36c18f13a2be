"""PgQueuer 1.6: a jobs table, claimed with SKIP LOCKED, each job moved to a log table when done.

Its documentation on speed: docs/guides/performance-tuning.md and docs/comparisons/benchmarks.md of janbjorge/pgqueuer
(asyncpg, larger batch_size for short jobs, one connection for each consumer, `pgq autovac`). Its level "balanced" is
faster and loses jobs when the server crashes: left out. Its own command line runs on uvloop, so it does here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec

from benchmarks.arrivals import Arrivals, sending
from benchmarks.load import BODY, by_callers
from benchmarks.model import Contestant, Place, Ready
from benchmarks.pairs import ORDERS, measuring
from benchmarks.peers.address import for_asyncpg
from benchmarks.settings import postgres_settings

PACKAGES = ("pgqueuer", "asyncpg", "uvloop")
PAYLOAD = msgspec.json.encode(BODY)
ENTRYPOINT = "items"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """One asyncpg connection."""
    import asyncpg

    address, given = for_asyncpg(url)
    connection = await asyncpg.connect(address, server_settings=given)
    try:
        yield connection
    finally:
        await connection.close()


async def settings(connection: Any) -> dict[str, str]:
    """Durability in effect on this connection."""

    async def ask(query: str) -> Sequence[Sequence[Any]]:
        return [tuple(row) for row in await connection.fetch(query)]

    return await postgres_settings(ask)


@asynccontextmanager
async def draining(
    place: Place, *, consumers: int, batch: dict[str, Any], events: int, tuned: bool
) -> AsyncIterator[Ready]:
    """A backlog handed to a function that does nothing, in its mode for that."""
    from pgqueuer import PgQueuer
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    count = place.size(events, 60)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(place.url)) for _ in range(consumers)]
        queries = Queries.from_asyncpg_connection(connections[0])
        await queries.install()
        if tuned:
            await queries.optimize_autovacuum()

        async def measure() -> dict[str, float]:
            seen = 0
            workers = [PgQueuer.from_asyncpg_connection(connection) for connection in connections]
            for worker in workers:

                @worker.entrypoint(ENTRYPOINT)
                async def handle(job: Any) -> None:
                    nonlocal seen
                    seen += 1

            await queries.enqueue([ENTRYPOINT] * count, [PAYLOAD] * count, [0] * count)
            began = time.perf_counter()
            await asyncio.gather(*(worker.run(mode=QueueExecutionMode.drain, **batch) for worker in workers))
            seconds = time.perf_counter() - began
            assert seen == count, f"{seen} of {count} jobs were done"
            return {"drained": count / seconds}

        yield Ready(measure=measure, settings=await settings(connections[0]))


@asynccontextmanager
async def publishing(place: Place, *, callers: int, pool: int) -> AsyncIterator[Ready]:
    """Jobs enqueued one by one."""
    import asyncpg
    from pgqueuer.queries import Queries

    async with asyncpg.create_pool(place.url, min_size=pool, max_size=pool) as connections:
        queries = Queries.from_asyncpg_pool(connections)
        await queries.install()

        async def measure() -> dict[str, float]:
            each = place.size(3_200, 2 * callers) // callers
            return {"published": await by_callers(callers, each, lambda: queries.enqueue(ENTRYPOINT, PAYLOAD))}

        async with connections.acquire() as connection:
            found = await settings(connection)
        yield Ready(measure=measure, settings=found)


@asynccontextmanager
async def in_a_transaction(place: Place) -> AsyncIterator[Ready]:
    """An insert, and a job behind it, in one asyncpg transaction."""
    from pgqueuer.queries import Queries

    insert = "INSERT INTO orders (id, item) VALUES ($1, $2)"
    async with connected(place.url) as connection:
        queries = Queries.from_asyncpg_connection(connection)
        await queries.install()
        await connection.execute(ORDERS)

        async def plain(number: int) -> None:
            async with connection.transaction():
                await connection.execute(insert, number, "milk")

        async def publishing(number: int) -> None:
            async with connection.transaction():
                await connection.execute(insert, number, "milk")
                await queries.enqueue(ENTRYPOINT, PAYLOAD)

        yield Ready(measure=measuring(place, plain, publishing), settings=await settings(connection))


async def send(url: str) -> None:
    """The sender's process."""
    from pgqueuer.queries import Queries

    async with connected(url) as connection:
        queries = Queries.from_asyncpg_connection(connection)

        async def once() -> float:
            async with connection.transaction():
                await queries.enqueue(ENTRYPOINT, PAYLOAD)
                return time.time()

        await sending(once)


@asynccontextmanager
async def receiving(place: Place) -> AsyncIterator[Ready]:
    """A consumer as it comes: woken by LISTEN."""
    from pgqueuer import PgQueuer
    from pgqueuer.queries import Queries

    arrivals = Arrivals()
    async with connected(place.url) as connection:
        await Queries.from_asyncpg_connection(connection).install()

        async def measure() -> dict[str, float]:
            async with connected(place.url) as own:
                worker = PgQueuer.from_asyncpg_connection(own)

                @worker.entrypoint(ENTRYPOINT)
                async def handle(job: Any) -> None:
                    arrivals()

                running = asyncio.create_task(worker.run())
                try:
                    return await arrivals.measured(place, f"{__name__}:send")
                finally:
                    worker.shutdown.set()
                    await running

        yield Ready(measure=measure, settings=await settings(connection))


DRAINS = (
    Contestant(
        name="pgqueuer, best",
        side="peer",
        configured="5 consumers in one process, a connection each, batch_size=1000, mode drain, `pgq autovac`,"
        " durability durable; asyncpg, uvloop",
        open=partial(draining, consumers=5, batch={"batch_size": 1_000}, events=20_000, tuned=True),
        packages=PACKAGES,
        uvloop=True,
    ),
    Contestant(
        name="pgqueuer, as it comes",
        side="peer, as it comes",
        configured="one consumer, batch_size=10, mode drain; asyncpg, uvloop; backlog of 5,000",
        open=partial(draining, consumers=1, batch={}, events=5_000, tuned=False),
        packages=PACKAGES,
        uvloop=True,
    ),
)

CALLERS = (
    Contestant(
        name="pgqueuer, 64 callers",
        side="peer",
        configured="enqueue, one job a call, on a pool of 16; asyncpg, uvloop",
        open=partial(publishing, callers=64, pool=16),
        packages=PACKAGES,
        uvloop=True,
    ),
)

PUBLISHES = (
    Contestant(
        name="pgqueuer",
        side="peer",
        configured="one caller, asyncpg, uvloop",
        open=in_a_transaction,
        packages=PACKAGES,
        uvloop=True,
    ),
)

DELIVERIES = (
    Contestant(
        name="pgqueuer",
        side="peer, as it comes",
        configured="one consumer as it comes, woken by LISTEN; asyncpg, uvloop",
        open=receiving,
        packages=PACKAGES,
        uvloop=True,
    ),
)

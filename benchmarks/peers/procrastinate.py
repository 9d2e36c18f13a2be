"""procrastinate 3.10: a jobs table behind SQL functions, one job a fetch.

Its documentation on speed: docs/howto/production/concurrency.md and delete_finished_jobs.md of
procrastinate-org/procrastinate (concurrency of a worker, deleting finished jobs).
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
from benchmarks.settings import postgres_settings

PACKAGES = ("procrastinate", "psycopg")
FILL = 1_000


@asynccontextmanager
async def app(place: Place, *, pool: int) -> AsyncIterator[tuple[Any, dict[str, str]]]:
    """An app with its schema, and the durability of its connections."""
    import procrastinate
    from psycopg_pool import AsyncConnectionPool

    connector = procrastinate.PsycopgConnector(conninfo=place.url, min_size=pool, max_size=pool)
    made = procrastinate.App(connector=connector)
    async with made.open_async():
        await made.schema_manager.apply_schema_async()
        connections: AsyncConnectionPool[Any] = connector.pool

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            async with connections.connection() as raw:
                rows = await (await raw.execute(query.encode())).fetchall()
            return [tuple(row.values()) if isinstance(row, dict) else row for row in rows]

        yield made, await postgres_settings(ask)


@asynccontextmanager
async def draining(place: Place, *, options: dict[str, Any], events: int) -> AsyncIterator[Ready]:
    """A backlog handed to a task that does nothing, by a worker that ends when none is left."""
    count = place.size(events, 60)
    async with app(place, pool=4) as (made, found):

        @made.task(queue="items", name="handle")
        async def handle(**body: Any) -> None:
            pass

        async def measure() -> dict[str, float]:
            for start in range(0, count, FILL):
                await handle.batch_defer_async(*[BODY] * min(FILL, count - start))
            began = time.perf_counter()
            await made.run_worker_async(wait=False, install_signal_handlers=False, **options)
            return {"drained": count / (time.perf_counter() - began)}

        yield Ready(measure=measure, settings=found)


@asynccontextmanager
async def publishing(place: Place, *, callers: int, pool: int) -> AsyncIterator[Ready]:
    """Jobs deferred one by one."""
    async with app(place, pool=pool) as (made, found):

        @made.task(queue="items", name="handle")
        async def handle(**body: Any) -> None:
            pass

        async def measure() -> dict[str, float]:
            each = place.size(3_200, 2 * callers) // callers
            return {"published": await by_callers(callers, each, lambda: handle.defer_async(**BODY))}

        yield Ready(measure=measure, settings=found)


async def send(url: str) -> None:
    """The sender's process. It defers in a transaction of its own, so the clock starts before the call."""
    import procrastinate

    made = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=1))

    @made.task(queue="items", name="handle")
    async def handle(**body: Any) -> None:
        pass

    async def once() -> float:
        began = time.time()
        await handle.defer_async(**BODY)
        return began

    async with made.open_async():
        await sending(once)


@asynccontextmanager
async def receiving(place: Place) -> AsyncIterator[Ready]:
    """A worker as it comes: woken by LISTEN."""
    arrivals = Arrivals()
    async with app(place, pool=4) as (made, found):

        @made.task(queue="items", name="handle")
        async def handle(**body: Any) -> None:
            arrivals()

        async def measure() -> dict[str, float]:
            running = asyncio.create_task(made.run_worker_async(install_signal_handlers=False))
            try:
                return await arrivals.measured(place, f"{__name__}:send")
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

        yield Ready(measure=measure, settings=found)


DRAINS = (
    Contestant(
        name="procrastinate, best",
        side="peer",
        configured="concurrency=30, delete_jobs=always; psycopg pool of 4; backlog of 1,500",
        open=partial(draining, options={"concurrency": 30, "delete_jobs": "always"}, events=1_500),
        packages=PACKAGES,
    ),
    Contestant(
        name="procrastinate, as it comes",
        side="peer, as it comes",
        configured="one job at a time; psycopg; backlog of 1,500",
        open=partial(draining, options={}, events=1_500),
        packages=PACKAGES,
    ),
)

CALLERS = (
    Contestant(
        name="procrastinate, 64 callers",
        side="peer",
        configured="defer_async, one job a call, on a psycopg pool of 16",
        open=partial(publishing, callers=64, pool=16),
        packages=PACKAGES,
    ),
)

DELIVERIES = (
    Contestant(
        name="procrastinate",
        side="peer, as it comes",
        configured="one worker as it comes, woken by LISTEN; psycopg",
        open=receiving,
        packages=PACKAGES,
    ),
)

"""From a commit in one process to the handler in another; and what waiting for it costs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import faultproof as fp
from benchmarks.arrivals import IDLE, P50, P99, Arrivals, sending
from benchmarks.load import BODY
from benchmarks.measures.handles import BY_NAME, SQLITE3, Handle, publishing
from benchmarks.measures.handles import POSTGRESQL as POSTGRESQL_HANDLES
from benchmarks.measures.outboxes import opened, settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.pairs import ORDERS
from benchmarks.peers import faststream_outbox, pgqueuer, procrastinate


async def send(url: str) -> None:
    """The sender's process: our transaction."""
    async with opened(url) as (db, outbox):

        async def once() -> float:
            async with db.transaction() as tx:
                await outbox.publish(BODY, type="item.sold", key="key-1", tx=tx)
                return time.time()

        await sending(once)


async def send_joined(name: str, url: str) -> None:
    """The sender's process: a transaction of the user's own."""
    handle = BY_NAME[name]
    async with opened(url) as (db, outbox), handle.open(url) as transactions:
        inside = publishing(outbox, db, handle)
        numbers = itertools.count(time.time_ns())
        await sending(lambda: transactions.run(next(numbers), inside))


@asynccontextmanager
async def receiving(place: Place, *, sender: tuple[str, ...]) -> AsyncIterator[Ready]:
    """Sequencer, relay and retention in one worker: the whole of an outbox's background work."""
    arrivals = Arrivals()
    async with opened(place.url) as (db, outbox):
        async with db.transaction() as tx:
            await tx.execute(ORDERS)

        async def sink(event: fp.Event[Any]) -> None:
            arrivals()

        async def measure() -> dict[str, float]:
            # Made anew each round: between rounds nothing of ours may run beside the others.
            worker = fp.Worker(db.env, outbox.sequencer(), outbox.relay("delivery", sink), outbox.retention())
            running = asyncio.create_task(worker.run())
            try:
                return await arrivals.measured(place, *sender)
            finally:
                worker.stop()
                await running

        yield Ready(measure=measure, settings=await settings(db))


_FIGURES = (
    Figure(name=P50, unit="ms", better="less"),
    Figure(name=P99, unit="ms", better="less"),
    Figure(name=IDLE, unit="% of a core", better="less"),
)
_OURS = Contestant(
    name="our transaction",
    side="ours",
    configured="one worker with sequencer, relay and retention, as it comes",
    open=partial(receiving, sender=(f"{__name__}:send",)),
)


def _joined(handle: Handle) -> Contestant:
    heard = "wake=" if handle.wakes else "no hook: heard by the poll, every 50 ms"
    return Contestant(
        name=f"{handle.name}, joined",
        side="ours",
        configured=f"{handle.configured}; {heard}",
        open=partial(receiving, sender=(f"{__name__}:send_joined", handle.name)),
        packages=handle.packages,
    )


def _joined_aim(handle: Handle) -> Aim:
    return Aim(figure=P50, of=f"{handle.name}, joined", at_most=5 if handle.wakes else 50)


_HANDLES = tuple(handle for handle in POSTGRESQL_HANDLES if handle.name in ("psycopg", "SQLAlchemy", "Django"))
_AIMS = (Aim(figure=P50, of="our transaction", at_most=5), Aim(figure=IDLE, of="our transaction", at_most=1))
_MEASURES = (
    "From just before the COMMIT in one process to the handler in another, one message at a time, at random moments;"
    " before that, what the waiting process uses."
)

POSTGRESQL = Benchmark(
    name="delivery-postgresql",
    engine="postgresql",
    measures=_MEASURES,
    figures=_FIGURES,
    compared=P50,
    contestants=(
        _OURS,
        *(_joined(handle) for handle in _HANDLES),
        *faststream_outbox.DELIVERIES,
        *pgqueuer.DELIVERIES,
        *procrastinate.DELIVERIES,
    ),
    aims=(*_AIMS, *(_joined_aim(handle) for handle in _HANDLES)),
    rounds=3,
    notes=(
        "Ours takes two steps, into the log and out of it, where a job queue takes one.",
        "An idle worker's use is of its own process; the server's share is not in it.",
    ),
)

SQLITE = Benchmark(
    name="delivery-sqlite",
    engine="sqlite",
    measures=_MEASURES,
    figures=_FIGURES,
    compared=P50,
    contestants=(_OURS, _joined(SQLITE3)),
    aims=(*_AIMS, _joined_aim(SQLITE3)),
    rounds=3,
)

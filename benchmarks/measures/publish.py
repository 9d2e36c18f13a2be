"""What publishing adds to a transaction that does one insert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.load import BODY
from benchmarks.measures.handles import POSTGRESQL as POSTGRESQL_HANDLES
from benchmarks.measures.handles import SQLITE3, Handle, nothing, publishing
from benchmarks.measures.outboxes import opened, settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.pairs import ADDS, ORDERS, PAIRS, PLAIN, PUBLISHING, in_turns, measuring
from benchmarks.peers import faststream_outbox, pgqueuer
from benchmarks.settings import postgres_settings, sqlite_settings

ORDER_PSYCOPG = "INSERT INTO orders (id, item) VALUES (%s, %s)"
ORDER_SQLITE3 = "INSERT INTO orders (id, item) VALUES (?, ?)"


@asynccontextmanager
async def through_ours(place: Place) -> AsyncIterator[Ready]:
    """`Database.transaction`."""
    async with opened(place.url) as (db, outbox):
        # The user's own SQL goes to the driver as it is.
        insert = ORDER_PSYCOPG if "PostgreSQL" in db.durability else ORDER_SQLITE3
        async with db.transaction() as tx:
            await tx.execute(ORDERS)

        async def plain(number: int) -> None:
            async with db.transaction() as tx:
                await tx.execute(insert, number, "milk")

        async def with_it(number: int) -> None:
            async with db.transaction() as tx:
                await tx.execute(insert, number, "milk")
                await outbox.publish(BODY, type="item.sold", key=f"key-{number}", tx=tx)

        yield Ready(measure=measuring(place, plain, with_it), settings=await settings(db))


@asynccontextmanager
async def joined(place: Place, *, handle: Handle) -> AsyncIterator[Ready]:
    """A connection of the user's own, in a thread of its own: synchronous libraries would stop the loop that wakes others."""
    async with opened(place.url) as (db, outbox):
        async with db.transaction() as tx:
            await tx.execute(ORDERS)
        publish = publishing(outbox, db, handle)
        number = 0

        async def turns() -> dict[str, float]:
            async with handle.open(place.url) as transactions:
                return await in_turns(
                    place,
                    number,
                    lambda order: transactions.run(order, nothing),
                    lambda order: transactions.run(order, publish),
                )

        async def asked() -> dict[str, str]:
            async with handle.open(place.url) as transactions:
                found = postgres_settings if "PostgreSQL" in db.durability else sqlite_settings
                return await found(transactions.ask)

        async def measure() -> dict[str, float]:
            nonlocal number
            number += 2 * PAIRS
            return await asyncio.to_thread(asyncio.run, turns())

        yield Ready(measure=measure, settings=await asyncio.to_thread(asyncio.run, asked()))


def _joined(handle: Handle) -> Contestant:
    return Contestant(
        name=f"{handle.name}, joined",
        side="ours",
        configured=f"{handle.configured}; fp.join{' with wake=' * handle.wakes}",
        open=partial(joined, handle=handle),
        packages=handle.packages,
    )


_FIGURES = (
    Figure(name=PLAIN, unit="ms", better="less"),
    Figure(name=PUBLISHING, unit="ms", better="less"),
    Figure(name=ADDS, unit="%", better="less"),
)
_OURS = Contestant(
    name="our transaction", side="ours", configured="one caller, Database.transaction", open=through_ours
)
_MEASURES = (
    "One caller, a transaction with one insert; in turns without publishing and with it, on the same connection."
)

POSTGRESQL = Benchmark(
    name="publish-postgresql",
    engine="postgresql",
    measures=_MEASURES,
    figures=_FIGURES,
    contestants=(
        _OURS,
        *(_joined(handle) for handle in POSTGRESQL_HANDLES),
        *faststream_outbox.PUBLISHES,
        *pgqueuer.PUBLISHES,
    ),
    aims=(
        Aim(figure=ADDS, of="our transaction", at_most=30),
        *(Aim(figure=ADDS, of=f"{h.name}, joined", at_most=h.adds_at_most) for h in POSTGRESQL_HANDLES),
    ),
)

SQLITE = Benchmark(
    name="publish-sqlite",
    engine="sqlite",
    measures=_MEASURES,
    figures=_FIGURES,
    contestants=(
        _OURS,
        _joined(SQLITE3),
    ),
    aims=(Aim(figure=ADDS, of="our transaction", at_most=30),),
)

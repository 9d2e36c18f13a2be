"""What publishing adds to a transaction that does one insert."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import faultproof as fp
from benchmarks.load import BODY
from benchmarks.measures.outboxes import opened, settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.pairs import ADDS, ORDERS, PLAIN, PUBLISHING, measuring
from benchmarks.peers import faststream_outbox, pgqueuer

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

        async def publishing(number: int) -> None:
            async with db.transaction() as tx:
                await tx.execute(insert, number, "milk")
                await outbox.publish(BODY, type="item.sold", key=f"key-{number}", tx=tx)

        yield Ready(measure=measuring(place, plain, publishing), settings=await settings(db))


@asynccontextmanager
async def through_sqlite3(place: Place) -> AsyncIterator[Ready]:
    """A connection of the user's own, joined."""
    async with opened(place.url) as (db, outbox):
        raw = sqlite3.connect(place.url, isolation_level=None)
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute(ORDERS)

        async def plain(number: int) -> None:
            raw.execute("BEGIN IMMEDIATE")
            raw.execute(ORDER_SQLITE3, (number, "milk"))
            raw.execute("COMMIT")

        async def publishing(number: int) -> None:
            raw.execute("BEGIN IMMEDIATE")
            raw.execute(ORDER_SQLITE3, (number, "milk"))
            outbox.publish(BODY, type="item.sold", key=f"key-{number}", tx=fp.join(raw))
            raw.execute("COMMIT")

        yield Ready(measure=measuring(place, plain, publishing), settings=await settings(db))
        raw.close()


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
    contestants=(_OURS, *faststream_outbox.PUBLISHES, *pgqueuer.PUBLISHES),
    aims=(Aim(figure=ADDS, of="our transaction", at_most=30),),
)

SQLITE = Benchmark(
    name="publish-sqlite",
    engine="sqlite",
    measures=_MEASURES,
    figures=_FIGURES,
    contestants=(
        _OURS,
        Contestant(name="sqlite3, joined", side="ours", configured="one caller, fp.join", open=through_sqlite3),
    ),
    aims=(Aim(figure=ADDS, of="our transaction", at_most=30),),
)

"""One-row inserts: sharing transactions, and having one each."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import faultproof as fp
from benchmarks.load import by_callers
from benchmarks.measures.outboxes import settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.settings import postgres_settings, sqlite_settings
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql

CALLERS = 64
RATE = "inserted"
TABLE = "CREATE TABLE plain (n {serial}, text TEXT)"
SERIAL = {True: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", False: "INTEGER PRIMARY KEY"}


@sql("INSERT INTO plain (text) VALUES (:text)")
def _insert_one(text: str) -> None: ...


@sql("INSERT INTO plain (text) SELECT value FROM {texts}")
def _insert_all(texts: Sequence[str]) -> None: ...


def _apply(texts: Sequence[str], wait: bool) -> Script[list[fp.Ok[None]]]:
    yield from _insert_all(texts)
    return [fp.Ok(None) for _ in texts]


@asynccontextmanager
async def ours(place: Place, *, shared: bool, callers: int, each: int) -> AsyncIterator[Ready]:
    """Through the batcher, or a `transact` each."""
    async with fp.connect(place.url) as db:
        await _create(db)
        together: fp.GroupCommit[str, None] = fp.GroupCommit(db, _apply)

        async def one() -> None:
            if shared:
                await together.submit("milk")
            else:
                await db.transact(_insert_one("milk"))

        async def measure() -> dict[str, float]:
            return {RATE: await by_callers(callers, place.size(each, 2), one)}

        yield Ready(measure=measure, settings=await settings(db))
        await together.close()


async def _create(db: Database) -> None:
    async with db.transaction() as tx:
        await tx.execute(TABLE.format(serial=SERIAL["PostgreSQL" in db.durability]))


@asynccontextmanager
async def psycopg_pool(place: Place, *, pool: int, callers: int, each: int) -> AsyncIterator[Ready]:
    """Plain transactions on a pool of psycopg's."""
    import psycopg_pool as pools

    async with pools.AsyncConnectionPool(place.url, min_size=pool, max_size=pool, open=False) as connections:
        async with connections.connection() as raw:
            await raw.execute(TABLE.format(serial=SERIAL[True]).encode())

        async def one() -> None:
            async with connections.connection() as raw:
                await raw.execute("INSERT INTO plain (text) VALUES (%s)", ("milk",))

        async def measure() -> dict[str, float]:
            return {RATE: await by_callers(callers, place.size(each, 2), one)}

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            async with connections.connection() as raw:
                return await (await raw.execute(query.encode())).fetchall()

        yield Ready(measure=measure, settings=await postgres_settings(ask))


@asynccontextmanager
async def asyncpg_pool(place: Place, *, pool: int, callers: int, each: int) -> AsyncIterator[Ready]:
    """Plain transactions on a pool of asyncpg's."""
    import asyncpg

    async with asyncpg.create_pool(place.url, min_size=pool, max_size=pool) as connections:
        await connections.execute(TABLE.format(serial=SERIAL[True]))

        async def one() -> None:
            async with connections.acquire() as raw, raw.transaction():
                await raw.execute("INSERT INTO plain (text) VALUES ($1)", "milk")

        async def measure() -> dict[str, float]:
            return {RATE: await by_callers(callers, place.size(each, 2), one)}

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            return [tuple(row) for row in await connections.fetch(query)]

        yield Ready(measure=measure, settings=await postgres_settings(ask))


@asynccontextmanager
async def sqlite3_alone(place: Place, *, each: int) -> AsyncIterator[Ready]:
    """BEGIN IMMEDIATE, INSERT, COMMIT in a plain thread: no event loop, one caller."""
    raw = sqlite3.connect(place.url, isolation_level=None, check_same_thread=False)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute(TABLE.format(serial=SERIAL[False]))
    count = place.size(each, 2)

    def inserted() -> float:
        began = time.perf_counter()
        for _ in range(count):
            raw.execute("BEGIN IMMEDIATE")
            raw.execute("INSERT INTO plain (text) VALUES (?)", ("milk",))
            raw.execute("COMMIT")
        return count / (time.perf_counter() - began)

    async def measure() -> dict[str, float]:
        return {RATE: await asyncio.to_thread(inserted)}

    async def ask(query: str) -> Sequence[Sequence[Any]]:
        return raw.execute(query).fetchall()

    yield Ready(measure=measure, settings=await sqlite_settings(ask))
    raw.close()


SHARED, SHARED_1, OWN, OWN_1 = (
    "Batch, 64 callers",
    "Batch, one caller",
    "a transaction each, 64 callers",
    "a transaction each, one caller",
)


def _ours(name: str, configured: str, *, shared: bool, callers: int, each: int) -> Contestant:
    opening = partial(ours, shared=shared, callers=callers, each=each)
    return Contestant(name=name, side="ours", configured=configured, open=opening)


_SHARED = _ours(SHARED, "GroupCommit, as it comes", shared=True, callers=CALLERS, each=300)
_SHARED_1 = _ours(SHARED_1, "GroupCommit, as it comes", shared=True, callers=1, each=500)
_OWN_1 = _ours(OWN_1, "Database.transact", shared=False, callers=1, each=500)


def _pool(name: str, size: int, opening: Callable[..., Any], callers: int, packages: tuple[str, ...]) -> Contestant:
    return Contestant(
        name=name,
        side="by hand",
        configured=f"a pool of {size}, a transaction for each insert",
        open=partial(opening, pool=size, callers=callers, each=60 if callers > 1 else 500),
        packages=packages,
    )


_POOLS = (
    *(
        _pool(f"psycopg, pool of {size}", size, psycopg_pool, CALLERS, ("psycopg", "psycopg-pool"))
        for size in (4, 8, 16)
    ),
    *(_pool(f"asyncpg, pool of {size}", size, asyncpg_pool, CALLERS, ("asyncpg",)) for size in (8, 16)),
)

POSTGRESQL = Benchmark(
    name="batch-postgresql",
    engine="postgresql",
    measures="Inserts of one row a second, each committed when its call returns.",
    figures=(Figure(name=RATE, unit="rows/s"),),
    compared=RATE,
    contestants=(
        _SHARED,
        _ours(OWN, "Database.transact on its pool of 8", shared=False, callers=CALLERS, each=60),
        *_POOLS,
        _SHARED_1,
        _OWN_1,
        _pool("psycopg, one caller", 1, psycopg_pool, 1, ("psycopg", "psycopg-pool")),
    ),
    aims=(
        Aim(figure=RATE, of=SHARED, over=(OWN, *(each.name for each in _POOLS)), at_least=8),
        Aim(figure=RATE, of=SHARED_1, over=(OWN_1,), at_least=0.85),
        Aim(figure=RATE, of=SHARED_1, over=("psycopg, one caller",), at_least=0.85),
    ),
)

SQLITE = Benchmark(
    name="batch-sqlite",
    engine="sqlite",
    measures="Inserts of one row a second, each committed when its call returns.",
    figures=(Figure(name=RATE, unit="rows/s"),),
    compared=RATE,
    rounds=9,  # of one caller, what is compared differs by less than rounds do
    contestants=(
        _SHARED,
        _ours(OWN, "Database.transact", shared=False, callers=CALLERS, each=20),
        _SHARED_1,
        _OWN_1,
        Contestant(
            name="sqlite3, one caller",
            side="by hand",
            configured="BEGIN IMMEDIATE, INSERT, COMMIT; no event loop, no thread between",
            open=partial(sqlite3_alone, each=500),
        ),
    ),
    aims=(
        Aim(figure=RATE, of=SHARED, over=(OWN,), at_least=10),
        Aim(figure=RATE, of=SHARED_1, over=(OWN_1,), at_least=0.85),
    ),
)

"""A backlog, and how fast it goes away."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import faultproof as fp
from benchmarks.measures.outboxes import backlog, delivered, drained, entries, opened, settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.peers import faststream_outbox, pgqueuer, procrastinate
from benchmarks.settings import postgres_settings, sqlite_settings

EVENTS = 20_000
QUICK = 60
BY_HAND_BATCH = 2_000  # in `_MOVE` too
RATE = "drained"


@asynccontextmanager
async def into_the_log(place: Place) -> AsyncIterator[Ready]:
    """Our sequencer, as it comes."""
    count = place.size(EVENTS, QUICK)
    async with opened(place.url) as (db, outbox):

        async def measure() -> dict[str, float]:
            await backlog(db, count)
            return {RATE: count / await drained(db, outbox, count)}

        yield Ready(measure=measure, settings=await settings(db))


@asynccontextmanager
async def to_a_sink(place: Place, *, options: fp.ConsumerOptions) -> AsyncIterator[Ready]:
    """Sequencer and relay in one worker."""
    count = place.size(EVENTS, QUICK)
    async with opened(place.url) as (db, outbox):

        async def measure() -> dict[str, float]:
            await backlog(db, count)
            return {RATE: count / await delivered(db, outbox, "sink", count, options)}

        yield Ready(measure=measure, settings=await settings(db))


_TABLES = """
  CREATE TABLE intake (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "partition" BIGINT NOT NULL,
    event_id TEXT NOT NULL, key TEXT, type TEXT NOT NULL, payload TEXT NOT NULL, headers TEXT);
  CREATE TABLE log ("offset" BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, intake_id BIGINT NOT NULL,
    "partition" BIGINT NOT NULL, event_id TEXT NOT NULL, key TEXT, type TEXT NOT NULL, payload TEXT NOT NULL, headers TEXT)
"""
_MOVE = """
  WITH moved AS (DELETE FROM intake WHERE id IN (
         SELECT id FROM intake ORDER BY id LIMIT 2000 FOR UPDATE SKIP LOCKED) RETURNING *)
  INSERT INTO log (intake_id, "partition", event_id, key, type, payload, headers)
  SELECT id, "partition", event_id, key, type, payload, headers FROM moved ORDER BY id
"""


@asynccontextmanager
async def postgres_by_hand(place: Place) -> AsyncIterator[Ready]:
    """One statement a transaction: what PostgreSQL takes for the rows, with none of our promises."""
    import psycopg

    count = place.size(EVENTS, QUICK)
    async with await psycopg.AsyncConnection.connect(place.url, autocommit=True) as raw:
        await raw.execute(_TABLES.encode())

        async def measure() -> dict[str, float]:
            async with raw.cursor().copy(
                'COPY intake ("partition", event_id, key, type, payload, headers) FROM STDIN'
            ) as copy:
                for entry in entries(count):
                    await copy.write_row(entry[:-1])
            began = time.perf_counter()
            while (await raw.execute(_MOVE.encode())).rowcount:
                pass
            return {RATE: count / (time.perf_counter() - began)}

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            return await (await raw.execute(query.encode())).fetchall()

        yield Ready(measure=measure, settings=await postgres_settings(ask))


@asynccontextmanager
async def sqlite_by_hand(place: Place) -> AsyncIterator[Ready]:
    """`executemany` of the same rows into the log's own table."""
    count = place.size(EVENTS, QUICK)
    async with opened(place.url):
        pass
    raw = sqlite3.connect(place.url, isolation_level=None, check_same_thread=False)
    raw.execute("PRAGMA synchronous=FULL")

    def inserted() -> float:
        raw.execute("DELETE FROM faultproof_log")
        rows = [("raw", e.partition, n // 8, n, 0, e.id, e.key, e.type, e.payload, e.headers) for n, e in all_]
        began = time.perf_counter()
        for start in range(0, count, BY_HAND_BATCH):
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany(
                "INSERT INTO faultproof_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows[start : start + BY_HAND_BATCH]
            )
            raw.execute("COMMIT")
        return time.perf_counter() - began

    all_ = list(enumerate(entries(count)))

    async def measure() -> dict[str, float]:
        return {RATE: count / await asyncio.to_thread(inserted)}

    async def ask(query: str) -> Sequence[Sequence[Any]]:
        return raw.execute(query).fetchall()

    yield Ready(measure=measure, settings=await sqlite_settings(ask))
    raw.close()


_INTO_THE_LOG = Contestant(
    name="ours, into the log", side="ours", configured="one sequencer, as it comes", open=into_the_log
)
_TO_A_SINK = Contestant(
    name="ours, to a function",
    side="ours",
    configured="one worker with sequencer and relay, batch=1000; the function does nothing",
    open=partial(to_a_sink, options=fp.ConsumerOptions(batch=1_000)),
)
_TO_A_SINK_AS_IT_COMES = Contestant(
    name="ours, to a function, as it comes",
    side="ours",
    configured="one worker with sequencer and relay; the function does nothing",
    open=partial(to_a_sink, options=fp.ConsumerOptions()),
)

POSTGRESQL = Benchmark(
    name="drain-postgresql",
    engine="postgresql",
    measures=f"A backlog of {EVENTS:,} events, committed before: from the start of the worker until none is left.",
    figures=(Figure(name=RATE, unit="events/s"),),
    compared=RATE,
    contestants=(
        _INTO_THE_LOG,
        _TO_A_SINK,
        _TO_A_SINK_AS_IT_COMES,
        *faststream_outbox.DRAINS,
        *pgqueuer.DRAINS,
        *procrastinate.DRAINS,
        Contestant(
            name="by hand, in SQL",
            side="by hand",
            configured=f"psycopg; DELETE … RETURNING into INSERT, {BY_HAND_BATCH:,} rows a transaction",
            open=postgres_by_hand,
        ),
    ),
    aims=(
        Aim(figure=RATE, of="ours, into the log", over=("faststream-outbox, best",), at_least=3),
        Aim(figure=RATE, of="ours, into the log", over=("pgqueuer, best",), at_least=2),
        Aim(figure=RATE, of="ours, into the log", over=("faststream-outbox, as it comes",), at_least=15),
    ),
    rounds=3,
    notes=(
        "Into the log is where an event is ordered and safe from being skipped, and where any number of groups read it"
        " from. Peers have no such step: they hand rows to one function and delete them. The like of that is 'to a"
        " function'.",
        "Peers that take seconds for a few thousand drain fewer; a rate is a rate.",
    ),
)

SQLITE = Benchmark(
    name="drain-sqlite",
    engine="sqlite",
    measures=f"A backlog of {EVENTS:,} events into the log; beside inserting the same rows there.",
    figures=(Figure(name=RATE, unit="events/s"),),
    compared=RATE,
    contestants=(
        _INTO_THE_LOG,
        _TO_A_SINK,
        Contestant(
            name="by hand, executemany",
            side="by hand",
            configured=f"sqlite3; INSERT into the log's table, {BY_HAND_BATCH:,} rows a transaction; nothing is moved",
            open=sqlite_by_hand,
        ),
    ),
    aims=(Aim(figure=RATE, of="ours, into the log", at_least=25_000),),
)

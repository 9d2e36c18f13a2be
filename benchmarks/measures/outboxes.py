"""Outboxes of ours as benchmarks use them: opened, filled and drained."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import faultproof as fp
from benchmarks.load import BODY
from benchmarks.settings import postgres_settings, sqlite_settings
from faultproof.ports.database import Database
from faultproof.ports.log import Entry

KEYS = 500
PARTITIONS = 8
FILL = 20_000
"""Events in one transaction when a backlog is made."""


@asynccontextmanager
async def opened(url: str, options: fp.OutboxOptions | None = None) -> AsyncIterator[tuple[Database, fp.Outbox]]:
    """A database with an outbox installed."""
    async with fp.connect(url) as db:
        outbox = fp.Outbox(db, events={"item.sold": dict}, options=options)
        await outbox.install()
        yield db, outbox
        await outbox.close()


async def settings(db: Database) -> dict[str, str]:
    """Durability in effect on a connection that `db` writes with."""
    async with db.transaction() as tx:

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            return await tx.fetch(query)

        return await (postgres_settings(ask) if "PostgreSQL" in db.durability else sqlite_settings(ask))


def entries(count: int, start: int = 0) -> list[Entry]:
    """Events as `publish` makes them."""
    payload = json.dumps(BODY)
    return [
        Entry(number % PARTITIONS, f"{number:032x}", f"key-{number % KEYS}", "item.sold", payload, None, 0)
        for number in range(start, start + count)
    ]


async def backlog(db: Database, count: int) -> None:
    """Commit `count` events that nobody has sequenced."""
    for start in range(0, count, FILL):
        await db.transact(db.logs.append("outbox", entries(min(FILL, count - start), start), partitions=PARTITIONS))


async def in_the_log(db: Database) -> int:
    """How many events have ever been sequenced."""
    return sum(span.next for span in await db.read(db.logs.spans("outbox")))


async def drained(db: Database, outbox: fp.Outbox, count: int) -> float:
    """Let a sequencer move `count` waiting events into the log; seconds."""
    loop = outbox.sequencer()
    news = await loop.open()
    wanted = await in_the_log(db) + count
    began = time.perf_counter()
    while True:
        # As a worker does it: a step, and a look at the other loops.
        rest = await loop.step()
        if rest > 0:
            ended = time.perf_counter()
            if await in_the_log(db) >= wanted:
                break
        await asyncio.sleep(0)
    news.close()
    await loop.close()
    return ended - began


async def delivered(db: Database, outbox: fp.Outbox, group: str, count: int, options: fp.ConsumerOptions) -> float:
    """Let a worker move `count` waiting events into the log and hand each to a function that does nothing; seconds."""
    done, seen = asyncio.Event(), 0

    async def sink(event: fp.Event[Any]) -> None:
        nonlocal seen
        seen += 1
        if seen >= count:
            done.set()

    worker = fp.Worker(db.env, outbox.sequencer(), outbox.relay(group, sink, options))
    began = time.perf_counter()
    running = asyncio.create_task(worker.run())
    await done.wait()
    # The worker's last transaction moves the cursor past what was handed over: it belongs to the work.
    worker.stop()
    await running
    return time.perf_counter() - began

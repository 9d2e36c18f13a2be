"""Reserving by hand, as well as it can be: the conditional update and the hold in one statement, or one transaction.

PostgreSQL: one data-modifying CTE, committed by itself, so a reservation is one round trip
(https://www.postgresql.org/docs/current/queries-with.html). SQLite: BEGIN IMMEDIATE, the same two writes, COMMIT, in a
plain thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.buying import ITEM, STOCK, Shop
from benchmarks.settings import Ask

ITEMS = """CREATE TABLE by_hand_item (item TEXT PRIMARY KEY, available BIGINT NOT NULL CHECK (available >= 0),
  reserved BIGINT NOT NULL, sold BIGINT NOT NULL)"""
HOLDS = """CREATE TABLE by_hand_hold (key TEXT PRIMARY KEY, item TEXT NOT NULL, quantity BIGINT NOT NULL,
  state TEXT NOT NULL, until_us BIGINT NOT NULL)"""

RESERVE = """WITH taken AS (
    UPDATE by_hand_item SET available = available - %(quantity)s, reserved = reserved + %(quantity)s
    WHERE item = %(item)s AND available >= %(quantity)s RETURNING item)
  INSERT INTO by_hand_hold (key, item, quantity, state, until_us)
  SELECT %(key)s, item, %(quantity)s, 'held',
    (extract(epoch FROM statement_timestamp()) * 1000000)::bigint + 300000000 FROM taken RETURNING key"""
CONFIRM = """WITH changed AS (
    UPDATE by_hand_hold SET state = 'confirmed' WHERE key = %(key)s AND state = 'held'
      AND until_us > (extract(epoch FROM statement_timestamp()) * 1000000)::bigint
    RETURNING item, quantity)
  UPDATE by_hand_item AS i SET reserved = i.reserved - changed.quantity, sold = i.sold + changed.quantity
  FROM changed WHERE i.item = changed.item RETURNING i.item"""
RELEASE = """WITH changed AS (
    UPDATE by_hand_hold SET state = 'released' WHERE key = %(key)s AND state = 'held' RETURNING item, quantity)
  UPDATE by_hand_item AS i SET reserved = i.reserved - changed.quantity, available = i.available + changed.quantity
  FROM changed WHERE i.item = changed.item RETURNING i.item"""


@asynccontextmanager
async def postgres(url: str, *, pool: int, create: bool) -> AsyncIterator[tuple[Shop, Ask]]:
    """On a pool of psycopg's."""
    import psycopg_pool as pools

    async with pools.AsyncConnectionPool(
        url, min_size=pool, max_size=pool, open=False, kwargs={"autocommit": True}, timeout=60.0
    ) as connections:
        if create:
            async with connections.connection() as raw:
                await raw.execute(ITEMS)
                await raw.execute(HOLDS)
                await raw.execute("INSERT INTO by_hand_item VALUES (%s, %s, 0, 0)", (ITEM, STOCK))

        async def run(statement: str, **values: Any) -> bool:
            async with connections.connection() as raw:
                return await (await raw.execute(statement.encode(), values, prepare=True)).fetchone() is not None

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            async with connections.connection() as raw:
                return await (await raw.execute(query.encode())).fetchall()

        yield (
            Shop(
                reserve=lambda key, quantity: run(RESERVE, key=key, quantity=quantity, item=ITEM),
                confirm=lambda key: run(CONFIRM, key=key),
                release=lambda key: run(RELEASE, key=key),
            ),
            ask,
        )


_RETURNED = {
    "confirmed": "UPDATE by_hand_item SET reserved = reserved - ?1, sold = sold + ?1 WHERE item = ?2",
    "released": "UPDATE by_hand_item SET reserved = reserved - ?1, available = available + ?1 WHERE item = ?2",
}


class _Sqlite:
    """One caller in one thread: no event loop, no waiting for others."""

    def __init__(self, path: str) -> None:
        self.raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.raw.execute("PRAGMA journal_mode=WAL")
        self.raw.execute("PRAGMA synchronous=FULL")
        self.raw.execute(ITEMS)
        self.raw.execute(HOLDS)
        self.raw.execute("INSERT INTO by_hand_item VALUES (?, ?, 0, 0)", (ITEM, STOCK))

    def reserve(self, key: str, quantity: int) -> bool:
        self.raw.execute("BEGIN IMMEDIATE")
        changed = self.raw.execute(
            "UPDATE by_hand_item SET available = available - ?1, reserved = reserved + ?1 WHERE item = ?2 AND available >= ?1",
            (quantity, ITEM),
        ).rowcount
        if changed:
            self.raw.execute(
                "INSERT INTO by_hand_hold VALUES (?, ?, ?, 'held', unixepoch() * 1000000 + 300000000)",
                (key, ITEM, quantity),
            )
        self.raw.execute("COMMIT")
        return changed == 1

    def end(self, key: str, state: str) -> bool:
        self.raw.execute("BEGIN IMMEDIATE")
        row = self.raw.execute(
            "UPDATE by_hand_hold SET state = ? WHERE key = ? AND state = 'held' RETURNING item, quantity", (state, key)
        ).fetchone()
        if row is not None:
            self.raw.execute(_RETURNED[state], (row[1], row[0]))
        self.raw.execute("COMMIT")
        return row is not None


@asynccontextmanager
async def sqlite(path: str) -> AsyncIterator[tuple[_Sqlite, Ask]]:
    """A connection for one thread."""
    shop = await asyncio.to_thread(_Sqlite, path)

    async def ask(query: str) -> Sequence[Sequence[Any]]:
        return shop.raw.execute(query).fetchall()

    yield shop, ask
    shop.raw.close()

"""The escrow's tables, and every statement on them.

A hold has one row for each of its lines, so that the database itself can add up what is held of an item; all lines of a
hold share state and times. Rows of deliveries (`restocked`) stand there as well: their keys must not be used twice either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.ports.schema import Schema
from faultproof.ports.script import Changed, sql

SCHEMA = Schema(
    name="escrow",
    versions=[
        [
            # The last line of defence: whatever the code does, no commit oversells.
            """CREATE TABLE IF NOT EXISTS faultproof_escrow_item (
                 escrow TEXT NOT NULL, item TEXT NOT NULL, total BIGINT NOT NULL,
                 available BIGINT NOT NULL CHECK (available >= 0), reserved BIGINT NOT NULL CHECK (reserved >= 0),
                 sold BIGINT NOT NULL CHECK (sold >= 0), PRIMARY KEY (escrow, item),
                 CHECK (available + reserved + sold = total)) {updated}""",
            """CREATE TABLE IF NOT EXISTS faultproof_escrow_hold (
                 escrow TEXT NOT NULL, key TEXT NOT NULL, line BIGINT NOT NULL, item TEXT NOT NULL,
                 quantity BIGINT NOT NULL CHECK (quantity > 0), state TEXT NOT NULL, until_us BIGINT NOT NULL,
                 ttl_us BIGINT NOT NULL, at_us BIGINT NOT NULL, PRIMARY KEY (escrow, key, line))""",
            """CREATE INDEX IF NOT EXISTS faultproof_escrow_hold_due
                 ON faultproof_escrow_hold (escrow, until_us) WHERE state = 'held'""",
            """CREATE INDEX IF NOT EXISTS faultproof_escrow_hold_over
                 ON faultproof_escrow_hold (escrow, at_us) WHERE state <> 'held'""",
        ]
    ],
    works_from=1,
    works_to=1,
)


class StockRow(NamedTuple):
    """One item, as it is stored."""

    item: str
    total: int
    available: int
    reserved: int
    sold: int


class LineRow(NamedTuple):
    """One line of a hold, as it is stored."""

    key: str
    line: int
    item: str
    quantity: int
    state: str
    until_us: int
    ttl_us: int
    at_us: int


class Move(NamedTuple):
    """What is added to each number of an item."""

    escrow: str
    item: str
    total: int
    available: int
    reserved: int
    sold: int


class Change(NamedTuple):
    """How a hold stands from now on."""

    escrow: str
    key: str
    state: str
    until_us: int
    at_us: int


# Named items, and those of holds called by key. In order of the item, so that two transactions which need the same two
# cannot wait for each other. The limits on sets, which cut nothing off, keep a planner that knows nothing of a set from
# expecting so much that it would rather read the whole table.
_LOCK = """
    SELECT i.item, i.total, i.available, i.reserved, i.sold FROM faultproof_escrow_item AS i
    WHERE i.escrow = :escrow AND i.item IN (
      SELECT value FROM {items}
      UNION SELECT h.item FROM faultproof_escrow_hold AS h
        WHERE h.escrow = :escrow AND h.key IN (SELECT value FROM {keys} LIMIT :count))
    ORDER BY i.item """


@sql(_LOCK + "{lock}")
def lock(escrow: str, items: Sequence[str], keys: Sequence[str], count: int) -> list[StockRow]:
    """Lock the items that are needed, waiting for those that are locked elsewhere. `count`: of the keys."""


@sql(_LOCK + "{lock_or_skip}")
def lock_or_skip(escrow: str, items: Sequence[str], keys: Sequence[str], count: int) -> list[StockRow]:
    """Lock the items that are needed and not locked elsewhere."""


# Behind the locks: on PostgreSQL each statement sees what was committed before it began, so whatever has happened to
# these holds before the locks were had is seen here.
@sql(
    """SELECT h.key, h.line, h.item, h.quantity, h.state, h.until_us, h.ttl_us, h.at_us
       FROM faultproof_escrow_hold AS h
       WHERE h.escrow = :escrow AND h.key IN (SELECT value FROM {keys} LIMIT :count) ORDER BY h.key, h.line"""
)
def lines(escrow: str, keys: Sequence[str], count: int) -> list[LineRow]:
    """The holds of these keys."""


# The longest overdue thousand are looked at: where no loop runs, this is how long looking takes at most.
@sql(
    """SELECT d.key FROM (SELECT key, item, until_us FROM faultproof_escrow_hold
         WHERE escrow = :escrow AND state = 'held' AND until_us <= {now} ORDER BY until_us LIMIT 1000) AS d
       WHERE d.item IN {items} ORDER BY d.until_us, d.key LIMIT 100"""
)
def due_on(escrow: str, items: Sequence[str]) -> list[str]:
    """Keys of holds whose time is up and that keep these items from being sold."""


@sql("SELECT {now}")
def clock() -> int:
    """The engine's, now."""


# Sums and not results: if ever a lock failed, the table's checks would still refuse to oversell. The escrow's name comes
# with each row, or SQLite would go through all items of the escrow to find those few.
@sql(
    """UPDATE faultproof_escrow_item AS i SET total = i.total + moves.total, available = i.available + moves.available,
         reserved = i.reserved + moves.reserved, sold = i.sold + moves.sold
       FROM {moves} WHERE i.escrow = moves.escrow AND i.item = moves.item""",
    deferred=True,
)
def move(moves: Sequence[Move]) -> None:
    """Add to items that are there."""


# Another process may create one of them at the same time: then both have added what they have.
@sql(
    """INSERT INTO faultproof_escrow_item (escrow, item, total, available, reserved, sold)
       SELECT escrow, item, total, available, reserved, sold FROM {moves} WHERE true ORDER BY item
       ON CONFLICT (escrow, item) DO UPDATE SET total = faultproof_escrow_item.total + excluded.total,
         available = faultproof_escrow_item.available + excluded.available,
         reserved = faultproof_escrow_item.reserved + excluded.reserved,
         sold = faultproof_escrow_item.sold + excluded.sold""",
    deferred=True,
)
def create(moves: Sequence[Move]) -> None:
    """Make items that were not there."""


@sql(
    """INSERT INTO faultproof_escrow_hold (escrow, key, line, item, quantity, state, until_us, ttl_us, at_us)
       SELECT :escrow, key, line, item, quantity, state, until_us, ttl_us, at_us FROM {rows} ORDER BY ordinal""",
    deferred=True,
)
def insert(escrow: str, rows: Sequence[LineRow]) -> None:
    """Write the lines of new holds."""


@sql(
    """UPDATE faultproof_escrow_hold AS h SET state = changes.state, until_us = changes.until_us, at_us = changes.at_us
       FROM {changes} WHERE h.escrow = changes.escrow AND h.key = changes.key""",
    deferred=True,
)
def change(changes: Sequence[Change]) -> None:
    """Write down what has become of holds."""


# -- reading ------------------------------------------------------------------------------------------------------------


class HoldRow(NamedTuple):
    """One line of a hold, with the clock that its end is to be read by."""

    item: str
    quantity: int
    state: str
    until_us: int
    now_us: int


@sql(
    """SELECT item, quantity, state, until_us, {now} FROM faultproof_escrow_hold
       WHERE escrow = :escrow AND key = :key AND state <> 'restocked' ORDER BY line"""
)
def hold(escrow: str, key: str) -> list[HoldRow]:
    """One hold."""


@sql(
    """SELECT item, total, available, reserved, sold FROM faultproof_escrow_item
       WHERE escrow = :escrow AND item = :item"""
)
def item(escrow: str, item: str) -> StockRow | None:
    """One item."""


@sql(
    """SELECT item, total, available, reserved, sold FROM faultproof_escrow_item
       WHERE escrow = :escrow AND item > :after ORDER BY item LIMIT :limit"""
)
def items(escrow: str, after: str, limit: int) -> list[StockRow]:
    """Some items, in order."""


# -- the loop -----------------------------------------------------------------------------------------------------------


@sql(
    """SELECT key FROM faultproof_escrow_hold
       WHERE escrow = :escrow AND state = 'held' AND until_us <= {now} ORDER BY until_us, key LIMIT :limit"""
)
def due(escrow: str, limit: int) -> list[str]:
    """Keys of holds whose time is up, the longest first; of one with several lines several times."""


class Look(NamedTuple):
    """All that an idle loop asks."""

    due_in_us: int | None
    """Until the next hold is due, if there is any."""
    over_for_us: int | None
    """How long the oldest row that nobody can change any more has been so, if there is any."""


@sql(
    """SELECT (SELECT min(until_us) FROM faultproof_escrow_hold WHERE escrow = :escrow AND state = 'held') - {now},
         {now} - (SELECT min(at_us) FROM faultproof_escrow_hold WHERE escrow = :escrow AND state <> 'held')"""
)
def look(escrow: str) -> Look:
    """Whether there is anything to do."""


@sql(
    """DELETE FROM faultproof_escrow_hold WHERE escrow = :escrow AND key IN (
         SELECT key FROM faultproof_escrow_hold
         WHERE escrow = :escrow AND state <> 'held' AND at_us <= {now} - :keep_us ORDER BY at_us LIMIT :limit)"""
)
def trim(escrow: str, keep_us: int, limit: int) -> Changed:
    """Forget what has been over for long."""


# -- the audit -----------------------------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """An item's numbers, and what its holds add up to."""

    item: str
    total: int
    available: int
    reserved: int
    sold: int
    held: int
    confirmed: int


class Counts(NamedTuple):
    """How much there is."""

    items: int
    holds: int
    overdue: int


class Strange(NamedTuple):
    """A hold that cannot be."""

    key: str
    item: str


@sql(
    """SELECT i.item, i.total, i.available, i.reserved, i.sold, coalesce(s.held, 0), coalesce(s.confirmed, 0)
       FROM faultproof_escrow_item AS i LEFT JOIN (
         SELECT item, CAST(sum(CASE WHEN state = 'held' THEN quantity ELSE 0 END) AS BIGINT) AS held,
                CAST(sum(CASE WHEN state = 'confirmed' THEN quantity ELSE 0 END) AS BIGINT) AS confirmed
         FROM faultproof_escrow_hold WHERE escrow = :escrow GROUP BY item) AS s ON s.item = i.item
       WHERE i.escrow = :escrow AND (
         i.available < 0 OR i.reserved < 0 OR i.sold < 0 OR i.available + i.reserved + i.sold <> i.total
         OR i.reserved <> coalesce(s.held, 0) OR i.sold < coalesce(s.confirmed, 0))
       ORDER BY i.item LIMIT :limit"""
)
def wrong_sums(escrow: str, limit: int) -> list[Sums]:
    """Items whose numbers do not add up."""


@sql(
    """SELECT h.key, h.item FROM faultproof_escrow_hold AS h
       LEFT JOIN faultproof_escrow_item AS i ON i.escrow = h.escrow AND i.item = h.item
       WHERE h.escrow = :escrow AND i.item IS NULL ORDER BY h.key, h.line LIMIT :limit"""
)
def orphans(escrow: str, limit: int) -> list[Strange]:
    """Holds of items that are not there."""


@sql(
    """SELECT key, min(item) FROM faultproof_escrow_hold WHERE escrow = :escrow
       GROUP BY key HAVING min(state) <> max(state) OR min(until_us) <> max(until_us) OR count(*) <> max(line) + 1
       ORDER BY key LIMIT :limit"""
)
def torn(escrow: str, limit: int) -> list[Strange]:
    """Holds whose lines do not stand together."""


@sql(
    """SELECT (SELECT count(*) FROM faultproof_escrow_item WHERE escrow = :escrow),
         count(DISTINCT key), count(DISTINCT CASE WHEN until_us <= {now} THEN key END)
       FROM faultproof_escrow_hold WHERE escrow = :escrow AND state = 'held'"""
)
def counts(escrow: str) -> Counts:
    """Items, holds, and those that are overdue."""

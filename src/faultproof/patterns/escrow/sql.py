"""The escrow's tables, and every statement on them.

A hold has one row for each of its lines, so that the database itself can add up what is held of an item; all lines of a
hold share state and times. Rows of deliveries (`restocked`) stand there as well: their keys must not be used twice either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.ports.schema import Schema
from faultproof.ports.script import sql
from faultproof.ports.statement import Changed

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


class NewLine(NamedTuple):
    """One line of a hold that begins now, or of a delivery, which has no `ttl_us`."""

    key: str
    line: int
    item: str
    quantity: int
    ttl_us: int


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

    key: str
    state: str
    until_us: int


# Named items, and those of holds called by key. In order of the item, so that two transactions which need the same two
# cannot wait for each other.
_LOCK = """
    SELECT i.item, i.total, i.available, i.reserved, i.sold FROM faultproof_escrow_item AS i
    WHERE i.escrow = :escrow AND i.item IN (
      SELECT value FROM {items}
      UNION SELECT h.item FROM faultproof_escrow_hold AS h WHERE h.escrow = :escrow AND h.key IN {keys})
    ORDER BY i.item """


@sql(_LOCK + "{lock}")
def lock(escrow: str, items: Sequence[str], keys: Sequence[str]) -> list[StockRow]:
    """Lock the items that are needed, waiting for those that are locked elsewhere."""


@sql(_LOCK + "{lock_or_skip}")
def lock_or_skip(escrow: str, items: Sequence[str], keys: Sequence[str]) -> list[StockRow]:
    """Lock the items that are needed and not locked elsewhere."""


# Behind the locks: on PostgreSQL each statement sees what was committed before it began, so whatever has happened to
# these holds before the locks were had is seen here.
@sql(
    """SELECT key, line, item, quantity, state, until_us, ttl_us FROM faultproof_escrow_hold
       WHERE escrow = :escrow AND key IN {keys} ORDER BY key, line"""
)
def lines(escrow: str, keys: Sequence[str]) -> list[LineRow]:
    """The holds of these keys."""


class Instant(NamedTuple):
    """The time by the engine's clock, and the key of a hold whose time is up then, if there is any."""

    now_us: int
    due: str | None


# The longest overdue thousand are looked at: where no loop runs, this is how long looking takes at most.
@sql(
    """SELECT {now}, d.key FROM (SELECT 1) AS one LEFT JOIN (
         SELECT key FROM (SELECT key, item, until_us FROM faultproof_escrow_hold
           WHERE escrow = :escrow AND state = 'held' AND until_us <= {now} ORDER BY until_us LIMIT 1000) AS oldest
         WHERE item IN {items} ORDER BY until_us, key LIMIT 100) AS d ON true"""
)
def instant(escrow: str, items: Sequence[str]) -> list[Instant]:
    """Now, with each of the holds that keep these items from being sold although their time is up."""


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


# What is the same for all of them does not come with each: that is a sixth of what a row costs the server.
@sql(
    """INSERT INTO faultproof_escrow_hold (escrow, key, line, item, quantity, state, until_us, ttl_us, at_us)
       SELECT :escrow, key, line, item, quantity, CASE WHEN ttl_us = 0 THEN 'restocked' ELSE 'held' END,
         :now_us + ttl_us, ttl_us, :now_us FROM {rows}""",
    deferred=True,
)
def insert(escrow: str, now_us: int, rows: Sequence[NewLine]) -> None:
    """Write the lines of new holds."""


@sql(
    """UPDATE faultproof_escrow_hold AS h SET state = changes.state, until_us = changes.until_us, at_us = :now_us
       FROM {changes} WHERE h.escrow = :escrow AND h.key IN {keys} AND h.key = changes.key""",
    deferred=True,
)
def change(escrow: str, now_us: int, keys: Sequence[str], changes: Sequence[Change]) -> None:
    """Write down what has become of holds. `keys`: theirs, by which an index finds them whatever the planner knows."""


# -- without looking ----------------------------------------------------------------------------------------------------


# More than there is leaves no number, which the table refuses; its checks are a second line of defence, as for all writes.
@sql(
    """UPDATE faultproof_escrow_item SET reserved = reserved + :quantity,
         available = CASE WHEN available >= :quantity THEN available - :quantity END
       WHERE escrow = :escrow AND item = :item RETURNING {moment} - {now}"""
)
def take(escrow: str, item: str, quantity: int) -> list[int]:
    """Hold so many of an item; for how many microseconds somebody else had it locked."""


# So is a hold of no number, where an item is not there. In order of the key: who writes the same ones at the same
# time waits, and two must not wait for each other.
@sql(
    """INSERT INTO faultproof_escrow_hold (escrow, key, line, item, quantity, state, until_us, ttl_us, at_us)
       SELECT :escrow, key, line, item, CASE WHEN :count = (
           SELECT count(*) FROM faultproof_escrow_item AS i WHERE i.escrow = :escrow AND i.item IN {items})
         THEN quantity END, 'held', now_us + ttl_us, ttl_us, now_us
       FROM {rows}, (SELECT {now} AS now_us LIMIT 1) AS time ORDER BY key RETURNING at_us"""
)
def hold_all(escrow: str, items: Sequence[str], count: int, rows: Sequence[NewLine]) -> list[int]:
    """Write the lines of new holds on `count` items that are there; the time for each, which is the same."""


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
    """SELECT key FROM faultproof_escrow_hold
       WHERE escrow = :escrow AND state <> 'held' AND at_us <= {now} - :keep_us ORDER BY at_us LIMIT :limit"""
)
def over(escrow: str, keep_us: int, limit: int) -> list[str]:
    """Keys of what has been over for long; of one with several lines several times."""


# The conditions again: a key that another loop has just forgotten may be that of a new hold.
@sql(
    """DELETE FROM faultproof_escrow_hold
       WHERE escrow = :escrow AND key IN {keys} AND state <> 'held' AND at_us <= {now} - :keep_us"""
)
def forget(escrow: str, keys: Sequence[str], keep_us: int) -> Changed:
    """Forget these."""


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

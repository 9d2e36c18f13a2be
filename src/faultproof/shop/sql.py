"""The shop's own tables, and its statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.ports.schema import Schema
from faultproof.ports.script import sql
from faultproof.shop.baskets import Line

SCHEMA = Schema(
    name="shop",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS shop_order (
                 id TEXT PRIMARY KEY, key TEXT NOT NULL, at_us BIGINT NOT NULL)""",
            """CREATE TABLE IF NOT EXISTS shop_line (
                 order_id TEXT NOT NULL, item TEXT NOT NULL, quantity BIGINT NOT NULL, version BIGINT NOT NULL,
                 PRIMARY KEY (order_id, item))""",
            """CREATE TABLE IF NOT EXISTS shop_item (
                 name TEXT PRIMARY KEY, sold BIGINT NOT NULL, version BIGINT NOT NULL)""",
            """CREATE TABLE IF NOT EXISTS shop_summary (
                 item TEXT PRIMARY KEY, units BIGINT NOT NULL, orders BIGINT NOT NULL, chain BIGINT NOT NULL)""",
            """CREATE TABLE IF NOT EXISTS shop_stock (
                 item TEXT PRIMARY KEY, level BIGINT NOT NULL, moves BIGINT NOT NULL, chain BIGINT NOT NULL)""",
        ]
    ],
    works_from=1,
    works_to=1,
)


class Sold(NamedTuple):
    """A line with the version that its item's row got."""

    item: str
    quantity: int
    version: int


class Versioned(NamedTuple):
    """An item's row after the sale."""

    item: str
    version: int


# No constraint on the key: that an order is taken once is the work of `Idempotency`, and the audit's to check.
@sql("INSERT INTO shop_order (id, key, at_us) VALUES (:id, :key, {now})", deferred=True)
def add_order(id: str, key: str) -> None: ...


# Sorted: two orders that share items lock their rows in the same order.
@sql(
    """INSERT INTO shop_item (name, sold, version) SELECT item, quantity, 1 FROM {lines} WHERE true ORDER BY item
       ON CONFLICT (name) DO UPDATE SET sold = shop_item.sold + excluded.sold, version = shop_item.version + 1
       RETURNING name, version"""
)
def sell(lines: Sequence[Line]) -> list[Versioned]: ...


# Orders that share a transaction lock in an order that none of them knows alone: all their items, before the first.
@sql(
    """INSERT INTO shop_item (name, sold, version) SELECT value, 0, 0 FROM {names} WHERE true ORDER BY value
       ON CONFLICT (name) DO UPDATE SET version = shop_item.version""",
    deferred=True,
)
def hold(names: Sequence[str]) -> None: ...


@sql(
    """INSERT INTO shop_summary (item, units, orders, chain) VALUES (:item, :quantity, 1, :version)
       ON CONFLICT (item) DO UPDATE SET units = shop_summary.units + excluded.units, orders = shop_summary.orders + 1,
         chain = (shop_summary.chain * 1000003 + excluded.chain) % 2147483647""",
    deferred=True,
)
def add_to_summary(item: str, quantity: int, version: int) -> None: ...


@sql(
    """INSERT INTO shop_stock (item, level, moves, chain) VALUES (:item, 1000000 - :quantity, 1, :version)
       ON CONFLICT (item) DO UPDATE SET level = shop_stock.level + excluded.level - 1000000,
         moves = shop_stock.moves + 1, chain = (shop_stock.chain * 1000003 + excluded.chain) % 2147483647""",
    deferred=True,
)
def draw_from_stock(item: str, quantity: int, version: int) -> None: ...


@sql(
    """INSERT INTO shop_line (order_id, item, quantity, version)
       SELECT :order_id, item, quantity, version FROM {lines} WHERE true""",
    deferred=True,
)
def add_lines(order_id: str, lines: Sequence[Sold]) -> None: ...


@sql("SELECT count(*) FROM faultproof_saga WHERE saga = :saga AND ended_us IS NULL AND state <> 'attention'")
def sagas_under_way(saga: str) -> int: ...


# -- what planted bugs write, see `mishandled.py` ---------------------------------------------------------------------

PLANTED = Schema(
    name="shop-planted",
    versions=[["CREATE TABLE IF NOT EXISTS shop_to_undo (key TEXT PRIMARY KEY)"]],
    works_from=1,
    works_to=1,
)


@sql("INSERT INTO shop_to_undo (key) VALUES (:key) ON CONFLICT DO NOTHING", deferred=True)
def write_down(key: str) -> None: ...


@sql("SELECT count(*) FROM shop_to_undo WHERE key = :key")
def written_down(key: str) -> int: ...


@sql(
    """UPDATE faultproof_escrow_item SET available = available - :quantity, reserved = reserved + :quantity
       WHERE escrow = :escrow AND item = :item""",
    deferred=True,
)
def take_unchecked(escrow: str, item: str, quantity: int) -> None: ...


@sql(
    """INSERT INTO faultproof_escrow_hold (escrow, key, line, item, quantity, state, until_us, ttl_us, at_us)
       VALUES (:escrow, :key, :line, :item, :quantity, 'held', {now} + :ttl_us, :ttl_us, {now})""",
    deferred=True,
)
def add_hold_line(escrow: str, key: str, line: int, item: str, quantity: int, ttl_us: int) -> None: ...


@sql(
    """UPDATE faultproof_escrow_item SET reserved = reserved - :quantity, sold = sold + :quantity
       WHERE escrow = :escrow AND item = :item""",
    deferred=True,
)
def sell_unchecked(escrow: str, item: str, quantity: int) -> None: ...


@sql("UPDATE faultproof_escrow_hold SET state = 'confirmed' WHERE escrow = :escrow AND key = :key", deferred=True)
def confirm_unchecked(escrow: str, key: str) -> None: ...

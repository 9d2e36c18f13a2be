"""What the tables say, read with plain SQL: nothing of the library takes part in an audit."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec


class OrderLine(NamedTuple):
    """One line of an order, or the event that tells of it: they must be equal."""

    order: str
    item: str
    quantity: int
    version: int

    def told(self) -> str:
        """For a person."""
        return f"item {self.item!r}, version {self.version} (order {self.order})"


class OrderRow(NamedTuple):
    """One order."""

    id: str
    key: str


class Recorded(NamedTuple):
    """One event at its place in the stream."""

    partition: int
    offset: int
    id: str
    key: str | None
    line: OrderLine


class Tally(NamedTuple):
    """Units and number of sales of an item; `chain` depends on their order too."""

    units: int
    sales: int
    chain: int


class Books(NamedTuple):
    """All that the audit compares."""

    orders: list[OrderRow]
    lines: list[OrderLine]
    items: dict[str, Tally]
    stream: list[Recorded]
    """By partition and offset."""
    summary: dict[str, Tally]
    stock: dict[str, Tally]


class _Payload(msgspec.Struct):
    """An event as it was stored; read without the class that it was published from."""

    order: str
    item: str
    quantity: int
    version: int


_decode = msgspec.json.Decoder(_Payload).decode


def read_books(database: sqlite3.Connection) -> Books:
    """Everything, in one snapshot."""
    database.execute("BEGIN")
    try:
        return Books(
            [OrderRow(*row) for row in database.execute("SELECT id, key FROM shop_order")],
            [OrderLine(*row) for row in database.execute("SELECT order_id, item, quantity, version FROM shop_line")],
            _tallies(database, "SELECT name, sold, version, 0 FROM shop_item"),
            [_event(*row) for row in database.execute(_STREAM)],
            _tallies(database, "SELECT item, units, orders, chain FROM shop_summary"),
            _tallies(database, "SELECT item, level, moves, chain FROM shop_stock"),
        )
    finally:
        database.rollback()


_STREAM = """SELECT "partition", "offset", event_id, key, payload FROM faultproof_log
             WHERE log = 'shop' ORDER BY "partition", "offset" """


def _tallies(database: sqlite3.Connection, query: str) -> dict[str, Tally]:
    return {item: Tally(units, sales, chain) for item, units, sales, chain in database.execute(query)}


def _event(partition: int, offset: int, id: str, key: str | None, payload: str) -> Recorded:
    told = _decode(payload)
    return Recorded(partition, offset, id, key, OrderLine(told.order, told.item, told.quantity, told.version))

"""What the tables say, read with plain SQL: nothing of the library takes part in an audit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    import psycopg

Row = tuple[Any, ...]


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


class Ledger(Protocol):
    """The tables of one run, on a connection that is there to read them."""

    def snapshot(self) -> AbstractContextManager[None]:
        """All queries inside see the same moment."""
        ...

    def execute(self, query: LiteralString) -> Iterable[Row]:
        """The rows of a query."""
        ...

    def damage(self) -> list[str]:
        """What the database itself finds wrong with what it stores."""
        ...


class SqliteLedger:
    """In a file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def execute(self, query: LiteralString) -> Iterable[Row]:
        return self._connection.execute(query)

    def damage(self) -> list[str]:
        return [str(said) for (said,) in self.execute("PRAGMA quick_check(5)") if said != "ok"]


class PostgresLedger:
    """On a server. Everything is read there, which also checks the pages' checksums where the server keeps them."""

    def __init__(self, connection: psycopg.Connection) -> None:
        """`connection`: in autocommit."""
        self._connection = connection

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            self._connection.rollback()

    def execute(self, query: LiteralString) -> Iterable[Row]:
        return self._connection.execute(query)

    def damage(self) -> list[str]:
        """Rows that a table has and its primary key does not lead to, or the other way round."""
        with self.snapshot():
            self.execute(
                "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
            )
            by_key = list(self.execute(_COUNTS))
            self.execute(
                """SELECT set_config('enable_seqscan', 'on', true), set_config('enable_indexscan', 'off', true),
                          set_config('enable_indexonlyscan', 'off', true)"""
            )
            by_table = list(self.execute(_COUNTS))
        return [] if by_key == by_table else [f"tables have {by_table} rows, and their keys lead to {by_key}"]


_COUNTS = """SELECT (SELECT count(*) FROM shop_order WHERE id >= ''), (SELECT count(*) FROM shop_line WHERE order_id >= ''),
                    (SELECT count(*) FROM shop_item WHERE name >= ''), (SELECT count(*) FROM shop_summary WHERE item >= ''),
                    (SELECT count(*) FROM shop_stock WHERE item >= ''), (SELECT count(*) FROM faultproof_log WHERE log >= '')"""


def read_books(database: Ledger) -> Books:
    """Everything, in one snapshot."""
    with database.snapshot():
        return Books(
            [OrderRow(*row) for row in database.execute("SELECT id, key FROM shop_order")],
            [OrderLine(*row) for row in database.execute("SELECT order_id, item, quantity, version FROM shop_line")],
            _tallies(database, "SELECT name, sold, version, 0 FROM shop_item"),
            [_event(*row) for row in database.execute(_STREAM)],
            _tallies(database, "SELECT item, units, orders, chain FROM shop_summary"),
            _tallies(database, "SELECT item, level, moves, chain FROM shop_stock"),
        )


_STREAM = """SELECT "partition", "offset", event_id, key, payload FROM faultproof_log
             WHERE log = 'shop' ORDER BY "partition", "offset" """


def _tallies(database: Ledger, query: LiteralString) -> dict[str, Tally]:
    return {item: Tally(units, sales, chain) for item, units, sales, chain in database.execute(query)}


def _event(partition: int, offset: int, id: str, key: str | None, payload: str) -> Recorded:
    told = _decode(payload)
    return Recorded(partition, offset, id, key, OrderLine(told.order, told.item, told.quantity, told.version))

"""A small shop's books, made by hand: right as they are, and easy to spoil in one place."""

import sqlite3
from collections.abc import Sequence

import msgspec

from faultproof.shop.baskets import Line
from faultproof.shop.journal import Answered, Sent

# Without any constraint: a test must be able to write what a database would refuse.
TABLES = """
    CREATE TABLE shop_order (id, key, at_us);
    CREATE TABLE shop_line (order_id, item, quantity, version);
    CREATE TABLE shop_item (name, sold, version);
    CREATE TABLE shop_summary (item, units, orders, chain);
    CREATE TABLE shop_stock (item, level, moves, chain);
    CREATE TABLE faultproof_log (log, "partition", "offset", event_id, key, payload);
"""

SENT = [
    Sent("k1", [Line("eggs", 1), Line("milk", 2)]),
    Sent("k2", [Line("milk", 1)]),
    Sent("k3", [Line("eggs", 1)]),
    Sent("k4", [Line("caviar", 1)]),
]
ANSWERED = [
    Answered("k1", 201, "o1"),
    Answered("k2", 201, "o2"),
    Answered("k2", 201, "o2"),  # asked again
    Answered("k3", 201, "o3"),
    Answered("k4", 400, None),
]
LINES = [("o1", "eggs", 1, 1), ("o1", "milk", 2, 1), ("o2", "milk", 1, 2), ("o3", "eggs", 1, 2)]


def chain(*versions: int) -> int:
    """As in `effects.py`, written once more."""
    found = 0
    for version in versions:
        found = (found * 1_000_003 + version) % 2_147_483_647
    return found


def good() -> sqlite3.Connection:
    """Three orders, four lines, two items, two partitions."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(TABLES)
    database.executemany("INSERT INTO shop_order VALUES (?, ?, 0)", [("o1", "k1"), ("o2", "k2"), ("o3", "k3")])
    database.executemany("INSERT INTO shop_line VALUES (?, ?, ?, ?)", LINES)
    database.executemany("INSERT INTO shop_item VALUES (?, ?, ?)", [("eggs", 2, 2), ("milk", 3, 2)])
    append(database, [(0, 0, LINES[0]), (0, 1, LINES[3]), (1, 0, LINES[1]), (1, 1, LINES[2])])
    append(database, [(0, 0, ("else", "where", 1, 1))], log="another")
    account = [("eggs", 2, 2, chain(1, 2)), ("milk", 3, 2, chain(1, 2))]
    database.executemany("INSERT INTO shop_summary VALUES (?, ?, ?, ?)", account)
    stock = [(item, 1_000_000 - units, moves, chained) for item, units, moves, chained in account]
    database.executemany("INSERT INTO shop_stock VALUES (?, ?, ?, ?)", stock)
    return database


def append(
    database: sqlite3.Connection, events: Sequence[tuple[int, int, tuple[str, str, int, int]]], log: str = "shop"
) -> None:
    """Put (partition, offset, line) into the stream."""
    for partition, offset, (order, item, quantity, version) in events:
        payload = msgspec.json.encode({"order": order, "item": item, "quantity": quantity, "version": version})
        row = (log, partition, offset, f"{log}-{partition}-{offset}", item, payload.decode())
        database.execute("INSERT INTO faultproof_log VALUES (?, ?, ?, ?, ?, ?)", row)

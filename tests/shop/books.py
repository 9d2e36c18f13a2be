"""A small shop's books and its provider's, made by hand: right as they are, and easy to spoil in one place."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

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
    CREATE TABLE faultproof_saga (saga, id, state, input);
    CREATE TABLE faultproof_escrow_item (escrow, item, total, available, reserved, sold);
    CREATE TABLE faultproof_escrow_hold (escrow, key, item, quantity, state);
"""
PROVIDER = """
    CREATE TABLE done (key, action, order_id, amount, of);
    CREATE TABLE call (n INTEGER PRIMARY KEY, key, action, fate);
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

# The first two orders are fulfilled; the third was charged, reserved and shipped, and then undone.
SAGAS = [("o1", "completed", 375), ("o2", "completed", 125), ("o3", "compensated", 125)]
ITEMS = [("eggs", 2, 1, 0, 1), ("milk", 3, 0, 0, 3)]
HOLDS = [
    ("delivery of eggs", "eggs", 2, "restocked"),
    ("delivery of milk", "milk", 3, "restocked"),
    ("o1", "eggs", 1, "confirmed"),
    ("o1", "milk", 2, "confirmed"),
    ("o2", "milk", 1, "confirmed"),
    ("o3", "eggs", 1, "released"),
]
DONE = [
    ("c1", "charge", "o1", 375, None),
    ("s1", "ship", "o1", 1, None),
    ("c2", "charge", "o2", 125, None),
    ("s2", "ship", "o2", 1, None),
    ("c3", "charge", "o3", 125, None),
    ("s3", "ship", "o3", 1, None),
    ("x3", "cancel", "o3", 1, "s3"),
    ("r3", "refund", "o3", 125, "c3"),
]
FATES = ["answered"] * 6 + ["lost", "late", "failed", "declined", "void"]


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
    for id, state, amount in SAGAS:
        lines = [(item, quantity) for order, item, quantity, _ in LINES if order == id]
        wanted = msgspec.json.encode({"amount": amount, "lines": lines}).decode()
        database.execute("INSERT INTO faultproof_saga VALUES ('fulfilment', ?, ?, ?)", (id, state, wanted))
    database.execute("INSERT INTO faultproof_saga VALUES ('of somebody else', 'o1', 'running', '{}')")
    database.executemany("INSERT INTO faultproof_escrow_item VALUES ('stock', ?, ?, ?, ?, ?)", ITEMS)
    database.executemany("INSERT INTO faultproof_escrow_hold VALUES ('stock', ?, ?, ?, ?)", HOLDS)
    database.execute("INSERT INTO faultproof_escrow_hold VALUES ('of somebody else', 'o1', 'eggs', 9, 'held')")
    return database


def provider(directory: Path, *spoil: str) -> Path:
    """What the provider has written down, and then these statements."""
    path = directory / "provider.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(PROVIDER)
        database.executemany("INSERT INTO done VALUES (?, ?, ?, ?, ?)", DONE)
        database.executemany("INSERT INTO call (key, action, fate) VALUES ('k', 'charge', ?)", [(f,) for f in FATES])
        for statement in spoil:
            database.execute(statement)
    return path


def append(
    database: sqlite3.Connection, events: Sequence[tuple[int, int, tuple[str, str, int, int]]], log: str = "shop"
) -> None:
    """Put (partition, offset, line) into the stream."""
    for partition, offset, (order, item, quantity, version) in events:
        payload = msgspec.json.encode({"order": order, "item": item, "quantity": quantity, "version": version})
        row = (log, partition, offset, f"{log}-{partition}-{offset}", item, payload.decode())
        database.execute("INSERT INTO faultproof_log VALUES (?, ?, ?, ?, ?, ?)", row)

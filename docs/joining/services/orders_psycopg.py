"""Orders with psycopg and nothing else: a command places them, and a receiver handles messages of any broker once.

    python orders_psycopg.py install
    python orders_psycopg.py order o-1 990     # the order and its event, or neither
    python orders_psycopg.py receive m-1 o-1   # what a broker's consumer does for each message, however often it comes

`SHOP_DB` is the address of a PostgreSQL database.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

import faultproof as fp

URL = os.environ.get("SHOP_DB", "postgresql://localhost/shop")


class Shop:
    """A connection of our own, and faultproof's side on a background loop."""

    def __init__(self, raw: psycopg.Connection, blocking: fp.Blocking) -> None:
        self.raw = raw
        self.blocking = blocking
        self.db = blocking.call(fp.connect, URL)
        self.outbox = fp.Outbox(self.db, events={"order-placed": dict})
        self.inbox = fp.MessageInbox(self.db, "payments")

    def install(self) -> None:
        self.blocking.call(self.outbox.install)
        self.blocking.call(self.inbox.install)
        with self.raw.transaction():
            self.raw.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER NOT NULL, paid INTEGER NOT NULL)")

    def order(self, id: str, total: str) -> str:
        with self.raw.transaction():
            self.raw.execute("INSERT INTO orders VALUES (%s, %s, 0)", (id, int(total)))
            return self.outbox.publish({"total": int(total)}, key=id, type="order-placed", tx=fp.join(self.raw))

    def receive(self, message: str, order: str) -> str:
        with self.raw.transaction():
            if not self.inbox.first(message, tx=fp.join(self.raw)):
                return "seen before"
            self.raw.execute("UPDATE orders SET paid = paid + total WHERE id = %s", (order,))
        return "handled"  # only now acknowledge it to the broker


@contextmanager
def opened() -> Iterator[Shop]:
    with psycopg.connect(URL, autocommit=True) as raw, fp.Blocking() as blocking:
        shop = Shop(raw, blocking)
        yield shop
        blocking.call(shop.db.close)


if __name__ == "__main__":
    with opened() as shop:
        print(getattr(shop, sys.argv[1])(*sys.argv[2:]))

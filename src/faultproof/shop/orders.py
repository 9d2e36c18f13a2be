"""Taking an order: its rows and its events, in one transaction, once for each idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from faultproof.errors import KeyReused
from faultproof.patterns.outbox import Outbox
from faultproof.ports.database import Database
from faultproof.ports.script import Inline, Script
from faultproof.primitives.group_commit import Busy, Err, GroupCommit, Ok
from faultproof.shop import sql
from faultproof.shop.baskets import Basket
from faultproof.shop.board import Flag, State
from faultproof.shop.sql import Sold

LOG = "shop"
"""The outbox's name."""
_TAKE_S = 7.0
"""More than the 5 s that a transaction waits for the database's lock."""


class ItemSold(msgspec.Struct, frozen=True):
    """One line of an order was sold. `version`: of the item's row, counted by the same transaction."""

    order: str
    item: str
    quantity: int
    version: int


class Request(NamedTuple):
    """An order to take, under the id it will have if it is new."""

    id: str
    key: str
    basket: Basket


class Taken(NamedTuple):
    """The order's answer, the first time and every time after."""

    id: str
    sold: list[Sold]
    """What this call has sold; empty if an earlier one did."""


def outbox(database: Database) -> Outbox:
    """The shop's outbox, the same in every process."""
    return Outbox(database, events={"item.sold": ItemSold}, name=LOG)


class Orders:
    """Takes orders.

    Promise: an order that was answered is committed with its events; the same key again gets the same answer and sells
    nothing; per item the events are published in the order of its versions, because each publication follows the write
    that locks the item's row. Raises `KeyReused` for a key with other content.
    """

    def __init__(self, database: Database, flag: Flag) -> None:
        self._database = database
        self._flag = flag
        self._outbox = outbox(database)
        self._together: GroupCommit[Request, Taken] = GroupCommit(database, self._apply, name="orders")

    async def take(self, key: str, basket: Basket) -> Taken:
        """Take the order, or find that it was taken before. Orders that come in together share a transaction."""
        return await self._together.submit(Request(self._database.env.ids.new(), key, basket), timeout=_TAKE_S)

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._together.close()

    def _apply(self, requests: Sequence[Request], wait: bool) -> Script[list[Ok[Taken] | Err | Busy]]:
        outcomes: list[Ok[Taken] | Err | Busy] = []
        for request in requests:
            try:
                taken = yield from taking(request)
            except KeyReused as error:  # it has written nothing; the other orders go on
                outcomes.append(Err(error))
                continue
            self._flag.show(State.WROTE)
            for event in sold_by(taken):
                yield from self._outbox.publish(event, key=event.item, tx=Inline())
            self._flag.show(State.OPEN)
            outcomes.append(Ok(taken))
        return outcomes


def sold_by(taken: Taken) -> list[ItemSold]:
    """The events of an order."""
    return [ItemSold(taken.id, line.item, line.quantity, line.version) for line in taken.sold]


def taking(request: Request) -> Script[Taken]:
    """The business rows of an order, unless its key was used before. Raises `KeyReused` before it writes anything."""
    id, key, basket = request
    fingerprint = fingerprint_of(basket)
    if not (yield from sql.add_order(id, key, fingerprint)):
        first = yield from sql.stored(key)
        assert first is not None  # the conflict above names a row, and no order is ever deleted
        if first.fingerprint != fingerprint:
            raise KeyReused(f"the key {key!r} was used for an order with other content: use a new one")
        return Taken(first.id, [])
    versions = {row.item: row.version for row in (yield from sql.sell(basket))}
    sold = [Sold(line.item, line.quantity, versions[line.item]) for line in basket]
    yield from sql.add_lines(id, sold)
    return Taken(id, sold)


def fingerprint_of(basket: Basket) -> str:
    """The same for the same content, whatever order the items came in."""
    return hashlib.sha256(msgspec.json.encode(basket)).hexdigest()

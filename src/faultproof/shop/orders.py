"""Taking an order: its rows, its events and its saga, in one transaction, once for each idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from faultproof.errors import KeyReused
from faultproof.patterns.outbox import Outbox
from faultproof.patterns.saga import Saga
from faultproof.ports.database import Database
from faultproof.ports.script import Inline, Script
from faultproof.primitives.group_commit import Busy, Err, GroupCommit, Ok
from faultproof.primitives.idempotency import Idempotency
from faultproof.shop import sql
from faultproof.shop.baskets import Basket
from faultproof.shop.board import Flag, State
from faultproof.shop.fulfilment import DEADLINE_S, Order, order
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


def outbox(database: Database) -> Outbox:
    """The shop's outbox, the same in every process."""
    return Outbox(database, events={"item.sold": ItemSold}, name=LOG)


def answers(database: Database) -> Idempotency[str]:
    """Key of an order -> its id, the same in every process."""
    return Idempotency(database, "orders", answer=str)


class Orders:
    """Takes orders. Those that come in together share a transaction.

    Promise: an order that was answered is committed with its events; the same key again gets the same answer and sells
    nothing; per item the events are published in the order of its versions, because each publication follows the write
    that locks the item's row. Raises `KeyReused` for a key with other content.
    """

    def __init__(self, database: Database, flag: Flag, saga: Saga[Order]) -> None:
        self._database = database
        self._flag = flag
        self._saga = saga
        self._outbox = outbox(database)
        self._answers = answers(database)
        self._together: GroupCommit[Request, str] = GroupCommit(database, self._apply, name="orders")

    async def take(self, key: str, basket: Basket) -> str:
        """Take the order, or find that it was taken before; its id."""
        return await self._together.submit(Request(self._database.env.ids.new(), key, basket), timeout=_TAKE_S)

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._together.close()

    def _apply(self, requests: Sequence[Request], wait: bool) -> Script[list[Ok[str] | Err | Busy]]:
        outcomes: list[Ok[str] | Err | Busy] = []
        yield from sql.hold(sorted({line.item for request in requests for line in request.basket}))
        for request in requests:
            try:
                id = yield from self._answers.script(request.key, request.basket, self._selling(request))
            except KeyReused as error:  # it has written nothing; the other orders go on
                outcomes.append(Err(error))
            else:
                outcomes.append(Ok(id))
        return outcomes

    def _selling(self, request: Request) -> Script[str]:
        sold = yield from selling(request, self._saga)
        self._flag.show(State.WROTE)
        for event in events(request.id, sold):
            yield from self._outbox.publish(event, key=event.item, tx=Inline())
        self._flag.show(State.OPEN)
        return request.id


def selling(request: Request, saga: Saga[Order]) -> Script[list[Sold]]:
    """The business rows of a new order, and the saga that will fulfil it."""
    yield from sql.add_order(request.id, request.key)
    versions = {row.item: row.version for row in (yield from sql.sell(request.basket))}
    sold = [Sold(line.item, line.quantity, versions[line.item]) for line in request.basket]
    yield from sql.add_lines(request.id, sold)
    yield from saga.start(request.id, order(request.basket), deadline=DEADLINE_S, tx=Inline())
    return sold


def events(order: str, sold: Sequence[Sold]) -> list[ItemSold]:
    """What an order tells the rest of the shop."""
    return [ItemSold(order, line.item, line.quantity, line.version) for line in sold]

"""Three planted bugs around the outbox, each a mistake that services make: none shows without a crash in its window.

They exist to show that the audit can fail, and that what the correct shop does in the same place is what saves it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faultproof.patterns.outbox import ConsumerOptions, Event, Outbox
from faultproof.patterns.saga import Saga
from faultproof.ports.database import Database, News
from faultproof.ports.script import Script
from faultproof.primitives.worker import Loop
from faultproof.shop.baskets import Basket
from faultproof.shop.board import Flag, State
from faultproof.shop.effects import Effect
from faultproof.shop.fulfilment import Order
from faultproof.shop.orders import ItemSold, Request, answers, events, outbox, selling
from faultproof.shop.sql import Sold


class DualWrite:
    """Takes orders in one transaction and publishes their events in the next: a crash between the two loses them.

    A lock around both keeps the events of several processes in order; the operating system drops it when its process
    dies. So the crash is all that can go wrong here.
    """

    def __init__(self, database: Database, flag: Flag, saga: Saga[Order], lock: str) -> None:
        self._database = database
        self._flag = flag
        self._outbox = outbox(database)
        self._answers = answers(database)
        self._saga = saga
        self._here = asyncio.Lock()
        self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)

    async def take(self, key: str, basket: Basket) -> str:
        """Take the order, or find that it was taken before; its id."""
        request = Request(self._database.env.ids.new(), key, basket)
        sold: list[Sold] = []

        def work() -> Script[str]:
            sold.extend((yield from selling(request, self._saga)))
            return request.id

        async with self._locked():
            id = await self._database.transact(self._answers.script(key, basket, work()))
            if sold:
                self._flag.show(State.WROTE)
                async with self._database.transaction() as tx:
                    for event in events(id, sold):
                        await self._outbox.publish(event, key=event.item, tx=tx)
        return id

    async def close(self) -> None:
        """Let go of the lock file."""
        os.close(self._descriptor)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        async with self._here:
            await asyncio.to_thread(fcntl.flock, self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def without_inbox(
    shop: Outbox, database: Database, group: str, effect: Effect, flag: Flag, options: ConsumerOptions
) -> Loop:
    """Commits each effect by itself, and the cursor behind them: after a crash between the two, effects are repeated."""

    async def apply(event: Event[ItemSold]) -> None:
        async with database.transaction() as tx:
            await effect(event, tx)
        flag.show(State.APPLIED)

    return shop.relay(group, apply, options)


class AckEarly:
    """A `Loop` that commits the cursor, and the effects behind it: after a crash between the two, effects are lost."""

    def __init__(
        self, shop: Outbox, database: Database, group: str, effect: Effect, flag: Flag, options: ConsumerOptions
    ) -> None:
        self._consumer = shop.relay(group, self._remember, options)
        self._database = database
        self._effect = effect
        self._flag = flag
        self._acknowledged: list[Event[ItemSold]] = []
        self.name = self._consumer.name

    async def open(self) -> News:
        return await self._consumer.open()

    async def step(self) -> float:
        self._acknowledged.clear()
        rest = await self._consumer.step()
        for event in self._acknowledged:
            self._flag.show(State.MOVED)
            async with self._database.transaction() as tx:
                await self._effect(event, tx)
        return rest

    async def close(self) -> None:
        await self._consumer.close()

    async def _remember(self, event: Event[ItemSold]) -> None:
        self._acknowledged.append(event)

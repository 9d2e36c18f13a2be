"""Fulfilling an order: charge, reserve, ship, confirm; or refund, release, cancel, so that nothing of it is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from math import ceil

import msgspec

from faultproof.errors import HoldEnded
from faultproof.patterns.escrow import Escrow, EscrowOptions
from faultproof.patterns.saga import NOTHING_TO_UNDO, Saga, Step, StepContext, StepRetry
from faultproof.ports.database import Database, Transaction
from faultproof.shop.baskets import Basket, Line
from faultproof.shop.board import Flag, State
from faultproof.shop.delays import HOLD_S, Delays
from faultproof.shop.dependencies import Provider
from faultproof.shop.pricing import price

NAME = "fulfilment"
"""The saga's name."""
STOCK = "stock"
"""The escrow's name."""
SHORT = 0.8
"""The part of what all customers together will ask for that there is. About an eighth of the orders never get as far as
the stock, or come back from it: with 0.87 there would be enough for all others."""
DEADLINE_S = 900.0
"""Longer than a run: an order is undone because of the provider or of the stock, and not because a machine was slow."""
STEP_S = 8.0
"""More than a call, and what orders are held up before it when somebody aims at that."""

# Not rarer than kills come, and more attempts than the provider and all kills of a run can spoil.
RETRY = StepRetry(attempts=40, base=0.02, cap=0.5)


class Order(msgspec.Struct, frozen=True):
    """What a saga is started with."""

    amount: int
    """In cents."""
    lines: list[Line]


def order(basket: Basket) -> Order:
    """What is to be fulfilled of an order."""
    return Order(price(basket), list(basket))


def stock(database: Database) -> Escrow:
    """What there is to sell, the same in every process."""
    return Escrow(database, name=STOCK, options=EscrowOptions(ttl=HOLD_S, ttl_max=2 * HOLD_S))


async def fill(database: Database, baskets: Iterable[Basket]) -> None:
    """Put a little less into the stock than all baskets together want."""
    wanted = Counter[str]()
    for basket in baskets:
        for line in basket:
            wanted[line.item] += line.quantity
    escrow = stock(database)
    async with asyncio.TaskGroup() as group:
        for item, quantity in wanted.items():
            group.create_task(_delivered(escrow, item, ceil(SHORT * quantity)))
    await escrow.close()


async def _delivered(escrow: Escrow, item: str, quantity: int) -> None:
    await escrow.restock(item, quantity, key=f"first delivery of {item}")


class Fulfilment:
    """The saga, with its steps.

    Shipping is the pivot: until the parcel is under way everything can be undone, and afterwards the only thing left is to
    book what is held as sold.
    """

    def __init__(self, database: Database, provider: Provider, flag: Flag, delays: Delays) -> None:
        self.stock = stock(database)
        self._provider = provider
        self._flag = flag
        self._delays = delays
        self._calling = 0
        self._quoted: Step[Order, str] = Step.remote(
            self._quote, undo=NOTHING_TO_UNDO, name="quote", timeout=STEP_S, retry=RETRY
        )
        ship = Step.remote(self._ship, undo=self._cancel, name="ship", timeout=STEP_S, retry=RETRY, undo_retry=RETRY)
        self.saga: Saga[Order] = Saga(
            database,
            NAME,
            input=Order,
            steps=[
                [
                    Step.remote(
                        self._charge, undo=self._refund, name="charge", timeout=STEP_S, retry=RETRY, undo_retry=RETRY
                    ),
                    self._quoted,
                ],
                self._reserving(),
                ship,
                Step.remote(self._confirm, name="confirm", retry=RETRY),
            ],
            pivot=ship,
        )

    async def close(self) -> None:
        """Finish what was accepted."""
        await self.saga.close()
        await self.stock.close()
        self._provider.close()

    def _reserving(self) -> Step[Order, None]:
        return Step.local(self._reserve, undo=self._release, name="reserve", retry=RETRY, undo_retry=RETRY)

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _charge(self, context: StepContext[Order]) -> str:
        return await self._call("/payment/charge_card", context, amount=context.input.amount)

    async def _refund(self, context: StepContext[Order], reference: str | None) -> None:
        await self._call("/payment/refund_card", context, of=self._key(context.undone_key or ""))

    async def _quote(self, context: StepContext[Order]) -> str:
        # A step of its own: what is shipped again, with the same key, is shipped with the same carrier.
        return await self._provider.cheapest(context.id, sum(line.quantity for line in context.input.lines))

    async def _reserve(self, context: StepContext[Order], tx: Transaction) -> None:
        await self._delays.before_taking()
        # With the journal's entry or not at all: a call of its own might commit after whoever made it has given it up.
        await self.stock.reserve(_quantities(context.input.lines), key=context.id, ttl=self._delays.hold_s, tx=tx)

    async def _release(self, context: StepContext[Order], nothing: None, tx: Transaction) -> None:
        with suppress(HoldEnded):  # its time was up, so it is available already
            await self.stock.release(context.id, tx=tx)

    async def _ship(self, context: StepContext[Order]) -> str:
        await self._delays.before_shipping(context.attempt)
        await self._keep(context)
        return await self._call("/shipping/create_shipment", context, carrier=context.result(self._quoted))

    async def _keep(self, context: StepContext[Order]) -> None:
        """Nothing is shipped that is not held, and will be until it is booked."""
        await self.stock.extend(context.id, ttl=HOLD_S)

    async def _cancel(self, context: StepContext[Order], reference: str | None) -> None:
        await self._call("/shipping/cancel_shipment", context, of=self._key(context.undone_key or ""))

    async def _confirm(self, context: StepContext[Order]) -> None:
        # In a transaction with others': it has a key, so it may be repeated, and nothing undoes it, so it may be late.
        await self.stock.confirm(context.id)

    def _key(self, key: str) -> str:
        """What the provider is to recognise the call by: the saga's own, the same after a crash."""
        return key

    async def _call(self, path: str, context: StepContext[Order], **asked: object) -> str:
        # Not before it is sent: who is killed while it connects has asked for nothing.
        with ExitStack() as calling:
            return await self._provider.call(
                path, self._key(context.key), lambda: calling.enter_context(self._shown()), order=context.id, **asked
            )

    @contextmanager
    def _shown(self) -> Iterator[None]:
        self._calling += 1
        self._flag.show(State.CALLING)
        try:
            yield
        finally:
            self._calling -= 1
            self._flag.show(State.CALLING if self._calling else State.IDLE)


def _quantities(lines: Sequence[Line]) -> dict[str, int]:
    return {line.item: line.quantity for line in lines}

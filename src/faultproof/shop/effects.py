"""What the two consumer groups make of the stream: a sales summary and a stock level, per item.

Neither can be repeated without harm: both add up. `chain` also depends on the order of the effects, so that an audit can
tell from the table alone whether each item's events arrived in the order of the stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from faultproof.patterns.outbox import Event
from faultproof.ports.database import Transaction
from faultproof.shop import sql
from faultproof.shop.board import Flag, State
from faultproof.shop.orders import ItemSold

STOCK = 1_000_000
"""Units of each item before the first sale."""
CHAIN_FACTOR = 1_000_003
CHAIN_MODULUS = 2**31 - 1

Effect = Callable[[Event[ItemSold], Transaction], Awaitable[None]]


async def summarise(event: Event[ItemSold], tx: Transaction) -> None:
    """Add the sale to its item's summary."""
    sold = event.body
    await tx.run(sql.add_to_summary(sold.item, sold.quantity, sold.version))


async def draw(event: Event[ItemSold], tx: Transaction) -> None:
    """Take the sale out of its item's stock."""
    sold = event.body
    await tx.run(sql.draw_from_stock(sold.item, sold.quantity, sold.version))


GROUPS: dict[str, Effect] = {"summary": summarise, "stock": draw}
"""The consumer groups and what each does."""


def shown(effect: Effect, flag: Flag) -> Effect:
    """The same effect, with the flag raised where its cursor has yet to follow."""

    async def apply(event: Event[ItemSold], tx: Transaction) -> None:
        await effect(event, tx)
        flag.show(State.APPLIED)

    return apply

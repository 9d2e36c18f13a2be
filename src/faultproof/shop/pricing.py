"""What an order costs; and what it would cost by a new rule, which is tried on a part of the real orders, in shadow."""

from __future__ import annotations

from faultproof.shop.baskets import Basket

PRICE = 125
"""Of one unit of anything, in cents."""
MANY = 4
"""From so many units of one thing on …"""
OFF = 10
"""… the new rule takes off so many in a hundred."""
SHARE = 0.2
"""Of the orders on which the new rule is tried."""
FLAG = "pricing-shadow"


def price(basket: Basket) -> int:
    """In cents."""
    return PRICE * sum(line.quantity for line in basket)


def new_price(basket: Basket) -> int:
    """In cents, by the new rule."""
    off = sum(PRICE * line.quantity * OFF // 100 for line in basket if line.quantity >= MANY)
    return price(basket) - off

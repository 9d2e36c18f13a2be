"""What callers ask for, checked before anything is done with it; and what they are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.patterns.escrow.options import EscrowOptions

State = Literal["held", "confirmed", "released", "expired"]

NAME_BYTES_MAX = 255
QUANTITY_MAX = 10**12
TOTAL_MAX = 10**15
"""Of one item. Sums of a million of them still fit into what both engines calculate with."""
LINES_MAX = 100
"""Items of one hold."""


class Hold(NamedTuple):
    """A reservation, as it stood when the answer was given."""

    key: str
    items: dict[str, int]
    """How many of each."""
    state: State
    until_us: int
    """When it expires or has expired, by the engine's clock, in microseconds since 1970."""
    left_s: float
    """How many seconds were left then; 0 unless it is held."""


class StockItem(NamedTuple):
    """How an item stands: `available + reserved + sold == total`."""

    item: str
    total: int
    available: int
    reserved: int
    """In holds that may still be confirmed."""
    sold: int


Line = tuple[str, int]
Lines = tuple[Line, ...]


class Restock(NamedTuple):
    """Add to an item."""

    key: str
    lines: Lines


class Reserve(NamedTuple):
    """Hold so many of each item."""

    key: str
    lines: Lines
    ttl_us: int


class Confirm(NamedTuple):
    """What is held is sold."""

    key: str


class Release(NamedTuple):
    """What is held is available again."""

    key: str


class Extend(NamedTuple):
    """Hold it at least so much longer, from now."""

    key: str
    ttl_us: int


class Expire(NamedTuple):
    """If its time is up: what is held is available again. Asked by the loop."""

    key: str


Request = Restock | Reserve | Confirm | Release | Extend | Expire


def restock(item: object, quantity: object, key: object) -> Restock:
    """Raises `InvalidInput`, like all of these."""
    return Restock(text(key, "a key"), ((text(item, "an item"), count(quantity, item)),))


def reserve(items: object, key: object, ttl: float | None, options: EscrowOptions) -> Reserve:
    """Its lines are in order of the item: the same hold is the same lines."""
    if not (type(items) is dict or isinstance(items, Mapping)) or not 1 <= len(items) <= LINES_MAX:
        raise InvalidInput(
            f"a hold is of 1 to {LINES_MAX} items, as a mapping from item to quantity, got {bounds.short(items)}"
        )
    checked = [(text(item, "an item"), count(quantity, item)) for item, quantity in items.items()]
    lines = (checked[0],) if len(checked) == 1 else tuple(sorted(checked))
    return Reserve(text(key, "a key"), lines, microseconds(ttl, options))


def microseconds(ttl: float | None, options: EscrowOptions) -> int:
    """How long a hold is to last."""
    if ttl is None:
        return int(options.ttl * 1_000_000)
    bounds.seconds("ttl", ttl, least=0)
    if not options.lock_timeout < ttl <= options.ttl_max:
        raise InvalidInput(
            f"a hold lasts longer than the {options.lock_timeout} s that a call may wait for a lock, and at most "
            f"{options.ttl_max} s: got `ttl`={ttl}"
        )
    return int(ttl * 1_000_000)


def text(value: object, what: str) -> str:
    """A key, or an item's name."""
    if isinstance(value, str) and "\0" not in value:
        try:
            if 1 <= len(value) <= NAME_BYTES_MAX and (value.isascii() or len(value.encode()) <= NAME_BYTES_MAX):
                return value
        except UnicodeEncodeError:  # half of a surrogate pair, which no engine stores
            pass
    raise InvalidInput(
        f"{what} is a text of 1 to {NAME_BYTES_MAX} bytes without NUL characters, got {bounds.short(value)}"
    )


def count(quantity: object, item: object) -> int:
    """How many; no fraction, and `True` is not one."""
    if type(quantity) is int and 1 <= quantity <= QUANTITY_MAX:
        return quantity
    raise InvalidInput(
        f"a quantity is a whole number from 1 to {QUANTITY_MAX:,}, got {bounds.short(quantity)} of {bounds.short(item)}"
    )

"""Deciding: what becomes of items and holds when calls come, one after the other. No input or output.

`Books` are what a transaction has locked and read. Each decision takes them from one state to the next and says what to
answer; many calls on one item are thus one transaction, and what is written is the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from faultproof.errors import (
    HoldEnded,
    HoldExpired,
    InsufficientStock,
    InvalidInput,
    KeyReused,
    UnknownHold,
    UnknownItem,
)
from faultproof.patterns.escrow.requests import (
    TOTAL_MAX,
    Confirm,
    Expire,
    Extend,
    Hold,
    Lines,
    Release,
    Request,
    Reserve,
    Restock,
    State,
    StockItem,
)
from faultproof.patterns.escrow.sql import Change, LineRow, Move, NewLine, StockRow
from faultproof.primitives.group_commit import Err, Ok


@dataclass(frozen=True, slots=True)
class Contended:
    """As an answer: nothing was done, because `item` is locked elsewhere, or is not there."""

    item: str


Decision = Ok[Any] | Err


class Stock:
    """An item on the books, and how it was stored."""

    __slots__ = ("available", "reserved", "row", "sold", "total")

    def __init__(self, row: StockRow | None) -> None:
        self.row = row
        """None: it is not there yet."""
        self.total, self.available, self.reserved, self.sold = row[1:] if row else (0, 0, 0, 0)


class Entry:
    """A hold on the books, or the key of a delivery."""

    __slots__ = ("changed", "key", "lines", "new", "state", "ttl_us", "until_us")

    def __init__(self, key: str, lines: Lines, state: str, until_us: int, ttl_us: int, *, new: bool) -> None:
        self.key = key
        self.lines = lines
        self.state = state
        self.until_us = until_us
        self.ttl_us = ttl_us
        self.new = new
        self.changed = False


class Books:
    """Items that are locked, and holds that were read behind the locks."""

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        """Whether locks were waited for: an item that is missing then does not exist."""
        self.now = 0
        """By the engine's clock, in microseconds."""
        self.stocks: dict[str, Stock] = {}
        self.entries: dict[str, Entry] = {}
        self.expired: list[Hold] = []
        """Those that were found to be over now: each is told of once."""

    def put_items(self, rows: Iterable[StockRow]) -> None:
        """What was locked."""
        self.stocks.update({row.item: Stock(row) for row in rows})

    def put_lines(self, rows: Iterable[LineRow]) -> None:
        """What was read."""
        for row in rows:
            entry = self.entries.get(row.key)
            line = ((row.item, row.quantity),)
            if entry is None:
                self.entries[row.key] = Entry(row.key, line, row.state, row.until_us, row.ttl_us, new=False)
            else:
                entry.lines += line

    def may_fall_short(self, requests: Sequence[Request]) -> bool:
        """Whether more is asked of some item than is available."""
        asked: dict[str, int] = {}
        for request in requests:
            if isinstance(request, Reserve):
                for item, quantity in request.lines:
                    asked[item] = asked.get(item, 0) + quantity
        return any(item in self.stocks and quantity > self.stocks[item].available for item, quantity in asked.items())

    def decide(self, requests: Sequence[Request]) -> list[Decision]:
        """Answer all of them, in order. Holds that are due go first, so that nothing is refused for their sake."""
        for entry in list(self.entries.values()):
            if entry.state == "held" and entry.until_us <= self.now and self.missing(entry) is None:
                self._expire(entry)
        return [_DECISIONS[type(request)](self, request) for request in requests]

    def missing(self, entry: Entry) -> str | None:
        """An item of the hold that is not locked."""
        return next((item for item, _ in entry.lines if item not in self.stocks), None)

    def hold(self, entry: Entry) -> Hold:
        """What its owner is told."""
        left_us = max(0, entry.until_us - self.now) if entry.state == "held" else 0
        return Hold(entry.key, dict(entry.lines), cast(State, entry.state), entry.until_us, left_us / 1_000_000)

    def end(self, entry: Entry, state: State) -> None:
        """A held entry is over: its lines are sold, or available again."""
        for item, quantity in entry.lines:
            stock = self.stocks[item]
            stock.reserved -= quantity
            if state == "confirmed":
                stock.sold += quantity
            else:
                stock.available += quantity
        entry.state, entry.changed = state, True

    def _expire(self, entry: Entry) -> None:
        self.end(entry, "expired")
        self.expired.append(self.hold(entry))

    # -- what is to be written ----------------------------------------------------------------------------------------

    def moves(self, escrow: str, *, new: bool) -> list[Move]:
        """What is added to items that were there, or to those that were not."""
        return [
            Move(
                escrow,
                item,
                stock.total - total,
                stock.available - available,
                stock.reserved - reserved,
                stock.sold - sold,
            )
            for item, stock in self.stocks.items()
            if (stock.row is None) is new
            for total, available, reserved, sold in [stock.row[1:] if stock.row else (0, 0, 0, 0)]
            if (stock.total, stock.available, stock.reserved, stock.sold) != (total, available, reserved, sold)
        ]

    def new_lines(self) -> list[NewLine]:
        """Of holds that were not there, as they began."""
        return [
            NewLine(entry.key, number, item, quantity, entry.ttl_us)
            for entry in self.entries.values()
            if entry.new
            for number, (item, quantity) in enumerate(entry.lines)
        ]

    def changes(self) -> list[Change]:
        """Of holds that were there, or have begun and changed in the same transaction."""
        return [Change(entry.key, entry.state, entry.until_us) for entry in self.entries.values() if entry.changed]


# -- one decision each ----------------------------------------------------------------------------------------------------


def _restock(books: Books, request: Restock) -> Decision:
    ((item, quantity),) = request.lines
    stock = books.stocks.get(item)
    entry = books.entries.get(request.key)
    if entry is not None and (entry.state, entry.lines) != ("restocked", request.lines):
        return Err(_reused(request.key))
    if stock is None:
        if not books.waits:
            return Ok(Contended(item))
        stock = Stock(None)
    if entry is None:
        if stock.total + quantity > TOTAL_MAX:
            return Err(
                InvalidInput(f"an item has at most {TOTAL_MAX:,}; {item!r} would have {stock.total + quantity:,}")
            )
        stock.total += quantity
        stock.available += quantity
        books.stocks[item] = stock
        books.entries[request.key] = Entry(request.key, request.lines, "restocked", books.now, 0, new=True)
    return Ok(StockItem(item, stock.total, stock.available, stock.reserved, stock.sold))


def _reserve(books: Books, request: Reserve) -> Decision:
    entry = books.entries.get(request.key)
    if entry is not None:
        return _again(books, request, entry)
    stocks, lines = books.stocks, request.lines
    for item, quantity in lines:
        stock = stocks.get(item)
        if stock is None:
            return Err(_unknown_item(item)) if books.waits else Ok(Contended(item))
        if stock.available < quantity:
            return Err(
                InsufficientStock(
                    f"{quantity} of {item!r} were asked for, {stock.available} are available and {stock.reserved} held",
                    item=item,
                    wanted=quantity,
                    available=stock.available,
                    reserved=stock.reserved,
                )
            )
    for item, quantity in lines:
        stock = stocks[item]
        stock.available -= quantity
        stock.reserved += quantity
    entry = Entry(request.key, lines, "held", books.now + request.ttl_us, request.ttl_us, new=True)
    books.entries[request.key] = entry
    return Ok(books.hold(entry))


def _again(books: Books, request: Reserve, entry: Entry) -> Decision:
    """A key that is there: the same hold, if it is still good for anything."""
    if (entry.lines, entry.ttl_us) != (request.lines, request.ttl_us) or entry.state == "restocked":
        return Err(_reused(request.key))
    if entry.state == "confirmed" or _is_held(books, entry):
        return Ok(books.hold(entry))
    return _over(books, entry)


def _confirm(books: Books, request: Confirm) -> Decision:
    entry = books.entries.get(request.key)
    if entry is None or entry.state == "restocked":
        return Err(_unknown_hold(request.key))
    if entry.state == "confirmed":
        return Ok(books.hold(entry))
    return _ending(books, entry, "confirmed")


def _release(books: Books, request: Release) -> Decision:
    entry = books.entries.get(request.key)
    if entry is None or entry.state == "restocked":
        return Err(_unknown_hold(request.key))
    if entry.state == "released":
        return Ok(books.hold(entry))
    return _ending(books, entry, "released")


def _ending(books: Books, entry: Entry, state: State) -> Decision:
    if not _is_held(books, entry):
        return _over(books, entry)
    if (item := books.missing(entry)) is not None:
        return Ok(Contended(item))
    books.end(entry, state)
    return Ok(books.hold(entry))


def _extend(books: Books, request: Extend) -> Decision:
    entry = books.entries.get(request.key)
    if entry is None or entry.state == "restocked":
        return Err(_unknown_hold(request.key))
    if not _is_held(books, entry):
        return _over(books, entry)
    if (item := books.missing(entry)) is not None:
        return Ok(Contended(item))
    until_us = books.now + request.ttl_us
    if until_us > entry.until_us:  # never shorter: the owner was told that it lasts until then
        entry.until_us, entry.changed = until_us, True
    return Ok(books.hold(entry))


def _expire(books: Books, request: Expire) -> Decision:
    """What could be done has been done before all requests."""
    entry = books.entries.get(request.key)
    if entry is None or entry.state != "held" or entry.until_us > books.now:
        return Ok(None)
    return Ok(Contended(books.missing(entry) or ""))


def _over(books: Books, entry: Entry) -> Decision:
    """The hold is good for nothing any more. One whose time is up, and whose items somebody else has locked, may just be
    confirmed by them: until that is committed or not, nobody knows."""
    if entry.state == "held" and (item := books.missing(entry)) is not None:
        return Ok(Contended(item))
    return Err(_ended(entry))


def _is_held(books: Books, entry: Entry) -> bool:
    """By the clock: one whose time is up is over, although its stock may not have been returned yet."""
    return entry.state == "held" and entry.until_us > books.now


_DECISIONS: dict[type, Callable[[Books, Any], Decision]] = {
    Restock: _restock,
    Reserve: _reserve,
    Confirm: _confirm,
    Release: _release,
    Extend: _extend,
    Expire: _expire,
}


# -- refusals -------------------------------------------------------------------------------------------------------------


def _reused(key: str) -> KeyReused:
    return KeyReused(f"the key {key!r} was used before with other content: use a new key for a new request")


def _unknown_item(item: str) -> UnknownItem:
    return UnknownItem(f"there is no item {item!r}: `restock` it first")


def _unknown_hold(key: str) -> UnknownHold:
    return UnknownHold(f"there is no hold {key!r} here, or it was over for so long that it has been forgotten")


def _ended(entry: Entry) -> HoldEnded:
    if entry.state in ("held", "expired"):
        return HoldExpired(
            f"the hold {entry.key!r} has expired and what it held is available again: reserve under a new key",
            key=entry.key,
            state="expired",
        )
    return HoldEnded(f"the hold {entry.key!r} has been {entry.state} already", key=entry.key, state=entry.state)

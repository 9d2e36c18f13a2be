"""Escrow's proof: two services sell few things to many, holds run out, under crashes and frozen processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from faultproof.errors import Failed, HoldExpired, OutcomeUnknown, TryAgain
from faultproof.patterns.escrow.books import Books
from faultproof.patterns.escrow.escrow import Escrow
from faultproof.patterns.escrow.expiry import Expiry
from faultproof.patterns.escrow.lanes import Lanes
from faultproof.patterns.escrow.operations import opened, write_holds, write_items, written
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.proof_orders import (
    ORDERS,
    Order,
    broken_words,
    done,
    happens,
    tell_of,
    wrong_expiries,
    wrong_holds,
    wrong_sums,
)
from faultproof.patterns.escrow.proof_shortage import FORGETTING, SHORTAGE
from faultproof.patterns.escrow.proof_survivors import SURVIVORS
from faultproof.patterns.escrow.requests import Confirm, Expire, Request, Reserve
from faultproof.patterns.escrow.sql import StockRow
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.primitives.group_commit import Err
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import ANY_FAULT, Always, Eventually, Main, Plant, Process, Proof, Sometimes

__all__ = ["ESCROW", "FORGETTING", "SHORTAGE"]

T = TypeVar("T")

STOCK = {"milk": 4, "bread": 3}
TTL_S = 0.4
OPTIONS = EscrowOptions(ttl=TTL_S, lock_timeout=0.1)


async def _prepare(database: Database) -> None:
    escrow = Escrow(database)
    await escrow.install()
    for item, quantity in STOCK.items():
        await escrow.restock(item, quantity, key=f"delivery of {item}")
        # Somebody else has some of each for long: a number that sinks too far does not show as one below zero.
        await escrow.restock(item, 5, key=f"more {item}")
        await escrow.reserve({item: 5}, key=f"kept-{item}", ttl=86_400.0)
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE told (key TEXT)")


class _Workload:
    """Customers of two services, and a loop that expires their holds."""

    def __init__(self, plant: str | None) -> None:
        self._plant = plant

    def processes(self) -> dict[str, Main]:
        """By name."""
        return {**dict.fromkeys(ORDERS, self._service), "expiry": self._expiry}

    def _escrow(self, process: Process) -> Escrow:
        escrow = Escrow(process.database(), options=OPTIONS, on_expired=tell_of)
        escrow._lanes.__class__ = _LANES.get(self._plant or "", Lanes)
        return escrow

    async def _service(self, process: Process) -> None:
        escrow = self._escrow(process)
        async with asyncio.TaskGroup() as group:
            for order in ORDERS[process.name]:
                group.create_task(_customer(process, escrow, order))
        process.note("finished", process.name)

    async def _expiry(self, process: Process) -> None:
        loop = self._escrow(process).expiry(every=0.2, keep=1_000_000.0)
        loop.__class__ = _LOOPS.get(self._plant or "", Expiry)
        await Worker(process.env, loop).run()


async def _customer(process: Process, escrow: Escrow, order: Order) -> None:
    """Asks again until there is an answer, as a client does; after a crash with the same key."""
    try:
        hold = await _answered(process, lambda: escrow.reserve(order.items, key=order.key))
        process.note("held", order.key, hold.until_us)
        if order.then == "release":
            await _answered(process, lambda: escrow.release(hold.key))
            process.note("released", order.key)
            return
        if order.then == "dawdle":
            await process.env.clock.sleep(TTL_S + 0.5)
        await _answered(process, lambda: escrow.confirm(hold.key))
        process.note("confirmed", order.key)
    except HoldExpired:
        process.note("expired", order.key)
    except Failed as refusal:
        process.note("refused", order.key, str(refusal))


async def _answered(process: Process, ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of somebody who was busy comes later, and who got none asks again."""
    while True:
        try:
            return await ask()
        except TryAgain:
            await process.env.clock.sleep(0.05)
        except OutcomeUnknown:
            await process.env.clock.sleep(0.05)


# -- planted bugs: what an escrow looks like that somebody simplified ----------------------------------------------------


def _told(books: Books) -> Script[None]:
    for hold in books.expired:
        yield from tell_of(hold)


def _answer(decisions: Sequence[Any]) -> Any:
    (decision,) = decisions
    if isinstance(decision, Err):
        raise decision.error
    return decision.value


def _database(lanes: Lanes) -> Database:
    return lanes._quick._database


class _Splits(Lanes):
    """The item's numbers in one transaction, the hold in the next."""

    async def submit(self, request: Request) -> Any:
        books = Books(waits=True)
        decisions: Any = None

        def numbers() -> Script[None]:
            nonlocal books, decisions
            books = yield from opened(self._escrow, [request], waits=True)
            decisions = books.decide([request])
            yield from write_items(self._escrow, books)
            yield from _told(books)

        await _database(self).transact(numbers)
        await _database(self).transact(write_holds(self._escrow, books))
        return _answer(decisions)


@sql(
    """UPDATE faultproof_escrow_item AS i SET total = rows.total, available = rows.available, reserved = rows.reserved,
         sold = rows.sold FROM {rows} WHERE i.item = rows.item"""
)
def _overwrite(rows: Sequence[StockRow]) -> None: ...


class _DoesNotLock(Lanes):
    """It looks in one transaction, and writes what it has calculated in the next."""

    async def submit(self, request: Request) -> Any:
        books = await _database(self).transact(lambda: opened(self._escrow, [request], waits=True))
        decisions = books.decide([request])

        def blindly() -> Script[None]:
            rows = [StockRow(i, s.total, s.available, s.reserved, s.sold) for i, s in books.stocks.items()]
            yield from _overwrite(rows)
            yield from write_holds(self._escrow, books)
            yield from _told(books)

        await _database(self).transact(blindly)
        return _answer(decisions)


class _ConfirmsTheExpired(Lanes):
    """Whoever confirms has paid, so it is sold."""

    async def submit(self, request: Request) -> Any:
        return _answer(await _database(self).transact(lambda: self._believed(request)))

    def _believed(self, request: Request) -> Script[Any]:
        books = yield from opened(self._escrow, [request], waits=True)
        entry = books.entries.get(request.key)
        if isinstance(request, Confirm) and entry is not None:
            entry.state, entry.until_us = "held", books.now + 1
        decisions = books.decide([request])
        yield from written(self._escrow, books)
        yield from _told(books)
        return decisions


class _ReservesAgain(Lanes):
    """A key of its own for each request, and not the caller's for each order."""

    async def submit(self, request: Request) -> Any:
        if isinstance(request, Reserve):
            process = self._quick._database.env.process
            request = Reserve(f"{request.key}#{process}", request.lines, request.ttl_us)
        return await super().submit(request)


class _ReservesInParts(Lanes):
    """An item after the other."""

    async def submit(self, request: Request) -> Any:
        if not isinstance(request, Reserve):
            return await super().submit(request)
        first, *rest = request.lines
        hold = await super().submit(Reserve(request.key, (first,), request.ttl_us))
        for number, line in enumerate(rest):
            await super().submit(Reserve(f"{request.key}#{number}", (line,), request.ttl_us))
        return hold


class _ExpiresTwice(Expiry):
    """What was due a moment ago is returned, whatever has become of it."""

    def _expire(self, keys: list[str], waits: bool) -> Script[Any]:
        requests = [Expire(key) for key in keys]
        books = yield from opened(self._escrow, requests, waits=True)
        for entry in books.entries.values():
            books._expire(entry)
        yield from written(self._escrow, books)
        yield from _told(books)
        return [None for _ in keys]


class _ReturnsLater(Expiry):
    """The hold is over in one transaction, and its stock is returned in the next."""

    async def _attempt(self, keys: list[str], *, waits: bool) -> list[str]:
        requests = [Expire(key) for key in keys]
        books = Books(waits=True)

        def over() -> Script[None]:
            nonlocal books
            books = yield from opened(self._escrow, requests, waits=True)
            books.decide(requests)
            yield from write_holds(self._escrow, books)
            yield from _told(books)

        await self._database.transact(over)
        await self._database.transact(write_items(self._escrow, books))
        return []


_LANES: dict[str, type[Lanes]] = {
    "split transaction": _Splits,
    "no lock": _DoesNotLock,
    "confirm after expiry": _ConfirmsTheExpired,
    "no idempotency key": _ReservesAgain,
    "partial hold": _ReservesInParts,
}
_LOOPS: dict[str, type[Expiry]] = {"expires twice": _ExpiresTwice, "returns later": _ReturnsLater}


ESCROW = Proof(
    name="faultproof.patterns.escrow.proof:ESCROW",
    claim=(
        "After every commit available + reserved + sold is the total of each item, and its numbers are the sums of its "
        "holds; a hold is of all its items or of none; the stock of each hold that expires is returned once, and that is "
        "told of once; who was told that his hold is there, confirmed, released or expired, was told the truth; the same "
        "key is the same hold."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "who gets no answer asks again with the same key",
    ),
    not_tested=(
        "two transactions at the same time: simulated SQLite has one writer, so PostgreSQL's row locks are not tried",
    ),
    prepare=_prepare,
    processes=lambda plant: _Workload(plant).processes(),
    done=done,
    always=(Always(claim="each item's numbers are those of its holds, and sum up to its total", wrong=wrong_sums),),
    eventually=(
        Eventually(claim="a hold is of all its items or of none, once", wrong=wrong_holds),
        Eventually(claim="each expiry is told of once", wrong=wrong_expiries),
        Eventually(claim="what a customer was told is so", wrong=broken_words),
    ),
    sometimes=(
        Sometimes(claim="a hold is confirmed", happened=happens("confirmed")),
        Sometimes(claim="a hold expires", happened=happens("expired")),
        Sometimes(claim="somebody finds too little left", happened=happens("refused")),
    ),
    plants=(
        Plant(name="no lock", breaks="what was read is written back later: sales in between are undone"),
        Plant(name="split transaction", breaks="numbers and hold commit apart: a crash between loses stock"),
        Plant(name="expires twice", breaks="a loop that was frozen returns the stock once more"),
        Plant(name="returns later", breaks="a hold is over and its stock not yet returned: a crash between loses it"),
        Plant(name="confirm after expiry", breaks="what was returned, and may be sold to others, is sold"),
        Plant(name="no idempotency key", breaks="a customer who asks again after a crash gets a second hold"),
        Plant(
            name="partial hold", breaks="a hold of several items is made one by one: some are held without the others"
        ),
    ),
    survivors=SURVIVORS,
)

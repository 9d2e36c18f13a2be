"""Who comes to the escrow in the proofs of shortage and of forgetting: beside others' escrows with the same items and keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from faultproof.errors import FaultproofError, HoldEnded, HoldExpired, KeyReused, OutcomeUnknown, TryAgain, UnknownHold
from faultproof.patterns.escrow import sql
from faultproof.patterns.escrow.escrow import Escrow
from faultproof.patterns.escrow.expiry import Expiry
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.proof_orders import tell_of
from faultproof.patterns.escrow.requests import Hold
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import (
    Main,
    Process,
)

T = TypeVar("T")

STOCK = {"milk": 3, "bread": 4, "eggs": 5}
DELIVERED = {"d-1": 3, "d-2": 2}
"""Of rice, which is not there before."""
TTL_S = 0.4
LONG_S = 3_600.0
KEEP_S = 0.5
"""For so long the escrow `brief` remembers the keys of holds that are over; the other longer than anybody asks again."""
BATCH = 2
OPENS_S = 0.7
"""When the loop begins: by then a hold is overdue that somebody needs."""
OPTIONS = EscrowOptions(ttl=TTL_S, lock_timeout=0.1, shards=1)
SHELVES = {f"shelf {number}": 1 for number in range(60)}
"""Items that nobody asks for, and who locked them all would do more than he need."""
KEPT = "kept"
"""A hold that lasts, of somebody who does nothing."""


async def prepare(database: Database) -> None:
    escrow, brief, other = (Escrow(database, name=name, options=OPTIONS) for name in ("stock", "brief", "other"))
    await escrow.install()
    for item in (*STOCK, "rice", "ghost"):
        await other.restock(item, 9, key=f"delivery of {item}")
    for item, quantity in STOCK.items():
        await escrow.restock(item, quantity, key=f"delivery of {item}")
    # What is over there, and overdue, is older than anything here; and so are holds that last.
    await other.reserve({"eggs": 1}, key="left")
    await other.reserve({"milk": 1}, key="again")
    await other.release("again")
    for item in ("bread", "eggs", "milk"):
        await brief.restock(item, 4, key=f"delivery of {item}")
    await brief.reserve({"bread": 1, "milk": 1}, key=KEPT, ttl=LONG_S)
    for item, quantity in SHELVES.items():
        await escrow.restock(item, quantity, key=f"delivery of {item}")
    await escrow.reserve(SHELVES, key=KEPT, ttl=LONG_S)
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE told (key TEXT)")
        await tx.execute("CREATE TABLE other_item AS SELECT * FROM faultproof_escrow_item WHERE escrow = 'other'")
        await tx.execute("CREATE TABLE other_hold AS SELECT * FROM faultproof_escrow_hold WHERE escrow = 'other'")


def _escrows(process: Process) -> list[Escrow]:
    """Ours."""
    database = process.database()
    return [Escrow(database, name=name, options=OPTIONS, on_expired=tell_of) for name in ("stock", "brief")]


# -- who comes -------------------------------------------------------------------------------------------------------------


class Customer:
    """One of them; whoever dies comes again from the beginning, with the same keys."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.clock = process.env.clock
        self.escrow, self.brief = _escrows(process)

    async def run(self) -> None:
        await getattr(self, self.process.name)()
        self.process.note("finished", self.process.name)

    async def early(self) -> None:
        """Asks for what is not there; leaves a hold behind; and comes back for more than is left without it."""
        await self.asks("unknown", {"ghost": 1})
        await self.asks("half unknown", {"ghost": 1, "milk": 1, "bread": 1})
        await self.asks("left", {"eggs": 4})
        await self.asks("abandoned", {"bread": 1})
        await self.clock.sleep(TTL_S + 0.1)
        await self.asks("back", {"eggs": 3, "milk": 1}, self.escrow.confirm)
        await self.asks("too much", {"eggs": 9})
        for key in ("again", "delivery of eggs"):  # a hold of others', and no hold
            await self.answered(key, partial(self.escrow.hold, key))
        await self.answered("back", lambda: self.escrow.hold("back"))
        milk = await self.answer(lambda: self.escrow.item("milk"))
        (behind,) = await self.answer(lambda: self.escrow.items(after="milk", limit=1))
        self.process.note("counted", milk.item, milk.total, behind.item)

    async def late(self) -> None:
        """Wants what the early one left as well; and of two holds it confirms one and releases the other at once."""
        await self.asks("kept one", {"milk": 1}, ttl=LONG_S)
        await self.asks("other one", {"bread": 1}, ttl=LONG_S)
        await asyncio.gather(
            self.asks("first", {"bread": 1}, ttl=LONG_S),  # or the others would not be in one transaction
            self.answered("kept one", lambda: self.escrow.confirm("kept one")),
            self.answered("other one", lambda: self.escrow.release("other one")),
        )
        await self.clock.sleep(TTL_S + 0.5)
        await self.asks("rival", {"eggs": 1}, self.escrow.confirm)

    async def regular(self) -> None:
        """Uses a key again for something else, as soon as it is forgotten what it was used for; and meanwhile delivers what
        it delivers again afterwards."""
        began, first_us = self.clock.monotonic(), 0
        await self.clock.sleep(OPENS_S + 0.1)
        try:
            await self.answer(lambda: self.brief.reserve({"milk": 1}, key="before", ttl=LONG_S))
            await self.answer(lambda: self.brief.release("before"))
        except (HoldEnded, UnknownHold):  # as below
            pass
        await self.clock.sleep(KEEP_S * 0.6)
        try:
            first = await self.answer(lambda: self.brief.reserve({"bread": 1}, key="again", ttl=LONG_S))
            began, first_us = self.clock.monotonic(), first.until_us
            await self.answer(lambda: self.brief.release("again"))
        except (HoldEnded, HoldExpired, KeyReused, UnknownHold):  # this is a later life, or somebody's who was frozen
            pass
        await self.delivers()
        while True:
            try:
                hold = await self.answer(lambda: self.brief.reserve({"bread": 2}, key="again", ttl=LONG_S))
            except (HoldEnded, HoldExpired, KeyReused):
                await self.clock.sleep(KEEP_S / 2)
            else:
                break
        # By neither clock, of which one may have been put forward, and the other back.
        if self.clock.monotonic() - began < KEEP_S and hold.until_us - first_us < KEEP_S * 1_000_000:
            self.process.note("forgotten early", "again")
        self.process.note("forgotten", "again")
        await self.delivers()

    async def delivers(self) -> None:
        for key in DELIVERED:
            await self.answered(key, lambda key=key: self.deliver(key))  # type: ignore[misc]

    async def deliver(self, key: str) -> Any:
        return await self.escrow.restock("rice", DELIVERED[key], key=key)

    async def asks(
        self,
        key: str,
        items: dict[str, int],
        then: Callable[[str], Awaitable[Hold]] | None = None,
        *,
        ttl: float | None = None,
    ) -> None:
        await self.answered(key, lambda: self.escrow.reserve(items, key=key, ttl=ttl))
        if then is not None:
            await self.answered(key, lambda: then(key))

    async def answered(self, key: str, ask: Callable[[], Awaitable[Any]]) -> None:
        """What it was told: how a hold stands, or why it is refused."""
        try:
            answer = await self.answer(ask)
        except FaultproofError as refusal:
            self.process.note("refused", key, type(refusal).__name__)
        else:
            self.process.note(
                "told", key, *((answer.state, answer.until_us) if isinstance(answer, Hold) else ("restocked", 0))
            )

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except TryAgain:
                await self.clock.sleep(0.05)
            except OutcomeUnknown:
                await self.clock.sleep(0.05)


class _NumbersDeliveries(Customer):
    """A key for each request, and not the delivery's own."""

    async def deliver(self, key: str) -> Any:
        return await self.escrow.restock("rice", DELIVERED[key], key=f"{key} at {self.clock.monotonic()}")


class _MakesWhatIsMissing(Customer):
    """Whoever asks for something has it put on the shelf."""

    async def asks(self, key: str, items: dict[str, int], *rest: Any, **more: Any) -> None:
        for item, quantity in items.items():
            await self.answer(partial(self._put, item, quantity, f"{item} for {key}"))
        await super().asks(key, items, *rest, **more)

    async def _put(self, item: str, quantity: int, key: str) -> Any:
        return await self.escrow.restock(item, quantity, key=key)


class _TakesTheRest(Customer):
    """Who cannot have all has what there is."""

    async def asks(self, key: str, items: dict[str, int], *rest: Any, **more: Any) -> None:
        if key == "too much":
            items = {item: (await self.escrow.item(item)).available or 1 for item in items}
        await super().asks(key, items, *rest, **more)


_CUSTOMERS: dict[str, type[Customer]] = {
    "numbers deliveries": _NumbersDeliveries,
    "makes what is missing": _MakesWhatIsMissing,
    "takes the rest": _TakesTheRest,
}


class _Watched(Expiry):
    """Tells what it has forgotten, and if a transaction was about more than it may be."""

    process: Process
    gone: list[str]

    async def step(self) -> float:
        self.gone = list[str]()
        rest_s = await super().step()
        for key in self.gone:
            self.process.note("gone", key)
        return rest_s

    def _forget(self) -> Script[int]:
        keys = yield from sql.over(self._escrow, self._keep_us, self._batch)
        forgotten = yield from super()._forget()
        self.gone = keys if forgotten >= len(keys) else []  # or a clock was put back meanwhile
        if forgotten > BATCH:
            self.process.note("forgotten at once", forgotten)
        return forgotten


async def _loops(process: Process, plant: str | None) -> None:
    """Few lines in a transaction, so that nothing that is none of theirs may stand before what is."""
    await process.env.clock.sleep(OPENS_S)
    keep_s = (0.01 if plant == "forgets at once" else 1_000_000.0, KEEP_S)
    loops = [
        escrow.expiry(every=0.5, keep=keep, batch=BATCH) for escrow, keep in zip(_escrows(process), keep_s, strict=True)
    ]
    for loop in loops:
        loop.__class__ = _Watched
        loop.process = process  # type: ignore[attr-defined]
    await Worker(process.env, *loops).run()


def processes_of(names: tuple[str, ...]) -> Callable[[str | None], dict[str, Main]]:
    def processes(plant: str | None) -> dict[str, Main]:
        kind = _CUSTOMERS.get(plant or "", Customer)

        async def customer(process: Process) -> None:
            await kind(process).run()

        return {**dict.fromkeys(names, customer), "loops": lambda process: _loops(process, plant)}

    return processes

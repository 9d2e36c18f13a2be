"""Four more planted bugs, in the fulfilment of orders. Each says what it leaves out; all else is the correct shop's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from faultproof.errors import Failed, HoldEnded, UnknownHold
from faultproof.patterns.saga import Saga, Step, StepContext
from faultproof.ports.database import Database
from faultproof.shop import sql
from faultproof.shop.board import Flag, unseen
from faultproof.shop.delays import HOLD_S, Delays
from faultproof.shop.dependencies import NOWHERE, Provider
from faultproof.shop.fulfilment import RETRY, STOCK, Fulfilment, Order
from faultproof.shop.mistakes import Breakage

# The same on both engines: a copy has no constraint.
_WITHOUT_CHECKS = (
    "CREATE TABLE unchecked AS SELECT * FROM faultproof_escrow_item",
    "DROP TABLE faultproof_escrow_item",
    "ALTER TABLE unchecked RENAME TO faultproof_escrow_item",
    "CREATE UNIQUE INDEX faultproof_escrow_item_unchecked ON faultproof_escrow_item (escrow, item)",
)


async def prepare(database: Database, planted: Breakage | None) -> None:
    """The tables as those have them who make this mistake."""
    if planted == "undo-after":
        await database.install(sql.PLANTED)
    elif planted in ("no-lock", "confirm-after-expiry"):
        async with database.transaction() as tx:
            for statement in _WITHOUT_CHECKS:
                await tx.fetch(statement)


class UndoAfter(Fulfilment):
    """Writes down what is to be undone when it has been done; and after a crash undoes what is written down.

    A process that is killed while it waits for the answer has written nothing down, and its charge stays.
    """

    def __init__(self, database: Database, provider: Provider, flag: Flag, delays: Delays) -> None:
        super().__init__(database, provider, flag, delays)
        self._database = database
        self._begun: set[str] = set()

    async def _charge(self, context: StepContext[Order]) -> str:
        return await self._noted(context, super()._charge)

    async def _refund(self, context: StepContext[Order], reference: str | None) -> None:
        if await self._is_noted(context):
            await super()._refund(context, reference)

    async def _ship(self, context: StepContext[Order]) -> str:
        return await self._noted(context, super()._ship)

    async def _cancel(self, context: StepContext[Order], reference: str | None) -> None:
        if await self._is_noted(context):
            await super()._cancel(context, reference)

    async def _noted(self, context: StepContext[Order], action: Callable[[StepContext[Order]], Awaitable[str]]) -> str:
        if context.attempt > 1 and context.key not in self._begun:
            raise Failed("a process ended in the midst of this order: what is written down is undone")
        self._begun.add(context.key)
        reference = await action(context)
        async with self._database.transaction() as tx:
            await tx.run(sql.write_down(context.key))
        return reference

    async def _is_noted(self, context: StepContext[Order]) -> bool:
        return bool(await self._database.read(sql.written_down(context.undone_key or "")))


class KeyInMemory(Fulfilment):
    """Makes a key for each call and keeps it in memory: whoever goes on after a crash calls with another one."""

    def __init__(self, database: Database, provider: Provider, flag: Flag, delays: Delays) -> None:
        super().__init__(database, provider, flag, delays)
        self._ids = database.env.ids
        self._keys: dict[str, str] = {}

    def _key(self, key: str) -> str:
        return self._keys.setdefault(key, self._ids.new())


class NoLock(Fulfilment):
    """Looks whether there is enough, and takes it in another transaction, from a table without constraints."""

    def __init__(self, database: Database, provider: Provider, flag: Flag, delays: Delays) -> None:
        self._database = database
        super().__init__(database, provider, flag, delays)

    def _reserving(self) -> Step[Order, None]:
        return Step.remote(self._look_and_take, undo=self._give_back, name="reserve", retry=RETRY, undo_retry=RETRY)

    async def _look_and_take(self, context: StepContext[Order]) -> None:
        lines = context.input.lines
        for line in lines:
            if (await self.stock.item(line.item)).available < line.quantity:
                raise Failed(f"there are not enough {line.item!r}")
        await self._delays.before_taking()
        async with self._database.transaction() as tx:
            for number, line in enumerate(lines):
                await tx.run(sql.take_unchecked(STOCK, line.item, line.quantity))
                await tx.run(
                    sql.add_hold_line(STOCK, context.id, number, line.item, line.quantity, int(HOLD_S * 1_000_000))
                )

    async def _give_back(self, context: StepContext[Order], nothing: None) -> None:
        with suppress(HoldEnded, UnknownHold):
            await self.stock.release(context.id)


class ConfirmAfterExpiry(Fulfilment):
    """Ships what it has reserved some time ago, and books it as sold without a look at the hold or at the clock."""

    def __init__(self, database: Database, provider: Provider, flag: Flag, delays: Delays) -> None:
        super().__init__(database, provider, flag, delays)
        self._database = database

    async def _keep(self, context: StepContext[Order]) -> None:
        """Left out."""

    async def _confirm(self, context: StepContext[Order]) -> None:
        async with self._database.transaction() as tx:
            await tx.run(sql.confirm_unchecked(STOCK, context.id))
            for line in context.input.lines:
                await tx.run(sql.sell_unchecked(STOCK, line.item, line.quantity))


def fulfilling(
    database: Database, provider: Provider, flag: Flag, delays: Delays, planted: Breakage | None
) -> Fulfilment:
    """The fulfilment, with the mistake if it is one of its own."""
    if planted == "undo-after":
        return UndoAfter(database, provider, flag, delays)
    if planted == "no-idempotency-key":
        return KeyInMemory(database, provider, flag, delays)
    if planted == "no-lock":
        return NoLock(database, provider, flag, delays)
    if planted == "confirm-after-expiry":
        return ConfirmAfterExpiry(database, provider, flag, delays)
    return Fulfilment(database, provider, flag, delays)


def started_here(database: Database, planted: Breakage | None = None) -> Saga[Order]:
    """The saga, for a process that starts it and leaves its steps to others."""
    return fulfilling(database, Provider(NOWHERE), unseen(), Delays(), planted).saga

"""The outbox's planted bugs: what a consumer looks like that somebody simplified."""

from __future__ import annotations

from collections.abc import Sequence

from faultproof.patterns.outbox import sql as tables
from faultproof.patterns.outbox.consumer import Consumer
from faultproof.patterns.outbox.handling import Handed
from faultproof.patterns.outbox.inbox import Inbox, Work
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.poison import record_of
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.log import Record
from faultproof.ports.script import Script


class _AcknowledgesEarly(Inbox):
    async def _settle_together(self, records: Sequence[Record], work: Work) -> list[Record]:
        await self._membership.transact(lambda: work.settled(records))
        async with self._database.transaction() as tx:
            for record in records:
                await work.handle(record, tx)
        return list(records)


class _WithoutInbox(Inbox):
    async def _settle_together(self, records: Sequence[Record], work: Work) -> list[Record]:
        async with self._database.transaction() as tx:
            await tx.run(self._membership.guard())
            for record in records:
                await work.handle(record, tx)
        await self._membership.transact(lambda: work.settled(records))
        return list(records)


class _Overtakes(Inbox):
    """New events do not look whether an earlier one of their key is parked."""

    async def deliver(self, records: list[Record], blocked: frozenset[str]) -> None:
        await super().deliver(records, frozenset())


class _SettlesApart(Inbox):
    """Parked events that are delivered together are settled after the commit of their effects."""

    async def _settle_together(self, records: Sequence[Record], work: Work) -> list[Record]:
        if work.settled != self._parking.settled_together:
            return await super()._settle_together(records, work)
        done = await super()._settle_together(records, work._replace(settled=lambda done: _nothing()))
        await self._membership.transact(lambda: work.settled(done))
        return done


class _SettlesAllItTook(Inbox):
    """Parked events that are delivered together are settled together, also those that one before them kept back."""

    async def together(self, taken: Sequence[Parked]) -> Handed:
        handed = await super().together(taken)
        left = taken[len(handed.done) :]
        await self._membership.transact(lambda: self._parking.settled_together(left))
        return Handed([record_of(parked) for parked in taken], None)


class _WithoutFence(Membership):
    """Neither the claim's token nor the cursor's old value is checked; each alone would do."""

    def guard(self) -> Script[None]:
        return _nothing()

    def past(self, records: Sequence[Record], parking: Script[None] | None) -> Script[None]:
        partitions = sorted({record.partition for record in records})
        for cursor in (yield from tables.standing(self._log, self._group, partitions)):
            last = max(record.offset for record in records if record.partition == cursor.partition)
            move = tables.Progress(cursor.partition, cursor.offset, max(cursor.offset, last + 1))
            yield from tables.advance(self._log, self._group, [move])


def _nothing() -> Script[None]:
    yield from ()


_BROKEN: dict[str, type[Inbox]] = {
    "early acknowledgement": _AcknowledgesEarly,
    "missing inbox row": _WithoutInbox,
    "overtaking": _Overtakes,
    "settled apart": _SettlesApart,
    "settled as taken": _SettlesAllItTook,
}


def plant_in(consumer: Consumer, plant: str | None) -> None:
    """Break the consumer as that planted bug does; nothing, where it is not one of the consumer's."""
    if plant == "dropped fence":
        consumer._membership.__class__ = _WithoutFence
    elif plant in _BROKEN:
        consumer._delivery.__class__ = _BROKEN[plant]

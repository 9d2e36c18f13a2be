"""Delivery without an inbox: events are handed over outside any transaction, and their progress is committed after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby

from faultproof.patterns.outbox.attempts import Attempts
from faultproof.patterns.outbox.handling import Handed, Handling, Poisoned
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.poison import Parking, record_of
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.log import Record


class Relay:
    """Hands events to a sink, while the leases are renewed beside it."""

    def __init__(self, *, membership: Membership, handling: Handling, parking: Parking, attempts: Attempts) -> None:
        self._membership = membership
        self._handling = handling
        self._parking = parking
        self._attempts = attempts

    async def deliver(self, records: list[Record], blocked: frozenset[str]) -> None:
        """Partitions side by side, each in order up to its first failure; then one transaction for what came of it."""
        async with self._membership.leases.kept():
            partitions = [list(group) for _, group in groupby(records, key=lambda record: record.partition)]
            handed = await asyncio.gather(*(self._hand_over(partition, blocked) for partition in partitions))
            # What has been handed over is settled whatever stopped the others, so that it need not be repeated.
            await self._attempts.park(
                [record for partition in handed for record in partition.done],
                [partition.stopped for partition in handed if isinstance(partition.stopped, Poisoned)],
                blocked,
            )
        for partition in handed:
            if partition.stopped is not None and not isinstance(partition.stopped, Poisoned):
                raise partition.stopped

    async def again(self, parked: Parked, attempt: int) -> None:
        """One more attempt at a parked event; then that it is settled."""
        async with self._membership.leases.kept():
            self._membership.held()  # it may have been frozen behind the commit that counts this attempt
            await self._handling.handle(record_of(parked), None, epoch=self._membership.epoch, attempt=attempt)
            await self._membership.transact(lambda: self._parking.settled(parked))

    async def together(self, taken: Sequence[Parked]) -> Handed:
        """First attempts at parked events, one after another up to the first failure; then those before it are settled."""
        async with self._membership.leases.kept():
            handed = await self._hand_over([record_of(parked) for parked in taken], frozenset())
            if handed.done:
                await self._membership.transact(lambda: self._parking.settled_together(handed.done))
        return handed

    async def _hand_over(self, records: Sequence[Record], blocked: frozenset[str]) -> Handed:
        done: list[Record] = []
        try:
            for record in records:
                if record.key not in blocked:
                    self._membership.held()
                    await self._handling.handle(record, None, epoch=self._membership.epoch)
                done.append(record)
        except Exception as error:
            return Handed(done, error)
        return Handed(done, None)

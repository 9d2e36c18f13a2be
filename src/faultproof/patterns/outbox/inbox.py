"""Delivery with an inbox: the handler's writes and the group's progress commit together."""

from __future__ import annotations

from collections.abc import Sequence

from faultproof import bounds
from faultproof.errors import Failed, LeaseLost, Misuse
from faultproof.patterns.outbox.attempts import Attempts
from faultproof.patterns.outbox.handling import Handling, Poisoned
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.poison import Parking, record_of
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.log import Record


class Inbox:
    """Handles events in transactions of the group's own."""

    def __init__(
        self,
        database: Database,
        *,
        membership: Membership,
        handling: Handling,
        parking: Parking,
        attempts: Attempts,
        options: ConsumerOptions,
    ) -> None:
        self._database = database
        self._membership = membership
        self._handling = handling
        self._parking = parking
        self._attempts = attempts
        self._options = options

    async def deliver(self, records: list[Record], blocked: frozenset[str]) -> None:
        """As many records as can be, in one transaction if all goes well; the first that fails is parked."""
        failed: Poisoned | None = None
        while records:
            try:
                await self._settle(records, blocked)
                break
            except Poisoned as poisoned:  # what stands before it was rolled back with it, and is not to blame
                await self._membership.regain(poisoned.record.partition)
                failed, records = poisoned, records[: records.index(poisoned.record)]
        if failed is not None:
            await self._attempts.park([], [failed], frozenset())

    async def again(self, parked: Parked, attempt: int) -> None:
        """One more attempt at a parked event: its effects, and that it is settled."""
        member, record = self._membership, record_of(parked)
        try:
            async with self._database.transaction(timeout=self._seconds(1)) as tx:
                await tx.run(member.guard())
                await self._handling.handle(record, tx, epoch=member.epoch, attempt=attempt)
                await tx.run(self._parking.settled(parked))
                committed = await member.leases.extend(tx)
        except LeaseLost:
            raise
        except (Failed, Misuse) as error:  # as in `_settle`: what the handler left behind fails at the end
            raise Poisoned(record) from error
        committed()

    def _seconds(self, events: int) -> float:
        """How long a transaction may be open: what each handler may take, and as much as one for the rest."""
        return min(bounds.SECONDS_MAX, self._options.timeout * (events + 1))

    async def _settle(self, records: Sequence[Record], blocked: frozenset[str]) -> None:
        """As few transactions as can be: the records' effects, and the cursors past them."""
        try:
            await self._settle_together(records, blocked)
        except LeaseLost:
            raise
        except (Failed, Misuse) as error:
            # The transaction could not be ended, though no handler had failed: one of them has ended it by itself, or
            # left behind what the database refuses at the commit. One by one they show which.
            if len(records) == 1:
                raise Poisoned(records[0]) from error
            for record in records:
                await self._settle([record], blocked)

    async def _settle_together(self, records: Sequence[Record], blocked: frozenset[str]) -> None:
        member, clock = self._membership, self._database.env.clock
        async with self._database.transaction(timeout=self._seconds(len(records))) as tx:
            await tx.run(member.guard())
            enough = clock.monotonic() + self._options.ttl / 3
            for index, record in enumerate(records):
                if index and clock.monotonic() > enough:  # others wait for the write lock, and the lease runs
                    records = records[:index]
                    break
                if record.key not in blocked:
                    await self._handling.handle(record, tx, epoch=member.epoch)
            await tx.run(member.past(records, self._parking.behind(records, blocked)))
            committed = await member.leases.extend(tx)
        committed()

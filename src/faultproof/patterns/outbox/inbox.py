"""Delivery with an inbox: the handler's writes and the group's progress commit together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from faultproof import bounds
from faultproof.errors import Failed, LeaseLost, Misuse, OutcomeUnknown, Repair, TryAgain
from faultproof.patterns.outbox.attempts import Attempts
from faultproof.patterns.outbox.handling import Handed, Handling, Poisoned, Stopped
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.poison import Parking, record_of
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database, Transaction
from faultproof.ports.log import Record
from faultproof.ports.script import Script


class Work(NamedTuple):
    """What is done with records, new or parked, in the transaction that carries their effects."""

    handle: Callable[[Record, Transaction], Awaitable[None]]
    settled: Callable[[Sequence[Record]], Script[None]]
    """That they are done with."""


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

        async def handle(record: Record, tx: Transaction) -> None:
            if record.key not in blocked:
                await self._handling.handle(record, tx, epoch=self._membership.epoch)

        def settled(done: Sequence[Record]) -> Script[None]:
            return self._membership.past(done, self._parking.behind(done, blocked))

        handed = await self._settle(records, Work(handle, settled))
        if isinstance(handed.stopped, Poisoned):
            await self._attempts.park([], [handed.stopped], frozenset())

    async def again(self, parked: Parked, attempt: int) -> None:
        """One more attempt at a parked event: its effects, and that it is settled."""

        async def handle(record: Record, tx: Transaction) -> None:
            await self._handling.handle(record, tx, epoch=self._membership.epoch, attempt=attempt)

        handed = await self._settle([record_of(parked)], Work(handle, lambda done: self._parking.settled(parked)))
        if handed.stopped is not None:
            raise handed.stopped

    async def together(self, taken: Sequence[Parked]) -> Handed:
        """First attempts at parked events, in one transaction if all goes well; else those before the first that fails."""

        async def handle(record: Record, tx: Transaction) -> None:
            try:
                await self._handling.handle(record, tx, epoch=self._membership.epoch)
            except (TryAgain, OutcomeUnknown, Repair) as error:  # those before it need not wait for what it waits for
                raise Stopped(record) from error

        records = [record_of(parked) for parked in taken]
        return await self._settle(records, Work(handle, self._parking.settled_together))

    def _seconds(self, events: int) -> float:
        """How long a transaction may be open: what each handler may take, and as much as one for the rest."""
        return min(bounds.SECONDS_MAX, self._options.timeout * (events + 1))

    async def _settle(self, records: Sequence[Record], work: Work) -> Handed:
        """As few transactions as can be; all that stands before the first failure is settled when this returns."""
        stopped: Stopped | None = None
        try:
            return Handed(await self._settle_together(records, work), None)
        except LeaseLost:
            raise
        except Stopped as error:  # what stands before it was rolled back with it, and is not to blame
            await self._membership.regain(error.record.partition)
            stopped, records, together = error, records[: records.index(error.record)], len(records)
        except (Failed, Misuse) as error:
            # The transaction could not be ended, though no handler had failed: one of them has ended it by itself, or
            # left behind what the database refuses at the commit. One by one they show which.
            if len(records) == 1:
                stopped, records = Poisoned(records[0]), []
                stopped.__cause__ = error
            together = 1
        done: list[Record] = []
        while len(done) < len(records):
            handed = await self._settle(records[len(done) : len(done) + together], work)
            done += handed.done
            if handed.stopped is not None:
                return Handed(done, handed.stopped)
        return Handed(done, stopped)

    async def _settle_together(self, records: Sequence[Record], work: Work) -> list[Record]:
        """One transaction, for as many of them as its time allows."""
        member, clock = self._membership, self._database.env.clock
        done: list[Record] = []
        async with self._database.transaction(timeout=self._seconds(len(records))) as tx:
            await tx.run(member.guard())
            enough = clock.monotonic() + self._options.ttl / 3
            for record in records:
                if done and clock.monotonic() > enough:  # others wait for the write lock, and the lease runs
                    break
                await work.handle(record, tx)
                done.append(record)
            await tx.run(work.settled(done))
            committed = await member.leases.extend(tx)
        committed()
        return done

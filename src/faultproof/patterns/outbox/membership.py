"""A consumer's standing in its group: which partitions are its own, and the transactions that only their holder commits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from faultproof.errors import Failed, LeaseLost
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.poison import Parking
from faultproof.patterns.outbox.sql import Progress
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Runnable, Script, begun
from faultproof.primitives.install import check
from faultproof.primitives.leases import Leases

T = TypeVar("T")


def group_kind(log: str, group: str) -> str:
    """The kind of a group's leases: one per partition."""
    return f"{log}:group:{group}"


class Membership:
    """One member of a group. Everything it commits begins with the check that its leases are still its own."""

    def __init__(self, database: Database, log: str, group: str, *, owner: str, ttl: float) -> None:
        self.epoch = ""
        """Of the log; empty before the first `begin`."""
        self.cursors: dict[int, int] = {}  # bounded: by the partitions
        """Where the group stood when it was last looked, moved by what was settled since. Nearly always right, and no more:
        a transaction may have failed, and partitions have been others' meanwhile."""
        self.leases = Leases(database, group_kind(log, group), owner=owner, ttl=ttl, share=True)
        self._database = database
        self._log = log
        self._group = group

    async def begin(self, *, key_waits: bool) -> None:
        """Be a member, for the first time or again. Raises `Failed` if the group was forgotten since."""
        self.leases.doubt()
        self.epoch = await self._database.transact(lambda: self._join(key_waits))

    async def partitions(self) -> list[int]:
        """Those that are this member's, after keeping its leases. Raises `Failed` if the group has been forgotten."""
        claims = await self.leases.tend()
        if not claims and self.leases.gone:
            raise self._forgotten()
        return [int(claim.id) for claim in claims]

    def held(self) -> set[int]:
        """Those that are still this member's. Raises `LeaseLost` if any has been lost under way."""
        return {int(claim.id) for claim in self.leases.held()}

    async def regain(self, partition: int) -> None:
        """After work that may have outlived its lease, and was rolled back: is the partition still this member's?"""
        await self.leases.tend()
        if partition not in self.held():
            raise LeaseLost(f"partition {partition} went to another process while this one was at work")

    # -- transactions -----------------------------------------------------------------------------------------------

    def guard(self) -> Script[None]:
        """The first step of every transaction: raises `LeaseLost` if another process has taken over."""
        return self._database.claims.guard(group_kind(self._log, self._group), self.leases.held())

    async def transact(self, work: Runnable[T]) -> T:
        """Commit a script, guarded."""
        held = self.leases.held()  # here and now, not on the writer's thread

        def guarded() -> Script[T]:
            yield from self._database.claims.guard(group_kind(self._log, self._group), held)
            return (yield from begun(work))

        return await self._database.transact(guarded if callable(work) else guarded())

    def past(self, records: Sequence[Record], parking: Script[None] | None) -> Script[None]:
        """Park what is to be parked, and move the cursors past all; refused if another process has moved them."""
        if parking is not None:
            yield from parking
        moves = []
        for partition, group in groupby(records, key=lambda record: record.partition):
            offsets = [record.offset for record in group]
            moves.append(Progress(partition, offsets[0], offsets[-1] + 1))
            self.cursors[partition] = offsets[-1] + 1
        if (yield from sql.advance(self._log, self._group, moves)) != len(moves):
            raise LeaseLost(f"another process has moved the cursor of {self._group!r}; this one's work is undone")

    # -- joining ----------------------------------------------------------------------------------------------------

    def _join(self, key_waits: bool) -> Script[str]:
        yield from check(*sql.schemas(self._database))
        # Held, or a trim that does not know of this group yet could pass what is read here.
        spans = yield from self._database.logs.hold(self._log)
        # A group that was forgotten would begin anew, and all that the log keeps be delivered again: not of itself. Whoever
        # forgets holds the log too: looked at before, the group could go between the look and the lock.
        if self.epoch and not (yield from sql.joined(self._log, self._group)):
            raise self._forgotten()
        starts = [Cursor(span.partition, span.first) for span in spans]
        yield from Parking(self._log, self._group).choose(key_waits)
        yield from sql.join_group(self._log, self._group, int(key_waits), starts)
        kind = group_kind(self._log, self._group)
        yield from self._database.claims.add(kind, [str(span.partition) for span in spans])
        return (yield from self._database.logs.epoch(self._log))

    def _forgotten(self) -> Failed:
        return Failed(
            f"the group {self._group!r} was forgotten while this consumer of it ran: stop it, or start a new one, which "
            "begins at the oldest event kept"
        )

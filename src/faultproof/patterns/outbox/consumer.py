"""Consumers: a named group's way through the log, in order per key, with retries and dead letters.

One cycle: keep the leases, look (one read for all partitions), retry what is due, deliver what is new. The group's
cursor in a partition moves past an event only in the transaction that settles what becomes of it: its effects commit
with it (`inbox.py`), or it has been handed over before (`relay.py`), or it is parked (`attempts.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from faultproof.errors import EventsTrimmed, LeaseLost
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.attempts import Attempts
from faultproof.patterns.outbox.care import CRASHES_MAX, Care
from faultproof.patterns.outbox.events import EventTypes
from faultproof.patterns.outbox.handling import Handler, Handling, Sink
from faultproof.patterns.outbox.inbox import Inbox
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.poison import Parking, never_attempted
from faultproof.patterns.outbox.relay import Relay
from faultproof.patterns.outbox.sequencer import IDLE_S, log_topic
from faultproof.patterns.outbox.sql import Parked, Standing
from faultproof.ports.database import Database, News
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Script, later


class Work(NamedTuple):
    """What one look found."""

    records: list[Record]
    blocked: frozenset[str]
    """Keys with a parked event that the new ones must not overtake."""
    due: list[Parked]
    next_due_in_us: int | None


class Consumer:
    """A `Loop` that delivers a log to one group. Run it in any number of processes: they share the partitions.

    Promise: each event reaches the handler at least once; of one key one event at a time, in the order of the log, after
    any crash too. With an inbox (`handler`), what the handler writes through its transaction commits together with the
    group's progress, so that the *effect* of each event on this database is there once; what it does elsewhere may be
    repeated. Without (`sink`), an event may be handed over again after a crash.
    Proof: `faultproof.patterns.outbox.proof:OUTBOX`.
    """

    def __init__(
        self,
        database: Database,
        log: str,
        group: str,
        *,
        types: EventTypes,
        owner: str,
        options: ConsumerOptions,
        handler: Handler | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.name = f"{log}:{group}"
        self._database = database
        self._log = log
        self._group = group
        self._options = options
        self._key_waits = options.on_poison == "key waits"
        self._membership = member = Membership(database, log, group, owner=owner, ttl=options.ttl)
        self._leases = member.leases
        self._care = Care(member.leases, options)
        self._attempts = attempts = Attempts(database, log, group, membership=member, options=options)
        handling = Handling(types, timeout=options.timeout, handler=handler, sink=sink)
        parking = Parking(log, group)
        self._delivery: Inbox | Relay
        if handling.is_relay:
            self._delivery = Relay(membership=member, handling=handling, parking=parking, attempts=attempts)
        else:
            self._delivery = Inbox(
                database,
                membership=member,
                handling=handling,
                parking=parking,
                attempts=attempts,
                options=options,
            )
        self._turn = 0

    async def open(self) -> News:
        await self._membership.begin(key_waits=self._key_waits)
        return self._database.changed(log_topic(self._log))

    async def step(self) -> float:
        try:
            partitions = await self._membership.partitions()
            if not partitions:
                return self._leases.rest_s()
            work = await self._database.read(self._look(partitions), snapshot=False)
            await self._attempt(work.due)
            records = [record for record in work.records if record.partition in self._membership.held()]
            if records := self._fairly(await self._care.choose(records)):
                await self._deliver(work._replace(records=records))
        except LeaseLost:  # another process is at it; what this one had under way is rolled back
            self._leases.doubt()
            return 0.01
        if work.records or work.due:
            return 0.0
        wait = IDLE_S if work.next_due_in_us is None else work.next_due_in_us / 1_000_000
        return max(0.001, min(IDLE_S, wait, self._leases.rest_s()))

    async def close(self) -> None:
        await self._leases.close()

    def _look(self, partitions: list[int]) -> Script[Work]:
        log, group = self._log, self._group
        standing, records = yield from self._next(partitions)
        due, blocked = list[Parked](), list[str]()
        parks, next_due = (standing[0].parks, standing[0].next_due_in_us) if standing else (0, None)
        if next_due is not None and next_due <= 0:
            due = yield from sql.due(log, group, partitions, self._options.batch)
        keys = sorted({record.key for record in records if record.key is not None}) if parks else []
        if keys:
            blocked = yield from sql.blocked_keys(log, group, partitions, keys, int(self._key_waits))
        return Work(records, frozenset(blocked), due, next_due)

    async def _attempt(self, due: Sequence[Parked]) -> None:
        if first := [parked for parked in self._held(due) if never_attempted(parked)]:
            await self._attempts.together(first, self._delivery.together)
        for parked in due:
            if not never_attempted(parked) and self._held([parked]):  # retries may take a while
                await self._attempts.retry(parked, self._delivery.again)

    def _held(self, parked: Sequence[Parked]) -> list[Parked]:
        partitions = self._membership.held()
        return [one for one in parked if one.partition in partitions]

    def _next(self, partitions: list[int]) -> Script[tuple[list[Standing], list[Record]]]:
        """How the group stands, and what comes next for it: in one round trip where it stands as remembered."""
        logs, cursors, batch = self._database.logs, self._membership.cursors, self._options.batch
        standing, ahead = list[Standing](), list[Record]()
        remembered = [Cursor(partition, cursors[partition]) for partition in partitions if partition in cursors]
        limit = batch // len(partitions) if len(remembered) == len(partitions) else 0
        if limit:
            yield from later(sql.standing(self._log, self._group, partitions), standing.extend)
            with suppress(EventsTrimmed):  # others were at it meanwhile
                ahead = yield from logs.read(self._log, remembered, limit=limit)
        else:
            standing = yield from sql.standing(self._log, self._group, partitions)
        stands = self._membership.cursors = {each.partition: each.offset for each in standing}
        waiting = [Cursor(each.partition, each.offset) for each in standing if each.offset < each.end]
        if not waiting:
            return standing, []
        is_all = all(each.end - each.offset <= limit for each in standing) or limit == batch // len(waiting)
        if limit and is_all and stands == dict(remembered):
            return standing, ahead
        return standing, (yield from logs.read(self._log, waiting, limit=max(1, batch // len(waiting))))

    def _fairly(self, records: list[Record]) -> list[Record]:
        """At most `batch`, and each time another partition's first: one that has much, or is slow, starves no other."""
        ahead = [record for record in records if record.partition >= self._turn]
        turned = ahead + records[: len(records) - len(ahead)]
        if turned:
            self._turn = turned[0].partition + 1
        return turned[: self._options.batch]

    async def _deliver(self, work: Work) -> None:
        suspect = self._care.suspect(work.records)
        if suspect is not None:
            died = f"more than {CRASHES_MAX} processes died when it was next"
            await self._attempts.set_aside(suspect, error=died)
        else:
            await self._delivery.deliver(work.records, work.blocked)

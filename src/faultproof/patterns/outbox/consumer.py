"""Consumers: a named group's way through the log, in order per key, with retries and dead letters.

One cycle: keep the leases, look (one read for all partitions), retry what is due, deliver what is new. The group's
cursor in a partition moves past an event only in the transaction that settles what becomes of it: its effects commit
with it (a consumer with inbox), or it has been handed over before (a relay), or it is parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from faultproof import bounds
from faultproof.errors import Failed, InvalidInput, LeaseLost, Misuse, TryAgain
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.events import EventTypes
from faultproof.patterns.outbox.handling import Handler, Handling, Poisoned, Sink
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.poison import Parking, Verdict, error_text, record_of, verdict
from faultproof.patterns.outbox.sequencer import IDLE_S, log_topic
from faultproof.patterns.outbox.sql import Parked, Progress
from faultproof.ports.database import Database, News
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Script
from faultproof.primitives.leases import Leases
from faultproof.signals import DEAD_LETTER, RETRY

T = TypeVar("T")

CRASHES_MAX = 3
"""After so many processes in a row died holding a partition, its next event is set aside, where each attempt is written
down before it is made: an event that kills its process ends as a dead letter too."""


class Work(NamedTuple):
    """What one look found."""

    records: list[Record]
    blocked: frozenset[str]
    """Keys with a parked event that the new ones must not overtake."""
    due: list[Parked]
    next_due_in_us: int | None


class Handed(NamedTuple):
    """How far a relay came in one partition, and what stopped it there."""

    done: list[Record]
    stopped: Exception | None


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
        self._handling = Handling(types, timeout=options.timeout, handler=handler, sink=sink)
        self._epoch = ""
        self._kind = group_kind(log, group)
        self._parking = Parking(log, group)
        self._leases = Leases(database, self._kind, owner=owner, ttl=options.ttl, share=True)
        self._survived: dict[int, int] = {}  # bounded: by the partitions
        self._turn = 0

    async def open(self) -> News:
        self._leases.doubt()
        self._epoch = await self._database.transact(self._join())
        return self._database.changed(log_topic(self._log))

    async def step(self) -> float:
        try:
            claims = await self._leases.tend()
            if not claims:
                if self._leases.gone:
                    raise self._forgotten()
                return self._leases.rest_s()
            work = await self._database.read(self._look([int(claim.id) for claim in claims]))
            for parked in work.due:
                if parked.partition in self._held():  # retries may take a while
                    await self._retry(parked)
            records = [record for record in work.records if record.partition in self._held()]
            if records := self._fairly(await self._with_care(records)):
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

    # -- looking ----------------------------------------------------------------------------------------------------

    def _join(self) -> Script[str]:
        # A group that was forgotten would begin anew, and all that the log keeps be delivered again: not of itself.
        if self._epoch and not (yield from sql.joined(self._log, self._group)):
            raise self._forgotten()
        spans = yield from self._database.logs.spans(self._log)
        starts = [Cursor(span.partition, span.first) for span in spans]
        waits = self._options.on_poison == "key waits"
        yield from self._parking.choose(waits)
        yield from sql.join_group(self._log, self._group, int(waits), starts)
        yield from self._database.claims.add(self._kind, [str(span.partition) for span in spans])
        return (yield from self._database.logs.epoch(self._log))

    def _look(self, partitions: list[int]) -> Script[Work]:
        log, group = self._log, self._group
        cursors = yield from sql.cursors(log, group, partitions)
        limit = max(1, self._options.batch // len(partitions))
        records = yield from self._database.logs.read(log, cursors, limit=limit)
        next_due = yield from sql.next_due_in_us(log, group, partitions)
        due = []
        if next_due is not None and next_due <= 0:
            due = yield from sql.due(log, group, partitions, self._options.batch)
        keys = sorted({record.key for record in records if record.key is not None})
        waits = int(self._options.on_poison == "key waits")
        blocked = (yield from sql.blocked_keys(log, group, partitions, keys, waits)) if keys else []
        return Work(records, frozenset(blocked), due, next_due)

    def _fairly(self, records: list[Record]) -> list[Record]:
        """At most `batch`, and each time another partition's first: one that has much, or is slow, starves no other."""
        ahead = [record for record in records if record.partition >= self._turn]
        turned = ahead + records[: len(records) - len(ahead)]
        if turned:
            self._turn = turned[0].partition + 1
        return turned[: self._options.batch]

    # -- delivering -------------------------------------------------------------------------------------------------

    async def _deliver(self, work: Work) -> None:
        """Deliver as many records as can be; the first that fails is parked."""
        records = work.records
        suspect = self._suspect(records)
        if suspect is not None:
            aside = self._parking.aside([suspect], error=f"more than {CRASHES_MAX} processes died when it was next")
            await self._transact(self._past([suspect], aside))
            return
        if self._handling.is_relay:
            await self._relay(work)
            return
        failed: Poisoned | None = None
        while records:
            try:
                await self._settle(records, work.blocked)
                break
            except Poisoned as poisoned:  # what stands before it was rolled back with it, and is not to blame
                await self._regain(poisoned.record.partition)
                failed, records = poisoned, records[: records.index(poisoned.record)]
        if failed is not None:
            await self._park([], [failed], frozenset())

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
        clock = self._database.env.clock
        async with self._database.transaction(timeout=self._options.timeout * (len(records) + 1)) as tx:
            await tx.run(self._guard())
            enough = clock.monotonic() + self._options.ttl / 3
            for index, record in enumerate(records):
                if index and clock.monotonic() > enough:  # others wait for the write lock, and the lease runs
                    records = records[:index]
                    break
                if record.key not in blocked:
                    await self._handling.handle(record, tx, epoch=self._epoch)
            await tx.run(self._past(records, self._behind(records, blocked)))
            committed = await self._leases.extend(tx)
        committed()

    async def _relay(self, work: Work) -> None:
        """Partitions side by side, each in order up to its first failure; then one transaction for what came of it."""
        async with self._leases.kept():
            partitions = [list(group) for _, group in groupby(work.records, key=lambda record: record.partition)]
            handed = await asyncio.gather(*(self._hand_over(records, work.blocked) for records in partitions))
            # What has been handed over is settled whatever stopped the others, so that it need not be repeated.
            await self._park(
                [record for partition in handed for record in partition.done],
                [partition.stopped for partition in handed if isinstance(partition.stopped, Poisoned)],
                work.blocked,
            )
        for partition in handed:
            if partition.stopped is not None and not isinstance(partition.stopped, Poisoned):
                raise partition.stopped

    async def _hand_over(self, records: Sequence[Record], blocked: frozenset[str]) -> Handed:
        done: list[Record] = []
        try:
            for record in records:
                if record.key not in blocked:
                    self._leases.held()
                    await self._handling.handle(record, None, epoch=self._epoch)
                done.append(record)
        except Exception as error:
            return Handed(done, error)
        return Handed(done, None)

    async def _park(self, done: Sequence[Record], poisoned: Sequence[Poisoned], blocked: frozenset[str]) -> None:
        """One transaction: the cursors past what is done, and past what has failed and is parked."""
        decisions = [self._verdict(attempts=1) for _ in poisoned]

        def parking() -> Script[None]:
            yield from self._behind(done, blocked)
            for one, decision in zip(poisoned, decisions, strict=True):
                yield from self._parking.failed(one.record, decision, error_text(one.__cause__ or one))

        records = sorted([*done, *(one.record for one in poisoned)])
        if records:
            await self._transact(self._past(records, parking()))
        for decision in decisions:
            self._report(decision)

    async def _retry(self, parked: Parked) -> None:
        """Another attempt at a parked event. It is counted before it is made: a crash under way counts too."""
        attempts = parked.attempts + 1
        decision = self._verdict(attempts=attempts)
        # If nothing settles it, because this process dies, it is due again when the attempt would have timed out.
        self._database.env.signals.emit(RETRY, 1, log=self._log, group=self._group)
        again_us = max(decision.retry_in_us or 0, int(self._options.timeout * 1_000_000))
        if not await self._transact(self._parking.begin(parked, again_in_us=again_us)):
            return
        if attempts > self._options.attempts:  # the last attempt was cut off by a crash
            await self._transact(self._parking.failed_again(parked, decision, parked.error or "its process died"))
            self._report(decision)
            return
        record = record_of(parked)
        try:
            if self._handling.is_relay:
                async with self._leases.kept():
                    await self._handling.handle(record, None, epoch=self._epoch, attempt=attempts)
                    await self._transact(self._parking.settled(parked))
            else:
                async with self._database.transaction(timeout=self._options.timeout * 2) as tx:
                    await tx.run(self._guard())
                    await self._handling.handle(record, tx, epoch=self._epoch, attempt=attempts)
                    await tx.run(self._parking.settled(parked))
                    committed = await self._leases.extend(tx)
                committed()
        except Poisoned as poisoned:
            error = error_text(poisoned.__cause__ or poisoned)
            await self._regain(parked.partition)
            await self._transact(self._parking.failed_again(parked, decision, error))
            self._report(decision)
        except TryAgain as later:
            again_us = int(_when(later, otherwise=self._options.backoff) * 1_000_000)
            await self._transact(self._parking.not_counted(parked, again_in_us=again_us))

    # -- the transactions' frame ------------------------------------------------------------------------------------

    def _guard(self) -> Script[None]:
        return self._database.claims.guard(self._kind, self._leases.held())

    async def _transact(self, script: Script[T]) -> T:
        guard = self._guard()  # here and now, not on the writer's thread

        def guarded() -> Script[T]:
            yield from guard
            return (yield from script)

        return await self._database.transact(guarded())

    def _past(self, records: Sequence[Record], parking: Script[None] | None) -> Script[None]:
        """Park what is to be parked, and move the cursors past all; refused if another process has moved them."""
        if parking is not None:
            yield from parking
        moves = []
        for partition, group in groupby(records, key=lambda record: record.partition):
            offsets = [record.offset for record in group]
            moves.append(Progress(partition, offsets[0], offsets[-1] + 1))
        if (yield from sql.advance(self._log, self._group, moves)) != len(moves):
            raise LeaseLost(f"another process has moved the cursor of {self._group!r}; this one's work is undone")

    def _forgotten(self) -> Failed:
        return Failed(
            f"the group {self._group!r} was forgotten while this consumer of it ran: stop it, or start a new one, which "
            "begins at the oldest event kept"
        )

    def _held(self) -> set[int]:
        return {int(claim.id) for claim in self._leases.held()}

    async def _regain(self, partition: int) -> None:
        """After work that may have outlived its lease, and was rolled back: is the partition still this process's?"""
        await self._leases.tend()
        if partition not in self._held():
            raise LeaseLost(f"partition {partition} went to another process while this one was at work")

    async def _with_care(self, records: list[Record]) -> list[Record]:
        """All records, or one: the next of a partition whose last holder died, until a batch of them went well.

        Alone in its transaction, an event takes nobody with it and is the next of its partition when its process dies,
        so that the deaths are counted against it and not against those before it.
        """
        claims = self._leases.held()
        trusted: list[str] = []
        alone: list[Record] = []
        for partition in (int(claim.id) for claim in claims if claim.attempts > 1):
            one = next((record for record in records if record.partition == partition), None)
            survived = self._survived.pop(partition, 0)
            if one is None or survived > self._options.batch // len(claims):
                trusted.append(str(partition))
            else:
                self._survived[partition] = survived + (not alone)
                alone = alone or [one]
        if trusted:
            await self._leases.absolve(trusted)
        return alone or records

    def _suspect(self, records: Sequence[Record]) -> Record | None:
        """The next event of a partition whose holders keep dying."""
        partitions = {int(claim.id) for claim in self._leases.held() if claim.attempts > CRASHES_MAX}
        return next((record for record in records if record.partition in partitions), None)

    def _behind(self, records: Sequence[Record], blocked: frozenset[str]) -> Script[None]:
        waiting = [record for record in records if record.key in blocked]
        if waiting:
            yield from self._parking.aside(waiting)

    def _verdict(self, *, attempts: int) -> Verdict:
        options = self._options
        return verdict(
            attempts=attempts,
            attempts_max=options.attempts,
            base_s=options.backoff,
            cap_s=options.backoff_max,
            random=self._database.env.rng.random(),
        )

    def _report(self, decision: Verdict) -> None:
        if decision.dead:
            self._database.env.signals.emit(DEAD_LETTER, 1, log=self._log, group=self._group)


def _when(later: TryAgain, *, otherwise: float) -> float:
    """Seconds that a handler asks for, who may say anything: `retry_after` is often what some server has sent."""
    if later.retry_after is None:
        return otherwise
    try:
        bounds.seconds("retry_after", later.retry_after, least=0)
    except InvalidInput:
        return otherwise
    return later.retry_after


def group_kind(log: str, group: str) -> str:
    """The kind of a group's leases: one per partition."""
    return f"{log}:group:{group}"

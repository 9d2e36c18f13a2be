"""What goes through the log while faults strike: two writers, a sequencer under its leases, and a reader that trims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from faultproof.errors import EventsTrimmed, InvalidInput, LeaseLost, OutcomeUnknown, SchemaMismatch, TryAgain
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Entry, Ready, Record, Span, intake_topic
from faultproof.ports.script import Script, Wake, sql
from faultproof.primitives.leases import Leases
from faultproof.prove.kernel.asking import answered, now
from faultproof.prove.kernel.log_places import TABLES, first_kept
from faultproof.prove.proof import Process

LOG = "events"
KIND = "sequencer"
LOG_TOPIC = "events.log"
TTL_S = 0.5
LOOK_S = 1.0
LOOKS_MAX = 80
"""After which everybody goes home: long after all is done."""
BATCH = 2
"""Small, so that there is more than one of everything."""
PARTITIONS = 2
PLACES = {"a": 0, "b": 1, "c": 1, "d": 0}
"""Item -> partition."""
OLDER_US = 200_000
"""What is younger is not trimmed."""
DELAY_US = 300_000


class Write(NamedTuple):
    """One transaction of a writer: an event for each of these items, in this order."""

    items: Sequence[str]
    delay_us: int = 0
    is_regretted: bool = False
    """It is rolled back in the end."""


WRITES = {
    "writer-1": (Write(("a",)), Write(("b", "a"))),
    "writer-2": (Write(("a",)), Write(("a",), is_regretted=True), Write(("c", "d"), delay_us=DELAY_US)),
}


@sql(
    "INSERT INTO written (event, item, version) VALUES (:event, :item, 0) ON CONFLICT (event) DO NOTHING RETURNING event"
)
def _insert(event: str, item: str) -> str | None: ...


# The row's lock comes before the append: so the intake has a key's events in the order of its versions.
@sql("UPDATE item SET version = version + 1 WHERE name = :name RETURNING version")
def _bump(name: str) -> int: ...


@sql("UPDATE written SET version = :version WHERE event = :event")
def _number(event: str, version: int) -> None: ...


@sql(
    """INSERT INTO moved ("partition", n, token)
       SELECT :partition, (SELECT count(*) FROM moved), :token"""
)
def _write_moved(partition: int, token: int) -> None: ...


@sql('SELECT "partition", next_offset FROM reading ORDER BY "partition" {lock}')
def cursors() -> list[Cursor]: ...


@sql('UPDATE reading SET next_offset = :next WHERE "partition" = :partition')
def advance(partition: int, next: int) -> None: ...


@sql(
    """INSERT INTO seen (n, "partition", "offset", event)
       SELECT (SELECT count(*) FROM seen), :partition, :offset, :event"""
)
def _write_seen(partition: int, offset: int, event: str) -> None: ...


class Waiting(NamedTuple):
    """An event that has not been moved."""

    log: str
    event_id: str
    due_us: int
    at_us: int


@sql("SELECT log, event_id, due_us, at_us FROM faultproof_intake")
def _intake() -> list[Waiting]: ...


@sql("INSERT INTO item (name, version) VALUES (:name, 0)")
def _add_item(name: str) -> None: ...


@sql('INSERT INTO reading ("partition", next_offset) VALUES (:partition, 0)')
def _add_cursor(partition: int) -> None: ...


async def prepare(database: Database) -> None:
    await database.install(database.claims.schema, database.logs.schema)
    async with database.transaction() as tx:
        for table in TABLES:
            await tx.execute(table)
        for item in PLACES:
            await tx.run(_add_item(item))
        for partition in range(PARTITIONS):
            await tx.run(_add_cursor(partition))
        await tx.run(database.logs.create(LOG, partitions=PARTITIONS, epoch="first"))
        await tx.run(database.claims.add(KIND, [str(partition) for partition in range(PARTITIONS)]))


class Regret(Exception):
    """Rolls a writer's transaction back."""


class Writer:
    """Writes rows and their events; asked again after a crash, it writes nothing twice."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()

    async def run(self) -> None:
        """All of its transactions, one after the other."""
        for number, write in enumerate(WRITES[self.process.name]):
            await answered(self.process, lambda number=number, write=write: self.transaction(number, write))  # type: ignore[misc]
        self.process.note("written", self.process.name)

    async def transaction(self, number: int, write: Write) -> None:
        if not write.is_regretted:
            await self.database.transact(lambda: self.write(number, write))
            self.process.note("wrote", f"{self.process.name}/{number}")
            return
        try:
            async with self.database.transaction() as tx:
                await tx.run(self.write(number, write))
                await tx.run(self.misplace())
                raise Regret
        except Regret:
            pass

    def write(self, number: int, write: Write) -> Script[None]:
        """The rows and the events, in one transaction."""
        yield from self.append((yield from self.rows(number, write)))

    def rows(self, number: int, write: Write) -> Script[list[Entry]]:
        """Write the rows; the events that belong to them."""
        entries = list[Entry]()
        for place, item in enumerate(write.items):
            event = f"{self.process.name}/{number}/{place}"
            if (yield from _insert(event, item)) is not None:
                version = yield from _bump(item)
                yield from _number(event, version)
                entries.append(Entry(self.partition(event, item), event, item, "bumped", "{}", None, write.delay_us))
        return entries

    def misplace(self) -> Script[None]:
        """An event for a partition that is not there, and one by somebody who spreads keys over others."""
        refusals = list[type[Exception]]()
        for partition, partitions in ((PARTITIONS, PARTITIONS), (0, PARTITIONS + 1)):
            entry = Entry(partition, f"misplaced/{partition}", "a", "bumped", "{}", None, 0)
            try:
                yield from self.database.logs.append(LOG, [entry], partitions=partitions)
            except (InvalidInput, SchemaMismatch) as error:
                refusals.append(type(error))
        if refusals != [InvalidInput, SchemaMismatch]:
            self.process.note("misled", f"misplaced events were refused with {refusals}")

    def partition(self, event: str, item: str) -> int:
        return PLACES[item]

    def append(self, entries: Sequence[Entry]) -> Script[None]:
        if entries:
            yield from self.database.logs.append(LOG, entries, partitions=PARTITIONS)
            yield Wake(intake_topic(LOG))


class Sequencer:
    """Moves what is committed into the log, for as long as it holds the leases."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()
        self.leases = Leases(self.database, KIND, owner=process.env.process, ttl=TTL_S, share=False)

    async def run(self) -> None:
        """Until everybody goes home."""
        news = self.database.changed(intake_topic(LOG))
        for _ in range(LOOKS_MAX):
            rest_s = 0.0
            try:
                rest_s = await self.step()
            except LeaseLost:
                self.process.note("refused", self.process.env.process)
                self.leases.doubt()
            except TryAgain:
                pass
            except OutcomeUnknown:  # a lease may be ours, or not
                self.leases.doubt()
            await news.wait(max(rest_s, 0.01))

    async def step(self) -> float:
        """Look once, and move what there is; how long to rest."""
        rest_s = LOOK_S
        if await self.leases.tend():
            ready = await self.database.read(self.look())
            if ready.waiting or (ready.due_in_us is not None and ready.due_in_us <= 0):
                moved = list[int]()
                for claim in self.leases.held():
                    await self.move([claim], moved.append)
                return 0.0
            rest_s = LOOK_S if ready.due_in_us is None else ready.due_in_us / 1_000_000
        return min(rest_s, self.leases.rest_s())

    async def move(self, claims: list[Claim], moved: Callable[[int], None]) -> None:
        await self.database.transact(lambda: self.sequence(claims, moved))
        for claim in claims:
            self.process.note("moved", f"{claim.id}/{claim.token}")

    def look(self) -> Script[Ready]:
        """What there is to do, and whether that is so."""
        ready = yield from self.database.logs.ready(LOG)
        delays = [waiting.due_us for waiting in (yield from _intake()) if waiting.log == LOG]
        if (ready.waiting, ready.due_in_us is not None) != (0 in delays, any(delays)):
            self.process.note("misled", f"events wait until {delays}, and it was said: {ready}")
        return ready

    def sequence(self, claims: list[Claim], moved: Callable[[int], None]) -> Script[None]:
        """Under its tokens, which it leaves behind."""
        yield from self.guard(claims)
        partitions = [int(claim.id) for claim in claims]
        spans = yield from self.database.logs.spans(LOG)
        waiting: list[Waiting] = yield from _intake()
        before_us = yield from now()
        yield from self.database.logs.sequence(LOG, partitions, limit=BATCH, moved=moved)
        yield from self.check([span for span in spans if span.partition in partitions], waiting, before_us)
        for claim in claims:
            yield from _write_moved(int(claim.id), claim.token)
        yield Wake(LOG_TOPIC)

    def check(self, before: list[Span], waiting: list[Waiting], before_us: int) -> Script[None]:
        """Nothing was moved before it was due, and what was delayed is as old as if it had been written then."""
        ends = [Cursor(span.partition, span.next) for span in before]
        records = yield from self.database.logs.read(LOG, ends, limit=BATCH)
        now_us = max(before_us, (yield from now()))  # the clock may have been put back since
        due = {each.event_id: each.due_us for each in waiting}
        at = {each.event_id: each.due_us or each.at_us for each in waiting}
        for record in records:
            if due[record.id] > now_us or record.at_us != at[record.id]:
                self.process.note("misled", f"{record} was due at {due[record.id]}, and moved at {now_us}")

    def guard(self, claims: list[Claim]) -> Script[None]:
        yield from self.database.claims.guard(KIND, claims)


class Reader:
    """Follows the log with a cursor, commits what it has seen together with the cursor, and trims behind it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()
        self.trims = 0

    async def run(self) -> None:
        """Until everybody goes home."""
        news = self.database.changed(LOG_TOPIC)
        for _ in range(LOOKS_MAX):
            try:
                if await self.read():
                    continue
                for span in (await self.database.transact(self.trim)) or ():
                    self.process.note("trimmed", f"{span.partition}/{span.first}")
            except TryAgain:
                pass
            except OutcomeUnknown:  # the cursor knows
                pass
            except EventsTrimmed:  # for ever, so nobody need wait for the rest
                self.process.note("missed", self.process.env.process)
                return
            await news.wait(LOOK_S)

    async def read(self) -> bool:
        """Whether there was anything."""
        records = await self.database.transact(self.follow)
        for record in records:
            self.process.note("seen", record.id)
        return bool(records)

    def follow(self) -> Script[list[Record]]:
        records = yield from self.records()
        yield from self.see(records)
        yield from self.move(records)
        return records

    def records(self) -> Script[list[Record]]:
        at = yield from cursors()
        records = yield from self.database.logs.read(LOG, at, limit=BATCH)
        for partition, count in Counter(record.partition for record in records).items():
            if count > BATCH:
                self.process.note("misled", f"of partition {partition} {count} events were read, and {BATCH} asked for")
        return records

    def see(self, records: Sequence[Record]) -> Script[None]:
        for record in records:
            yield from _write_seen(record.partition, record.offset, record.id)

    def move(self, records: Sequence[Record]) -> Script[None]:
        for record in records:
            yield from advance(record.partition, record.offset + 1)

    def trim(self) -> Script[list[Span] | None]:
        """What is old, an event of each partition: those of one partition, of another each time, and then of all at once."""
        at = yield from cursors()
        before: list[Span] = yield from self.database.logs.spans(LOG)
        if len(before) != PARTITIONS:
            self.process.note("misled", f"of {PARTITIONS} partitions {before} are shown")
        before_us = yield from now()
        self.trims += 1
        for upto in ([at[self.trims % len(at)]], at):
            first = [Cursor(span.partition, span.first) for span in before]
            records = yield from self.database.logs.read(LOG, first, limit=100)
            yield from self.database.logs.trim(LOG, upto=upto, older_us=OLDER_US, limit=1)
            after_us = yield from now()
            times = sorted((before_us, after_us))  # the clock may have been put back
            after = yield from self.database.logs.spans(LOG)
            for span, end in zip(before, after, strict=True):
                least, most = (first_kept(span, records, upto, young_us=us - OLDER_US, limit=1) for us in times)
                if not least <= end.first <= most:
                    self.process.note("misled", f"{span} was trimmed up to {upto}, and begins at {end.first}")
            before, before_us = after, after_us
        return before

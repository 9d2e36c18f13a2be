"""What goes through the log while faults strike: two writers, a sequencer under its leases, and a reader that trims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from faultproof.errors import EventsTrimmed, LeaseLost, OutcomeUnknown, TryAgain
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Entry, Record, intake_topic
from faultproof.ports.script import Script, Wake, sql
from faultproof.primitives.leases import Leases
from faultproof.prove.kernel.asking import answered
from faultproof.prove.kernel.log_places import TABLES
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
PLACES = {"a": 0, "b": 1, "c": 1}
"""Item -> partition."""


class Write(NamedTuple):
    """One transaction of a writer: an event for each of these items, in this order."""

    items: Sequence[str]
    delay_us: int = 0
    is_regretted: bool = False
    """It is rolled back in the end."""


WRITES = {
    "writer-1": (Write(("a",)), Write(("b", "a"))),
    "writer-2": (Write(("a",)), Write(("a",), is_regretted=True), Write(("c",), delay_us=300_000)),
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
       SELECT :partition, (SELECT count(*) FROM moved WHERE "partition" = :partition), :token"""
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
            return
        try:
            async with self.database.transaction() as tx:
                await tx.run(self.write(number, write))
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
            ready = await self.database.read(self.database.logs.ready(LOG))
            if ready.waiting or (ready.due_in_us is not None and ready.due_in_us <= 0):
                moved = list[int]()
                await self.move(self.leases.held(), moved.append)
                return 0.0
            rest_s = LOOK_S if ready.due_in_us is None else ready.due_in_us / 1_000_000
        return min(rest_s, self.leases.rest_s())

    async def move(self, claims: list[Claim], moved: Callable[[int], None]) -> None:
        await self.database.transact(lambda: self.sequence(claims, moved))

    def sequence(self, claims: list[Claim], moved: Callable[[int], None]) -> Script[None]:
        """Under its tokens, which it leaves behind."""
        yield from self.guard(claims)
        partitions = [int(claim.id) for claim in claims]
        yield from self.database.logs.sequence(LOG, partitions, limit=BATCH, moved=moved)
        for claim in claims:
            yield from _write_moved(int(claim.id), claim.token)
        yield Wake(LOG_TOPIC)

    def guard(self, claims: list[Claim]) -> Script[None]:
        yield from self.database.claims.guard(KIND, claims)


class Reader:
    """Follows the log with a cursor, commits what it has seen together with the cursor, and trims behind it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()

    async def run(self) -> None:
        """Until everybody goes home."""
        news = self.database.changed(LOG_TOPIC)
        for _ in range(LOOKS_MAX):
            try:
                if await self.read():
                    await self.database.transact(self.trim)
                    continue
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
        return await self.database.transact(self.follow)

    def follow(self) -> Script[bool]:
        records = yield from self.records()
        yield from self.see(records)
        yield from self.move(records)
        return bool(records)

    def records(self) -> Script[list[Record]]:
        at = yield from cursors()
        return (yield from self.database.logs.read(LOG, at, limit=BATCH))

    def see(self, records: Sequence[Record]) -> Script[None]:
        for record in records:
            yield from _write_seen(record.partition, record.offset, record.id)

    def move(self, records: Sequence[Record]) -> Script[None]:
        for record in records:
            yield from advance(record.partition, record.offset + 1)

    def trim(self) -> Script[None]:
        at = yield from cursors()
        yield from self.database.logs.trim(LOG, upto=at, older_us=0, limit=BATCH)

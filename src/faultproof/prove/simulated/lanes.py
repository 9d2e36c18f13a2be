"""Where simulated processes meet the database: real SQLite, run inline, one operation at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from faultproof.engines.sqlite.connection import Connection, Synchronous, open_connection
from faultproof.engines.sqlite.faults import NotBegun
from faultproof.errors import OutcomeUnknown
from faultproof.ports.script import Begin, Call, Commit, Later, Rollback, Script, Step, Wake, drive
from faultproof.ports.statement import NOTHING, Answer
from faultproof.prove.simulated.faults import BEGINNING, COMMITTING, INSIDE, WHOLE, Fault

if TYPE_CHECKING:
    from faultproof.prove.simulated.process import Process

T = TypeVar("T")


class Store(Protocol):
    """The durable state of a world."""

    commits: int
    """Commits so far, by anyone."""
    changes: int
    """Those of them that may have changed something."""
    owner: Process | None
    """Who holds the write lock, where the store knows."""

    def reset(self, now: Callable[[], int]) -> None:
        """Back to the state that this store began with, for another run on another clock."""
        ...

    def lose_power(self, choose: Callable[[int], int]) -> None:
        """Nothing is left but what was synced, and perhaps a part of what was being written; nobody is connected."""
        ...

    def executor(self, lane: SimLane, script: Script[Any] | None = None) -> Callable[[Step], Answer]:
        """What runs the steps of a lane. Which script's they are matters only to whoever tells of it."""
        ...

    def call(self, lane: SimLane, function: Callable[[Connection], T]) -> T:
        """Run a function with the lane's connection."""
        ...

    def free_for(self, lane: SimLane) -> bool:
        """Whether an operation of this lane can run now; a write that cannot is told so, a read waits."""
        ...

    def abandon(self, process: Process) -> None:
        """The process is gone: roll back what it had open."""
        ...

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """For checkers: a query on what is committed."""
        ...

    def dump(self) -> Iterator[str]:
        """Tables and committed rows, as text, in a fixed order."""
        ...


class SimLane:
    """A lane of a simulated process; see `faultproof.engines.sqlite.lane.Lane`."""

    def __init__(self, process: Process, store: Store, role: str) -> None:
        self.process = process
        self.role = role
        self._store = store
        self._running: asyncio.Task[Any] | None = None
        """The last script that was begun statement by statement."""

    async def drive(self, script: Script[T], *, then: Callable[[T], None] | None = None) -> T:
        result = await self._drive(script)
        if then is not None:  # its process may have died in between: committed, and nobody was told
            then(result)
        return result

    async def _drive(self, script: Script[T]) -> T:
        if self.process.world.granularity == "statement" and self.role == "writer":
            return await self._in_turn(script)
        execute = self._executor(script)
        if not self._is_inside():
            kinds: tuple[Fault, ...] = WHOLE if self.role == "writer" else BEGINNING
            return await self._operate(self.role, lambda: drive(script, execute), kinds)
        step = next(script)  # a script that yields nothing is not one
        if type(step) is Commit or type(step) is Rollback:
            kinds = COMMITTING if type(step) is Commit else INSIDE
            return await self._operate(type(step).__name__, lambda: drive(script, execute, step), kinds)
        return drive(script, execute, step)

    def _executor(self, script: Script[Any] | None = None) -> Callable[[Step], Answer]:
        """The store's; it gives no answer to a commit if that is the fault that strikes."""
        execute, world = self._store.executor(self, script), self.process.world

        def step_of(step: Step) -> Answer:
            if type(step) is not Commit or world.fault not in (Fault.LOST, Fault.UNHEARD):
                return execute(step)
            execute(step if world.fault is Fault.UNHEARD else Rollback())
            raise OutcomeUnknown("the connection was lost during the COMMIT")

        return step_of

    async def call(self, function: Callable[[Connection], T]) -> T:
        if self.process.world.granularity == "commit" and self._is_inside():
            return self._store.call(self, function)
        return await self._operate("user SQL", lambda: self._store.call(self, function))

    def _is_inside(self) -> bool:
        """In an open transaction of this process, where nobody else can notice when a statement happens. In `commit`
        granularity only its beginning and its end are operations."""
        self.process.check_alive()
        return self.role == "writer" and self._store.owner is self.process

    def end(self, then: Callable[[], object] | None = None) -> None:
        pass

    async def ended(self) -> None:
        pass

    async def _in_turn(self, script: Script[T]) -> T:
        """As a thread does it: a caller that is cancelled stops no script, and the next one waits until this has ended."""
        before, loop = self._running, asyncio.get_running_loop()

        async def turn() -> T:
            if before is not None and not before.done():
                await asyncio.wait([before])
            return await self._stepwise(script)

        self._running = task = loop.create_task(turn())
        return await asyncio.shield(task)

    async def _stepwise(self, script: Script[T]) -> T:
        execute = self._executor(script)
        try:
            step = next(script)
            while True:
                label = step.statement.name if type(step) is Call else type(step).__name__
                kinds = BEGINNING if type(step) is Begin else COMMITTING if type(step) is Commit else INSIDE
                try:
                    answer = await self._operate(label, lambda step=step: execute(step), kinds)  # type: ignore[misc]
                except Exception as error:
                    step = script.throw(error)
                else:
                    step = script.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _operate(self, label: str, action: Callable[[], T], kinds: tuple[Fault, ...] = INSIDE) -> T:
        eligible = (lambda: self._store.free_for(self)) if self.role == "reader" else None
        result: T = await self.process.world.operate(self.process, self, label, action, eligible, kinds)
        return result


class NestedConnection(Connection):
    """Transactions as savepoints inside one that is never committed: undoing that one is the cheapest way back to the
    start, because the prepared statements stay valid."""

    begin, commit = "SAVEPOINT world", "RELEASE world"

    def _rollback(self) -> Answer:
        self._refused = None
        self.raw.execute("ROLLBACK TO world")
        self.raw.execute("RELEASE world")
        return NOTHING


class MemoryStore:
    """One in-memory database for all processes; the write lock is played, everything else is SQLite.

    A reader would see what an open transaction has not committed yet, so it waits until that has ended: what a WAL
    reader that came a moment later would see. `FileStore` confirms on real WAL files that nothing depends on it.
    """

    def __init__(self, image: bytes | None = None, *, connection: type[NestedConnection] | None = None) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self.commits = self.changes = 0
        self._begun_at = self._schema = 0
        self.owner: Process | None = None
        self.now: Callable[[], int] = lambda: 0
        executing = connection or NestedConnection
        self._connection = executing(self.raw, name="the simulated database", now=lambda: self.now())
        if image is not None:
            self.raw.deserialize(image)
        self.raw.execute("BEGIN")

    def reset(self, now: Callable[[], int]) -> None:
        """Back to the state that this store began with, for another run."""
        self.raw.execute("ROLLBACK")
        self.raw.execute("BEGIN")
        self.commits, self.changes, self.owner, self.now = 0, 0, None, now
        ((self._schema,),) = self.fetch("PRAGMA schema_version")

    def image(self) -> bytes:
        """The state as it is now, to begin other stores with."""
        self.raw.execute("COMMIT")
        self.raw.execute("PRAGMA user_version = 0")  # a database without tables has no page yet, and no image
        return self.raw.serialize()

    def lose_power(self, choose: Callable[[int], int]) -> None:
        """Here every commit is durable at once."""
        self.owner = None

    def executor(self, lane: SimLane, script: Script[Any] | None = None) -> Callable[[Step], Answer]:
        execute, bound = self._connection.execute, self._bound

        def step_of(step: Step) -> Answer:
            return execute(step) if type(step) in (Call, Later, Wake) else bound(lane, step)

        return step_of

    def _bound(self, lane: SimLane, step: Step) -> Answer:
        """The steps that open and end transactions."""
        if lane.role == "reader":
            return NOTHING
        if type(step) is Begin:
            if self.owner is not None:
                raise NotBegun("the simulated database is locked by another process")
            self.owner = lane.process
            self._begun_at = self.raw.total_changes
        elif type(step) is Rollback:
            if self.owner is not lane.process:
                return NOTHING
            self.owner = None
        elif type(step) is Commit:
            self.owner = None
            self.commits += 1
            self.changes += self._has_changed()
        return self._connection.execute(step)

    def _has_changed(self) -> bool:
        """Whether the open transaction has written a row, or perhaps a table."""
        if self.raw.total_changes != self._begun_at:
            return True
        before, ((self._schema,),) = self._schema, self.fetch("PRAGMA schema_version")
        return self._schema != before

    def call(self, lane: SimLane, function: Callable[[Connection], T]) -> T:
        return function(self._connection)

    def free_for(self, lane: SimLane) -> bool:
        return self.owner is None

    def abandon(self, process: Process) -> None:
        if self.owner is process:
            self._connection.execute(Rollback())
            self.owner = None

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self.raw.execute(sql).fetchall()

    def dump(self) -> Iterator[str]:
        return self.raw.iterdump()


class FileStore:
    """Real WAL files: each process has connections of its own, and SQLite itself keeps them apart."""

    def __init__(self, directory: Path, image: bytes, *, synchronous: Synchronous = "full") -> None:
        self.commits = self.changes = 0
        self.owner: Process | None = None
        self._path = directory / "world.db"
        self._log = directory / "world.db-wal"
        self._image = image
        self._synchronous = synchronous
        self._synced = 0
        """Bytes of the log that a power failure leaves alone: with `full`, those of every commit; else none, since nothing
        is checkpointed here."""
        self._now: Callable[[], int] = lambda: 0
        self._connections: dict[tuple[int, str], Connection] = {}
        self._own = self._begin(image, b"")

    def reset(self, now: Callable[[], int]) -> None:
        self.close()
        self.commits, self.changes, self._now = 0, 0, now
        self._own = self._begin(self._image, b"")

    def _begin(self, image: bytes, log: bytes) -> Connection:
        self._path.with_name(self._path.name + "-shm").unlink(missing_ok=True)
        self._path.write_bytes(image)
        self._log.write_bytes(log)
        self._synced = len(log)
        return self._open()

    def _open(self, *, reader: bool = False) -> Connection:
        return open_connection(str(self._path), now=lambda: self._now(), synchronous=self._synchronous, reader=reader)

    def lose_power(self, choose: Callable[[int], int]) -> None:
        """Of what was not synced some bytes may have reached the disk, cut off anywhere: in eighths."""
        image, log = self._path.read_bytes(), self._log.read_bytes()
        self.close()
        self._own = self._begin(image, log[: self._synced + (len(log) - self._synced) * choose(8) // 8])

    def executor(self, lane: SimLane, script: Script[Any] | None = None) -> Callable[[Step], Answer]:
        def execute(step: Step) -> Answer:
            answer = self._connection(lane).execute(step)
            if type(step) is Commit:
                self.commits += 1
                self.changes += 1
                if self._synchronous == "full":
                    self._synced = self._log.stat().st_size
            return answer

        return execute

    def call(self, lane: SimLane, function: Callable[[Connection], T]) -> T:
        return function(self._connection(lane))

    def free_for(self, lane: SimLane) -> bool:
        return True

    def abandon(self, process: Process) -> None:
        for key in [key for key in self._connections if key[0] == id(process)]:
            self._connections.pop(key).close()

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self._own.raw.execute(sql).fetchall()

    def dump(self) -> Iterator[str]:
        return self._own.raw.iterdump()

    def close(self) -> None:
        """Close all connections."""
        for connection in (*self._connections.values(), self._own):
            connection.close()
        self._connections.clear()

    def _connection(self, lane: SimLane) -> Connection:
        key = (id(lane.process), lane.role)
        if key not in self._connections:
            self._connections[key] = self._open(reader=lane.role == "reader")
        return self._connections[key]

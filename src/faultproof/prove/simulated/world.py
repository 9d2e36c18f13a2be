"""A simulated world: processes, one database, a network of wake-ups, virtual time, and faults, all drawn from one tape.

Every input and output of a process is an *operation*: it is queued, the tape picks which queued one happens next, and
around each the tape may strike with a fault:

- **crash**, before or after it: the process is gone between two instructions. Nothing of it runs any more, not even a
  `finally`; what it had not committed is rolled back, what it had committed stays; its supervisor starts it again.
- **freeze**, before or after it: the process stops for longer than any lease (a paused machine, a long collection), a
  second one is started in its place, and then the first one wakes and goes on as if nothing had happened.
- **drop**: a wake-up is lost.

In `commit` granularity a whole transaction is one operation, because a crash anywhere inside it leaves the same
database; `statement` granularity makes every statement one, so that others run in between.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Literal

from faultproof.prove.proof import Main
from faultproof.prove.simulated.faults import CRASH, FAULTS, NO_FAULT, Faults, Point
from faultproof.prove.simulated.lanes import Store
from faultproof.prove.simulated.loop import STRAND, Escape, SimLoop, StepLimit, Strand
from faultproof.prove.simulated.operations import Operation, Operations
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.tape import Tape
from faultproof.signals import Signals

Granularity = Literal["commit", "statement"]
EPOCH_US = 1_700_000_000_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a run is given up, and how long things take in virtual seconds."""

    steps: int = 200_000
    seconds: float = 600.0
    restart_s: float = 0.02
    freeze_s: float = 1.5
    """Longer than every lease in use: a proof sets its leases accordingly."""


class World:
    """One run. Make it, `spawn` processes, `run` it, look at `store` and `notes`, `close` it."""

    def __init__(
        self,
        store: Store,
        tape: Tape,
        *,
        granularity: Granularity = "commit",
        faults_max: int = 0,
        limits: Limits | None = None,
    ) -> None:
        self.store = store
        self.tape = tape
        self.granularity = granularity
        self.limits = limits or Limits()
        self.loop = SimLoop()
        self.signals = Signals(sinks=())
        self.processes: list[Process] = []
        self.notes: list[tuple[Any, ...]] = []
        self.outside: dict[str, Any] = {}
        self.trace: list[tuple[Any, ...]] = []
        """What happened, as facts; put into words only when somebody asks (`lines`, `hash`)."""
        self.deaths: list[tuple[str, BaseException]] = []
        """Processes whose main function raised: their supervisor starts them again, like after a crash."""
        self.watchers: list[Callable[[], None]] = []
        """Each is called after every commit: what must hold always is looked at there."""
        self.closed = False
        self._operations = Operations(tape)
        self._faults = Faults(tape, faults_max)
        self._root = Strand("world")
        self.loop.strands.append(self._root)
        self._root_context = Context()
        self._root_context.run(STRAND.set, self._root)
        self.ids = 0

    @property
    def points(self) -> list[Point]:
        """Where a fault could still strike, after the answers that the tape was given."""
        return self._faults.points

    @property
    def faults(self) -> list[str]:
        """Those that struck."""
        return self._faults.struck

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """For whoever judges: a query on what is committed."""
        return self.store.fetch(sql)

    def wall_us(self) -> int:
        """The wall clock: microseconds since 1970, from the virtual time."""
        return EPOCH_US + int(self.loop.now * 1_000_000)

    # -- what processes do ------------------------------------------------------------------------------------------

    def spawn(self, name: str, main: Main) -> Process:
        """Start a process now."""
        incarnation = sum(1 for process in self.processes if process.name == name)
        process = Process(self, name, main, incarnation)
        self.processes.append(process)
        self.loop.strands.append(process.strand)
        context = Context()
        context.run(STRAND.set, process.strand)
        task = context.run(self.loop.create_task, main(process), name=process.strand.name)
        context.run(task.add_done_callback, lambda done: self._ended(process, done))
        return process

    def operate(
        self,
        process: Process,
        lane: object,
        label: str,
        action: Callable[[], Any],
        eligible: Callable[[], bool] | None = None,
    ) -> asyncio.Future[Any]:
        """Queue an operation behind the others of its lane; the future gets what `action` returns or raises, unless its
        process dies first."""
        process.check_alive()
        future = self.loop.create_future()
        self._operations.add(Operation(process, lane, label, action, future, eligible))
        return future

    def post(self, receiver: Process, label: str, action: Callable[[], Any]) -> None:
        """Queue a message to a process. The tape may deliver it late, or never."""
        self._operations.add(Operation(receiver, object(), label, action, None, None))

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool]) -> None:
        """Run until nothing is under way, nobody is frozen and `until` holds. Raises `StepLimit` if that never comes."""
        loop, limits = self.loop, self.limits
        with loop.running():
            while True:
                loop.run_ready(limits.steps)
                operation = self._operations.pick()
                if operation is not None:
                    self._perform(operation)
                elif self._all_awake() and until():
                    return
                elif not loop.advance():
                    raise StepLimit("every process waits for something that cannot happen")
                elif loop.now > limits.seconds:
                    raise StepLimit(f"not finished after {limits.seconds:.0f} virtual seconds")

    def lines(self) -> Iterator[str]:
        """What happened, a line each."""
        for now, who, what, outcome in self.trace:
            yield f"{now:.6f} {who}: {what} {outcome!r}"

    def hash(self) -> str:
        """A digest of everything that happened, in order, and of the database at the end."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.lines():
            digest.update(line.encode())
            digest.update(b"\n")
        for line in self.store.dump():
            digest.update(line.encode())
        return digest.hexdigest()

    def close(self) -> None:
        """End every task that is left, without letting it reach anything."""
        self.closed = True
        for process in self.processes:
            process.bury()
        self._operations.clear()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _all_awake(self) -> bool:
        """A zombie must have had its chance to do harm."""
        return not any(process.strand.frozen for process in self.processes)

    def _perform(self, operation: Operation) -> None:
        process = operation.process
        if operation.future is None:
            if self._faults.next(2):
                process.wakeups.under_way.discard(operation.label)
                self._spend(f"drop {operation.label} to {process.strand.name}")
            else:
                self.trace.append((self.loop.now, process.strand.name, "hears", operation.label))
                operation.action()
            return
        if self._strike(process, "before", operation.label):
            if not process.strand.dead:
                self._operations.put_back(operation)  # frozen: it happens after the thaw
            return
        future, commits = operation.future, self.store.commits
        try:
            result, error = operation.action(), None
        except Exception as raised:
            result, error = None, raised
        if self.store.commits != commits:
            for watch in self.watchers:
                watch()
        process.operations += 1
        self.trace.append((self.loop.now, process.strand.name, operation.label, error or result))
        if self._strike(process, "after", operation.label) and process.strand.dead:
            return
        if not future.cancelled():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _strike(self, process: Process, when: str, label: str) -> bool:
        if self._faults.are_new_here():
            self._faults.points.append(self._point(process, when, label))
        fault = self._faults.next(3)
        if fault == NO_FAULT:
            return False
        self._spend(f"{FAULTS[fault]} {when} {label} in {process.strand.name}")
        if fault == CRASH:
            self._crash(process)
        else:
            self._freeze(process)
        return True

    def _point(self, process: Process, when: str, label: str) -> Point:
        """Here, as a point that a longer tape may strike at."""
        name, commits, now = process.strand.name, self.store.commits, self.loop.now
        holds_lock = self.store.owner is process
        crash: Hashable = (name, process.notes, commits, now, holds_lock)
        # Frozen with the lock, it stops all writers until it wakes, wherever in its transaction it is.
        freeze: Hashable = (name, commits) if holds_lock else (name, process.operations, when, commits, now)
        return Point(self.tape.position, when, label, name, (crash, freeze))

    def _spend(self, what: str) -> None:
        self._faults.spend(what)
        self.trace.append((self.loop.now, "world", "FAULT", what))

    def _crash(self, process: Process) -> None:
        self._remove(process)
        self._later(self.limits.restart_s, lambda: self.spawn(process.name, process.main))

    def _freeze(self, process: Process) -> None:
        process.strand.frozen = True
        self._later(self.limits.restart_s, lambda: self.spawn(process.name, process.main))
        self._later(self.limits.freeze_s, lambda: setattr(process.strand, "frozen", False))

    def _remove(self, process: Process) -> None:
        process.strand.dead = True
        process.strand.ready.clear()
        process.wakeups.close()
        self._operations.drop(process)
        self.store.abandon(process)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Escape):
            self.loop.failure = error
            return
        self.deaths.append((process.strand.name, error))
        self.trace.append((self.loop.now, process.strand.name, "died of", error))
        self._crash(process)

    def _later(self, seconds: float, action: Callable[[], Any]) -> None:
        self.loop.call_later(seconds, action, context=self._root_context)

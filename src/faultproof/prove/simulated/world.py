"""A simulated world: processes, one database, a network of wake-ups, virtual time, and faults, all drawn from one tape.

Every input and output of a process is an *operation*: it is queued, the tape picks which queued one happens next, and
before and after each the tape may strike with a fault: a crash, a frozen process, an answer that is lost, a connection or
the whole process cut off, a slow database, clocks that jump, messages that are lost, late, or arrive twice (see `faults`).

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

from faultproof.errors import TryAgain
from faultproof.prove.proof import Main
from faultproof.prove.simulated.faults import AFTER, EVERY, INSIDE, MESSAGE, Fault, Faults, Point
from faultproof.prove.simulated.lanes import SimLane, Store
from faultproof.prove.simulated.loop import STRAND, Escape, SimLoop, StepLimit, Strand
from faultproof.prove.simulated.operations import Operation, Operations
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.tape import Tape
from faultproof.signals import Signals

Granularity = Literal["commit", "statement"]
EPOCH_US = 1_700_000_000_000_000
_PREVENTS = (Fault.CRASH, Fault.FREEZE, Fault.CUT, Fault.SLOW, Fault.POWER)
"""After these, the operation before which they struck has not happened, or not yet."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a run is given up, and how long things take in virtual seconds."""

    steps: int = 200_000
    seconds: float = 600.0
    restart_s: float = 0.02
    freeze_s: float = 1.5
    """How long a process is frozen or cut off. Longer than every lease in use: a proof sets its leases accordingly."""
    slow_s: float = 0.3
    """By how much an operation, a message or a request is late."""
    ahead_s: float = 30.0
    back_s: float = 2.0
    skew_s: float = 3_600.0


class World:
    """One run. Make it, `spawn` processes, `run` it, look at `store` and `notes`, `close` it."""

    def __init__(
        self,
        store: Store,
        tape: Tape,
        *,
        granularity: Granularity = "commit",
        faults_max: int = 0,
        faults: frozenset[Fault] = EVERY,
        limits: Limits | None = None,
        lane: Callable[[Process, Store, str], SimLane] = SimLane,
    ) -> None:
        self.store = store
        self.lane = lane
        """Makes the lanes of its processes; a mutant's are others."""
        self.tape = tape
        self.granularity = granularity
        self.limits = limits or Limits()
        self.loop = SimLoop()
        self.signals = Signals(sinks=())
        self.processes: list[Process] = []
        self.notes: list[tuple[Any, ...]] = []
        self.outside: dict[str, Any] = {}
        self.arrivals = 0
        """Requests that have arrived there."""
        self.trace: list[tuple[Any, ...]] = []
        """What happened, as facts; put into words only when somebody asks (`lines`, `hash`)."""
        self.deaths: list[tuple[str, BaseException]] = []
        """Processes whose main function raised: their supervisor starts them again, like after a crash."""
        self.watchers: list[Callable[[], None]] = []
        """Each is called after every commit: what must hold always is looked at there."""
        self.closed = False
        self._operations = Operations(tape)
        self._faults = Faults(tape, faults_max, faults)
        self._put_forward_s = 0.0
        self.fault = Fault.NONE
        """What strikes the operation that is being carried out."""
        self._root = Strand("world")
        self.loop.strands.append(self._root)
        self._root_context = Context()
        self._root_context.run(STRAND.set, self._root)
        self.ids = 0
        self._network = Process(self, "network", _idle, 0)
        """On whose behalf happens what was sent by somebody who does not wait for it."""

    @property
    def points(self) -> list[Point]:
        """Where a fault could still strike, after the answers that the tape was given."""
        return self._faults.points

    @property
    def faults(self) -> list[str]:
        """Those that struck."""
        return self._faults.struck

    @property
    def fired(self) -> set[Fault]:
        """The kinds that struck."""
        return self._faults.fired

    @property
    def offered(self) -> set[Fault]:
        """The kinds that could have struck somewhere, in a random run."""
        return self._faults.offered

    @property
    def evidence(self) -> Hashable:
        """Equal where nothing has been committed, told or asked of a service outside in between."""
        return self.store.changes, len(self.notes), self.arrivals

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """For whoever judges: a query on what is committed."""
        return self.store.fetch(sql)

    def wall_us(self) -> int:
        """The database's clock: microseconds since 1970, from the virtual time and however far it was put."""
        return EPOCH_US + int((self.loop.now + self._put_forward_s) * 1_000_000)

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
        kinds: tuple[Fault, ...] = INSIDE,
        after_s: float = 0.0,
    ) -> asyncio.Future[Any]:
        """Queue an operation behind the others of its lane; the future gets what `action` returns or raises, unless its
        process dies first. `after_s`: it does not happen before."""
        process.check_alive()
        future = self.loop.create_future()
        operation = Operation(process, lane, label, action, future, eligible, kinds)
        if after_s:
            operation.not_before = self.loop.now + after_s
            self._later(after_s, _nothing)
        self._operations.add(operation)
        return future

    def post(self, receiver: Process, label: str, action: Callable[[], Any]) -> None:
        """Queue a message to a process. The tape may deliver it late, or never."""
        self._operations.add(Operation(receiver, object(), label, action, None, None, MESSAGE))

    def post_late(self, label: str, action: Callable[[], Any]) -> None:
        """Queue a request whose sender does not wait for it any more: it arrives later, even if the sender is dead."""
        operation = Operation(self._network, object(), label, action, None, None)
        self._delay(operation)
        self._operations.add(operation)

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool]) -> None:
        """Run until nothing is under way, nobody is frozen and `until` holds. Raises `StepLimit` if that never comes."""
        loop, limits = self.loop, self.limits
        with loop.running():
            while True:
                loop.run_ready(limits.steps)
                operation = self._operations.pick(loop.now)
                if operation is not None:
                    self._perform(operation)
                elif self._all_awake() and self.store.owner is None and until():  # memory would show what may be undone
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
        now = self.loop.now
        return not any(
            process.strand.frozen or (process.cut_until > now and not process.strand.dead) for process in self.processes
        )

    def _perform(self, operation: Operation) -> None:
        if operation.future is None:
            self._deliver(operation)
            return
        process, label = operation.process, operation.label
        fault = self._strike(operation, "before", operation.kinds)
        if fault in _PREVENTS:
            if not process.strand.dead:
                self._operations.put_back(operation)  # it happens after the thaw, or whatever else it waits for
            return
        commits = self.store.commits
        result, error = self._done(operation, fault)
        if self.store.commits != commits:
            for watch in self.watchers:
                watch()
        process.operations += 1
        owner = self.store.owner
        if owner is not None and owner is not process:
            owner.refusals += 1
        self.trace.append((self.loop.now, process.strand.name, label, error or result))
        if self._strike(operation, "after", AFTER) and process.strand.dead:
            return
        future = operation.future
        if not future.cancelled():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _done(self, operation: Operation, fault: Fault) -> tuple[Any, Exception | None]:
        """Carry it out, in the way that the fault makes of it."""
        if fault is Fault.RESET:
            return None, TryAgain(f"the connection was lost before {operation.label}")
        self.fault = fault
        try:
            return operation.action(), None
        except Exception as raised:
            return None, raised
        finally:
            self.fault = Fault.NONE

    def _deliver(self, operation: Operation) -> None:
        """A message, or a request that nobody waits for."""
        name, label = operation.process.strand.name, operation.label
        if operation.kinds and self._faults.are_new_here():
            self._faults.points.append(self._point(operation.process, "on its way", label, operation.kinds))
        fault = self._faults.next(operation.kinds)
        if fault:
            self._spend(fault, f"of {label} to {name}")
        if fault is Fault.DROP:
            operation.process.wakeups.under_way.discard(label)
        elif fault is Fault.LATE:
            self._delay(operation)
            self._operations.add(operation)
        else:
            self.trace.append((self.loop.now, name, "hears", label))
            operation.action()
            if fault is Fault.TWICE:
                self._delay(operation)
                self._operations.add(operation)

    def _delay(self, operation: Operation) -> None:
        operation.not_before = self.loop.now + self.limits.slow_s
        self._later(self.limits.slow_s, _nothing)

    def _strike(self, operation: Operation, when: str, kinds: tuple[Fault, ...]) -> Fault:
        process = operation.process
        if not kinds:
            return Fault.NONE
        if self._faults.are_new_here():
            self._faults.points.append(self._point(process, when, operation.label, kinds))
        fault = self._faults.next(kinds)
        if fault:
            self._spend(fault, f"{when} {operation.label} in {process.strand.name}")
            self._befall(fault, operation)
        return fault

    def _befall(self, fault: Fault, operation: Operation) -> None:
        """What a fault does at once; what it does to the operation itself, `_done` sees to."""
        process, limits = operation.process, self.limits
        if fault is Fault.CRASH:
            self._crash(process)
        elif fault is Fault.FREEZE:
            process.strand.frozen = True
            self._replace(process)
            self._later(limits.freeze_s, lambda: setattr(process.strand, "frozen", False))
        elif fault is Fault.CUT:
            process.cut_until = self.loop.now + limits.freeze_s
            self._replace(process)
            self._later(limits.freeze_s, _nothing)
        elif fault is Fault.SLOW:
            self._delay(operation)
        elif fault is Fault.POWER:
            for each in [each for each in self.processes if not each.strand.dead]:
                self._crash(each)
            self.store.lose_power(self.tape.choose)
        elif fault is Fault.SKEWED:
            process.skew_s += limits.skew_s
        else:
            self._put_forward_s += {Fault.AHEAD: limits.ahead_s, Fault.BACK: -limits.back_s}.get(fault, 0.0)

    def _point(self, process: Process, when: str, label: str, kinds: tuple[Fault, ...]) -> Point:
        """Here, as a point that a longer tape may strike at."""
        name, commits, now = process.strand.name, self.store.commits, self.loop.now
        # Dead with the lock, it leaves what it would have left before it began, unless somebody has been refused it since.
        crash: Hashable = (name, process.notes, self.store.changes, now, process.refusals)
        other: Hashable = (name, process.operations, when, commits, now)
        return Point(self.tape.position, when, label, name, kinds, crash, other)

    def _spend(self, fault: Fault, where: str) -> None:
        self.trace.append((self.loop.now, "world", "FAULT", self._faults.spend(fault, where)))

    def _crash(self, process: Process) -> None:
        self._remove(process)
        self._replace(process)

    def _replace(self, process: Process) -> None:
        self._later(self.limits.restart_s, lambda: self.spawn(process.name, process.main))

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


def _nothing() -> None: ...


async def _idle(process: object) -> None: ...

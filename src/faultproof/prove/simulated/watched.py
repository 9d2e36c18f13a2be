"""A world that remembers of everything that happens who asked for it, with which statements: for retelling a run.

Several times slower than `World`, so nothing is explored in it; the same tape tells the same story in both.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from faultproof.ports.script import Begin, Script
from faultproof.ports.statement import Answer
from faultproof.prove.proof import Main
from faultproof.prove.simulated.lanes import SimLane, Store
from faultproof.prove.simulated.listening import Executed, TellingStore, short
from faultproof.prove.simulated.operations import Operation
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.world import World
from faultproof.prove.sites import Place, asked_by, name_of
from faultproof.prove.story import EVENTS_MAX, STATEMENTS_MAX, Asked, Happening, Kind


class _Request(NamedTuple):
    """An operation as it was asked for."""

    what: str
    place: Place | None


class _Fact(NamedTuple):
    """An event before its lines are looked up in the source."""

    at: float
    process: str
    life: int
    kind: Kind
    what: str
    answer: str
    failed: bool
    commits: bool
    place: Place | None
    statements: Sequence[Executed]


class WatchedWorld(World):
    """See the module. `events` tells what happened, once the run is over."""

    def __init__(self, store: Store, *args: Any, at_end: Callable[[World], None], **kwargs: Any) -> None:
        super().__init__(TellingStore(store, self), *args, **kwargs)
        self._at_end = at_end
        self.happenings: list[_Fact] = []
        self.left_out = 0
        self._script: Script[Any] | None = None
        """What a lane has just been given, until it asks for an operation or executes it at once."""
        self.trace = _Trace(self)
        self._requests: dict[asyncio.Future[Any], _Request] = {}
        self._statements: dict[Process, list[Executed]] = {}
        """Executed since the process's last event: those of an open transaction belong to its commit."""
        self._away: set[Process] = set()
        """Frozen, or cut off."""
        self._current: Operation | None = None
        self._commits = 0

    def spawn(self, name: str, main: Main) -> Process:
        process = super().spawn(name, main)
        self._add(process, "start", "starts" if process.incarnation == 0 else "starts again")
        return process

    def operate(self, process: Process, lane: object, label: str, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        what, self._script = _in_words(label, self._script), None
        place = asked_by(sys._getframe(1))
        future = super().operate(process, lane, label, *args, **kwargs)
        self._requests[future] = _Request(what, place)
        return future

    def _perform(self, operation: Operation) -> None:
        self._notice_waking()
        self._current = operation
        self._commits = self.store.commits  # somebody may have committed who is not watched
        super()._perform(operation)
        self._current = None

    def _remove(self, process: Process) -> None:
        super()._remove(process)
        self._away.discard(process)
        self._add(process, "gone", "is gone")

    def close(self) -> None:
        self._notice_waking()
        self._at_end(self)
        super().close()

    def given(self, script: Script[Any] | None) -> None:
        self._script = script

    def executed(self, lane: SimLane, statement: Executed) -> None:
        self._statements.setdefault(lane.process, []).append(statement)

    def traced(self, fact: tuple[Any, ...]) -> None:
        """Something happened; called with whoever caused it on the stack."""
        _, who, what, outcome = fact
        operation = self._current
        process = next((process for process in self.processes if process.strand.name == who), self._network)
        if what == "FAULT":
            assert operation is not None  # that is what it strikes at
            self._fault(operation, str(outcome))
        elif what == "notes":
            self._add(process, "note", str(outcome[0]), short(outcome[1:]), place=asked_by(sys._getframe(2)))
        elif what == "hears":
            self._add(process, "message", f"hears {outcome}")
        elif what == "died of":
            self._add(process, "dies", f"dies of {type(outcome).__name__}", short(outcome), failed=True)
        else:
            self._operation(process, operation, str(what), outcome)

    def events(self) -> Iterator[Happening]:
        """What happened, in order."""
        for each in self.happenings:
            statements = each.statements[:STATEMENTS_MAX]
            yield Happening(
                at=each.at,
                process=each.process,
                life=each.life,
                kind=each.kind,
                what=each.what,
                answer=each.answer,
                failed=each.failed,
                commits=each.commits,
                site=None if each.place is None else each.place.site(),
                statements=tuple(_asked(statement, each.place) for statement in statements),
                left_out=len(each.statements) - len(statements),
            )

    def _operation(self, process: Process, operation: Operation | None, label: str, outcome: Any) -> None:
        request = self._request(operation) or _Request(label, None)
        commits = self.store.commits != self._commits
        self._commits = self.store.commits
        failed = isinstance(outcome, BaseException)
        answer = "" if isinstance(outcome, Answer) else short(getattr(outcome, "result", outcome))
        statements = self._statements.pop(process, [])
        self._add(
            process,
            "operation",
            request.what,
            answer,
            failed=failed,
            commits=commits,
            place=request.place,
            statements=statements,
        )

    def _fault(self, operation: Operation, what: str) -> None:
        process, request = operation.process, self._request(operation)
        # Of an open transaction those executed so far; after an operation, its own.
        statements: Sequence[Executed] = self._statements.get(process, ())
        if self.happenings and " after " in what and self.happenings[-1].process == process.name:
            statements = self.happenings[-1].statements
        if request is not None:
            what = what.replace(f" {operation.label} in {process.strand.name}", f" {request.what}")
        self._add(process, "fault", what, place=request and request.place, statements=statements)

    def _request(self, operation: Operation | None) -> _Request | None:
        return None if operation is None or operation.future is None else self._requests.get(operation.future)

    def _notice_waking(self) -> None:
        now = self.loop.now
        for process in self.processes:
            if process.strand.dead:
                continue
            if process.strand.frozen or process.cut_until > now:
                self._away.add(process)
            elif process in self._away:
                self._away.remove(process)
                self._add(process, "wakes", "is back, and goes on")

    def _add(
        self,
        process: Process,
        kind: Kind,
        what: str,
        answer: str = "",
        *,
        failed: bool = False,
        commits: bool = False,
        place: Place | None = None,
        statements: Sequence[Executed] = (),
    ) -> None:
        if len(self.happenings) == EVENTS_MAX:
            self.left_out += 1
            return
        if place is not None and place.is_shared:  # it commits for others: theirs are the statements
            place = next(
                (each.place for each in reversed(statements) if each.place and not each.place.is_shared), place
            )
        life = process.incarnation
        self.happenings.append(
            _Fact(self.loop.now, process.name, life, kind, what, answer, failed, commits, place, statements)
        )


class _Trace(list[tuple[Any, ...]]):
    """A trace that tells of each fact at once, while the stack still shows where it comes from."""

    def __init__(self, world: WatchedWorld) -> None:
        super().__init__()
        self._world = world

    def append(self, fact: tuple[Any, ...]) -> None:
        super().append(fact)
        self._world.traced(fact)


def _in_words(label: str, script: Script[Any] | None) -> str:
    """An operation's label says which lane it is in; people want to know what it does."""
    if script is None or label not in ("writer", "reader"):
        return {"Begin": "begin", "Commit": "commit", "Rollback": "roll back"}.get(label, label)
    if _opens(script):
        return "begin"
    return f"{'read' if label == 'reader' else 'transaction'} {name_of(script)}".rstrip()


def _opens(script: Script[Any]) -> bool:
    """Whether it is the one step that a transaction of the user's begins with."""
    frame = getattr(script, "gi_frame", None)
    return frame is not None and isinstance(frame.f_locals.get("step"), Begin)


def _asked(statement: Executed, otherwise: Place | None) -> Asked:
    name, text, values, answer, place = statement
    place = place or otherwise
    return Asked(name=name, text=text, values=values, answer=answer, site=None if place is None else place.site())

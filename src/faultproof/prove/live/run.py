"""One run: start every process, let the order strike, replace who died, wait until the work is done, and judge."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faultproof.primitives.worker import RESTART_CAP_S
from faultproof.prove.live.fleet import Crew, Member
from faultproof.prove.live.ground import Place
from faultproof.prove.live.history import HISTORY_NAME, SIZE_MAX, History, Reader
from faultproof.prove.live.judge import Judge
from faultproof.prove.live.network import Network
from faultproof.prove.live.options import GRACE_S, JUDGE_S, RESTART_S, RESTARTS_MAX, LiveOptions
from faultproof.prove.live.orders import POINTED, TIMED, Order, Point
from faultproof.prove.live.services import SERVICES_NAME, Outside
from faultproof.prove.proof import Proof

_LOOK_S = 0.01
_RESTART_CAP_S = 1.0
_KILLS_A_RUN = 4
_ZOMBIE_POINTS = 4
"""Of what a zombie is still given time for: a request that it was stopped before, and the transaction behind it."""
_BEGIN_S = 1.0
"""Strikes at random times are counted from the first sign of life, or after so long without one."""
_OUTAGE_S = RESTART_CAP_S
"""More time after an outage: a worker that could not work rests up to so long before it tries again."""


@dataclass
class Outcome:
    """What one run came to."""

    order: Order
    fired: Counter[str] = field(default_factory=Counter)
    """Which faults really struck."""
    restarts: int = 0
    wrong: list[str] = field(default_factory=list)
    late: bool = False
    """It was not finished in time, and nothing else is known to be wrong."""
    seen: set[str] = field(default_factory=set)
    points: list[Point] = field(default_factory=list)
    struck: str = ""
    """Where it struck, in words."""
    seconds: float = 0.0
    worked_s: float = 0.0
    """From the first sign of life until all work was done."""
    history: Path | None = None


class Run:
    """Carries one out. Used in one thread."""

    def __init__(
        self,
        proof: Proof,
        order: Order,
        place: Place,
        directory: Path,
        crew: Crew,
        options: LiveOptions,
        *,
        names: Sequence[str],
        engine: str,
        kill_server: Callable[[], None] | None = None,
        pace: float = 1.0,
    ) -> None:
        self._names = names
        self._order = order
        self._directory = directory
        self._crew = crew
        self._options = options
        self._kill_server = kill_server
        self._pace = pace
        self._begun_at: float | None = None
        self._history = History(directory / HISTORY_NAME)
        self._history.add(run={"proof": proof.name, "plant": options.plant, "engine": engine, "order": str(order)})
        self._reader = Reader(directory / HISTORY_NAME)
        self._judge = Judge(proof, place, Outside(directory / SERVICES_NAME), self._reader)
        self._network = Network(place.url, names, order, options)
        self._rng = random.Random(f"{options.seed} {order}")  # noqa: S311  # to be repeated, not to be secret
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._delays: Counter[str] = Counter()
        self._zombies: list[tuple[Member, int]] = []
        """Those that were continued, and how many points they had passed."""
        self._settled_at: float | None = None
        self.outcome = Outcome(order, history=directory / HISTORY_NAME)

    def carry_out(self) -> Outcome:
        """Run it to its end. Whatever happens, no process of it is left."""
        began = time.monotonic()
        try:
            with self._network:
                for name in self._names:
                    self._start(name)
                outage = _OUTAGE_S if self._order.kind in TIMED - {"kills"} else 0.0
                finished = self._work(began + self._options.run_s + outage)
                self._heal()
                if finished:
                    self.outcome.wrong += self._judge.eventually()
                else:  # what it has left belongs into its history all the same
                    self._judge.eventually(0.0)
                self.outcome.seen = self._judge.seen()
                self._crew.end()
                self.outcome.fired += self._network.fired
        finally:
            self._crew.end()
            self._judge.save(self._history)
            self._judge.close()
            self._reader.close()
            self._history.close()
        told = self._reader.told
        if self._order.kind in ("lose", "twice") and told.strikes:  # of these nobody else has noticed anything
            self.outcome.fired[self._order.kind] += 1
        self.outcome.points = told.points
        self.outcome.wrong += [f"{who} died of {why}" for who, why, again in told.deaths if not again]
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    # -- until the work is done -----------------------------------------------------------------------------------------

    def _work(self, deadline: float) -> bool:
        """True once all work is done and every fault has had its chance; otherwise what is wrong has been written down."""
        began, judged, done_looked, struck = time.monotonic(), 0.0, 0.0, False
        while True:
            if (heard := self._crew.heard(_LOOK_S)) is not None:
                self._note(*heard)
            self._reader.read_on()
            now = time.monotonic()
            has_begun = bool(self._reader.told.passed or self._reader.told.notes)
            if not struck and (has_begun or now - began > _BEGIN_S):
                struck = True
                self._begun_at = now
                self._plan_strikes()
            for due in [due for due in self._due if due[0] <= now]:
                self._due.remove(due)
                due[1]()
            if now - judged >= JUDGE_S:
                judged = now
                self.outcome.wrong += self._judge.always()
            if self.outcome.wrong:
                return False
            if now - done_looked >= _LOOK_S:
                done_looked = now
                if self._may_end(now):
                    return True
            if now > deadline:
                self.outcome.late = True
                self.outcome.wrong.append(f"not finished after {self._options.run_s:.0f} s")
            elif self.outcome.restarts > RESTARTS_MAX:
                self.outcome.wrong.append(f"not finished: processes died {self.outcome.restarts} times")
            elif self._reader.size > SIZE_MAX:
                self.outcome.wrong.append(f"not finished: the history has more than {SIZE_MAX:,} bytes")

    def _may_end(self, now: float) -> bool:
        """All work is done, and what was to strike has struck, or will not any more."""
        if any(member.is_stopped for member in self._crew.alive.values()) or not self._judge.is_done():
            self._settled_at = None
            return False
        if self._settled_at is None:
            self._settled_at = now
            self.outcome.worked_s = now - (self._begun_at or now)
        waits = self._due or self._has_not_struck() or self._zombies_sleep()
        return not waits or now - self._settled_at > GRACE_S

    def _has_not_struck(self) -> bool:
        struck = self.outcome.fired or self._network.fired or self._reader.told.strikes
        return self._order.kind != "none" and not struck

    def _zombies_sleep(self) -> bool:
        passed = self._reader.told.passed
        return any(
            member.number in self._crew.alive and passed.get(member.who, 0) < before + _ZOMBIE_POINTS
            for member, before in self._zombies
        )

    def _heal(self) -> None:
        self._due.clear()
        self._network.heal()

    # -- processes ------------------------------------------------------------------------------------------------------

    def _start(self, name: str) -> Member:
        command = self._options.command
        # Only the first life of a process is struck at a point: the next ones count their points anew.
        order = self._order if self._order.process == name and self._order.kind in POINTED else None
        member = self._crew.start(
            name,
            self._network.url(name),
            self._directory,
            order=None if self._crew.lives(name) else order,
            command=None if command is None else list(command),
        )
        self._world(f"starts {member.who}")
        return member

    def _note(self, member: Member, status: int | None) -> None:
        """Somebody has stopped or ended."""
        if status is None:
            self._world(f"{member.who} stopped")
            if self._order.kind == "stop" and member.name == self._order.process:
                self._strike("stop", f"stopped {member.who} at {self._order.point}")
                self._start(member.name)
                self._in(self._options.freeze_s, lambda: self._wake(member))
            return
        self._world(f"{member.who} ended with {status}")
        if status == 0:
            return
        if status == -signal.SIGKILL and self._order.kind in ("kill", "orphan") and member.incarnation == 0:
            self._struck(f"killed {member.who} at {self._order.point}")
            self.outcome.fired["kill"] += self._order.kind == "kill"  # whether it left an orphan, the proxy knows
        self.outcome.restarts += 1
        if any(other.name == member.name for other in self._crew.alive.values()):
            return  # it had a successor already
        self._delays[member.name] += 1 if status > 0 else 0
        delay = min(_RESTART_CAP_S, RESTART_S * 2 ** self._delays[member.name])
        self._in(delay, lambda: self._start(member.name))

    def _wake(self, member: Member) -> None:
        if member.number in self._crew.alive:
            self._zombies.append((member, self._reader.told.passed.get(member.who, 0)))
            self._crew.signal(member, signal.SIGCONT)
            self._world(f"continues {member.who}")

    # -- faults from outside --------------------------------------------------------------------------------------------

    def _plan_strikes(self) -> None:
        kind = self._order.kind
        if kind == "kills":
            at = 0.0
            for _ in range(_KILLS_A_RUN):
                at += self._rng.uniform(0.0, 0.15) * self._pace
                self._in(at, self._kill_somebody)
        elif kind == "server":
            self._in(self._rng.uniform(0.02, 0.2) * self._pace, self._kill_the_server)
        else:
            for delay, what in self._network.strikes(self._rng):
                self._in(delay * self._pace, what)

    def _kill_somebody(self) -> None:
        alive = [member for member in self._crew.alive.values() if not member.is_stopped]
        if alive:
            member = self._rng.choice(alive)
            self._crew.signal(member, signal.SIGKILL)
            self._strike("kills", f"killed {member.who}")

    def _kill_the_server(self) -> None:
        assert self._kill_server is not None
        before = self._judge.server_began()
        self._world("kills the server")
        self._kill_server()
        self._judge.server_began()  # on a connection that is gone, which is noticed here
        if before != self._judge.server_began():
            self._strike("server", "killed the server")

    def _strike(self, kind: str, what: str) -> None:
        self.outcome.fired[kind] += 1
        self._struck(what)

    def _struck(self, what: str) -> None:
        self.outcome.struck = what
        self._world(what)

    def _in(self, seconds: float, what: Callable[[], object]) -> None:
        self._due.append((time.monotonic() + seconds, what))

    def _world(self, what: str, **more: Any) -> None:
        with suppress(OSError):
            self._history.add(world=what, **more)

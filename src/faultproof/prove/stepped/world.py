"""One schedule of a case: who is next is drawn from a tape, statement by statement.

A session whose statement waits for a lock is recognized by `pg_blocking_pids`, asked over another connection and not by
time alone; the others go on, and it goes on as soon as its lock is granted, before anybody else's next statement. This is
how PostgreSQL's own isolation tester works (`src/test/isolation/README`).

Where sessions wait for each other, the server ends one transaction. It looks for deadlocks when somebody has waited for
`deadlock_timeout`; here that is short for a statement that is sent while another waits, so the one that closes the circle is
the victim. The interleaving in which another closes it is stepped through as well, and has the other victim.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from faultproof.errors import InvalidInput
from faultproof.prove.harness import HarnessError, NoEnd
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.stepped.case import PREEMPTIONS_OF_THREE, SESSIONS_MAX, Case, Cuts, Rewrite, together
from faultproof.prove.stepped.database import Names, SteppedDatabase, still_env
from faultproof.prove.stepped.ground import Ground
from faultproof.prove.stepped.party import Party, Seen
from faultproof.prove.stepped.runs import Run, Stepped
from faultproof.prove.stepped.session import Session, at_once, listen
from faultproof.prove.stepped.wire import Wire

ANSWER_S = 0.001
"""How long an answer is waited for before asking whether the statement waits for a lock."""
SETTLE_S = 20.0
"""How long all statements under way may take until each has its answer or waits for one that is not under way."""
STEPS_MAX = 500
"""Statements of one run. One that takes more has sessions that begin again for ever."""
_LETTERS = "ABC"


class World:
    """A case on its ground, to be run again and again. Raises `HarnessError` for a case that cannot be carried out."""

    def __init__(self, case: Case, url: str, *, relax: Callable[[Ground], None] | None = None) -> None:
        """`relax` may change the tables when they have been prepared."""
        self.case = case
        self._relax = relax
        self._plant: str | None = None
        self._rewrite: Rewrite | None = None
        self._cuts: Cuts | None = None
        self._names = Names()
        self._wires: list[Wire] = []
        self.sessions = dict(zip(_LETTERS, case.sessions(None), strict=False))
        """Letter -> name."""
        if not 1 < len(case.sessions(None)) <= SESSIONS_MAX:
            raise InvalidInput(
                f"{case.name} has {len(case.sessions(None))} sessions: 2 or {SESSIONS_MAX} can be stepped through"
            )
        self.preemptions = case.preemptions
        if self.preemptions is None and len(self.sessions) == SESSIONS_MAX:
            self.preemptions = PREEMPTIONS_OF_THREE
        self.ground = Ground(url)
        try:
            self._prepare()
        except BaseException:
            self.ground.close()
            raise

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the schema, and close every connection."""
        self.ground.close()

    def break_by(self, plant: str | None, rewrite: Rewrite | None, cuts: Cuts | None = None) -> None:
        """From now on with this planted bug, with statements rewritten so, and with transactions cut there. Raises
        `InvalidInput` for a bug that the case does not have."""
        if plant is not None and plant not in (known := [each.name for each in self.case.plants]):
            raise InvalidInput(f"{self.case.name} has no planted bug {plant!r}; it has {', '.join(known) or 'none'}")
        self._plant, self._rewrite, self._cuts = plant, rewrite, cuts

    def run(self, tape: Tape) -> Run:
        """One schedule from the beginning."""
        if not self._wires:
            self._wires = [self.ground.wire(self._names) for _ in self.sessions]
        try:
            self.ground.restore()
            return _Running(self, tape).run()
        except BaseException:  # nobody knows what is open on them
            for wire in self._wires:
                wire.shut()
            self._wires = []
            raise

    def parties(self, seen: Seen) -> list[Session]:
        """The sessions, each before its first statement."""
        sessions = []
        mains = self.case.sessions(self._plant)
        for number, (letter, wire, (name, main)) in enumerate(zip(_LETTERS, self._wires, mains.items(), strict=False)):
            wire.refused.clear()
            env = still_env(name, number)
            party = Party(name, env, SteppedDatabase(wire, self._names, env, self._rewriting(), self._cuts), seen)
            sessions.append(Session(name, letter, wire, main(party)))
        return sessions

    def _rewriting(self) -> Rewrite | None:
        both = [each for each in (self.case.rewrites.get(self._plant or ""), self._rewrite) if each is not None]
        return together(*both) if both else None

    def _prepare(self) -> None:
        wire = self.ground.wire(self._names)
        env = still_env("prepare", len(_LETTERS))
        database = SteppedDatabase(wire, self._names, env)

        async def prepare() -> None:
            await self.case.prepare(database)

        try:
            at_once(prepare(), wire, seconds=SETTLE_S)
        except HarnessError:
            raise
        except Exception as error:
            raise HarnessError(f"{self.case.name} cannot be prepared: {error!r}") from error
        wire.shut()
        if self._relax is not None:
            self._relax(self.ground)
        self.ground.keep()


class _Running:
    """A run under way."""

    def __init__(self, world: World, tape: Tape) -> None:
        self._world = world
        self._tape = tape
        self._seen = Seen(world.ground)
        self._sessions = world.parties(self._seen)
        self._steps: list[Stepped] = []
        self._taken: list[int] = []
        self._widths: list[int] = []
        self._preempted = 0
        self._waiting: set[Session] = set()

    def run(self) -> Run:
        current: Session | None = None
        try:
            while eligible := self._eligible(current):
                current = self._choose(eligible, current)
                self._let_through(current)
        finally:
            for session in self._sessions:
                session.close()
        wrong = self._judged()
        return Run(
            tuple(self._steps),
            wrong,
            self._taken,
            self._widths,
            tuple(state for session in self._sessions for state in session.wire.refused),
            tuple(not wrong and each.happened(self._seen) for each in self._world.case.sometimes),
        )

    def _eligible(self, current: Session | None) -> list[Session]:
        """Who may be next, the one that was last first: to go on with it is the dull answer."""
        self._settle()
        free = [session for session in self._sessions if not session.is_over and not session.is_flying]
        if current not in free:
            if not free and any(session.is_flying for session in self._sessions):
                raise NoEnd(f"every session waits, and the server ends none: {self._schedule()}")
            return free
        limit = self._world.preemptions
        if limit is not None and self._preempted == limit and current.is_inside:
            return [current]
        return sorted(free, key=lambda session: session is not current)

    def _choose(self, eligible: list[Session], current: Session | None) -> Session:
        if len(self._taken) == STEPS_MAX:
            raise NoEnd(f"more than {STEPS_MAX} statements, and not at an end: {self._schedule()[-200:]}")
        answer = self._tape.choose(len(eligible))
        self._taken.append(answer)
        self._widths.append(len(eligible))
        chosen = eligible[answer]
        if current in eligible and chosen is not current and current.is_inside:
            self._preempted += 1
        return chosen

    def _let_through(self, session: Session) -> None:
        turn, refused = session.turn, len(session.wire.refused)
        assert turn is not None
        if self._world.ground.may_hurry:
            session.hurry(any(other.is_flying for other in self._sessions), seconds=SETTLE_S)
        self._waiting.discard(session)
        session.send()
        number = session.steps
        self._settle()
        waited = session.is_flying
        states = session.wire.refused[refused:]
        self._steps.append(Stepped(session.letter, number, turn.what, waited, states[0] if states else ""))

    def _settle(self) -> None:
        """Until each statement under way has its answer, or waits for a session that has none under way.

        Asked twice where several are under way: while one answer is given, another may become untrue.
        """
        until = time.monotonic() + SETTLE_S
        before: dict[int, list[int]] = {}
        while flying := self._flying():
            # Those that were waiting before the last statement most likely still are; an answer they have comes at once.
            known = self._waiting.issuperset(flying)
            if listen(flying, 0.0 if known else ANSWER_S):
                before = {}
                continue
            blocking = self._world.ground.blocking([session.pid for session in flying])
            if self._waits_for_idle(blocking):
                self._waiting = set(flying)
                if len(flying) == 1 or blocking == before:
                    return
            else:
                self._waiting.clear()
            before = blocking
            if time.monotonic() > until:
                raise HarnessError(f"no answer within {SETTLE_S} s: {self._schedule()}")

    def _flying(self) -> list[Session]:
        """Those with a statement under way; what nobody can notice is sent at once."""
        for session in self._sessions:
            while session.turn is not None and session.turn.is_silent and not session.is_flying:
                session.send()
        return [session for session in self._sessions if session.is_flying]

    def _waits_for_idle(self, blocking: Mapping[int, list[int]]) -> bool:
        """Whether all of them wait, none of them in the end for itself."""
        idle = {session.pid for session in self._sessions if not session.is_flying}
        settled = set(idle)
        left = dict(blocking)
        while freed := [pid for pid, by in left.items() if by and settled.issuperset(by)]:
            settled.update(freed)
            for pid in freed:
                del left[pid]
        return not left

    def _judged(self) -> list[str]:
        wrong = [f"{session.name} died of {session.error!r}" for session in self._sessions if session.error]
        try:
            return wrong + self._world.case.wrong(self._seen)
        except Exception as error:  # what is there is nothing that the case had in mind
            return [*wrong, f"the outcome cannot be judged: {error!r}"]

    def _schedule(self) -> str:
        return " ".join(step.short for step in self._steps)

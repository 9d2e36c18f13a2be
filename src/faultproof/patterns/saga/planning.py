"""Planning: what to journal next of a saga, whether it has just been started, was taken up, or an attempt has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faultproof.clock import Env, Ids
from faultproof.patterns.saga import machine
from faultproof.patterns.saga.active import Active
from faultproof.patterns.saga.calling import words
from faultproof.patterns.saga.definition import Definition
from faultproof.patterns.saga.journal import Loaded, Write
from faultproof.patterns.saga.machine import Entry, Plan, Run
from faultproof.patterns.saga.shape import difference

NEAR_S = 2.0
"""For a retry that is due so soon the saga is kept in memory."""
DAMAGED = (ValueError, TypeError, LookupError, RecursionError)
"""What reading a row raises that somebody has changed by hand, or another release has written."""


class Planner:
    """Decides by `machine`, at the time by the engine's clock. Does nothing by itself."""

    def __init__(self, definition: Definition, env: Env) -> None:
        self._definition = definition
        self._clock = env.clock
        self._secrets = _secrets(env.ids)
        self._ahead_us = 0

    def now_us(self) -> int:
        """The engine's clock, from what it said last and the monotonic clock since."""
        return int(self._clock.monotonic() * 1_000_000) + self._ahead_us

    def set_clock(self, now_us: int) -> None:
        """The engine has just said what time it is."""
        self._ahead_us = now_us - int(self._clock.monotonic() * 1_000_000)

    def begin(self, active: Active, deadline_us: int | None) -> Sequence[Entry]:
        """Of a saga that is being started, and held by this process from its first moment."""
        now_us = self.now_us()
        active.run = machine.begin(self._definition.shape, None if deadline_us is None else now_us + deadline_us)
        active.seq = 0
        plan, entries = self.planned(active.run, [], now_us)
        write = self.write_of(active, entries, plan, now_us)
        active.accept(write, plan)
        return write.entries

    def go_on(self, loaded: Loaded, until: float) -> tuple[Active, Write | None]:
        """A saga as it is stored, and what to write first: what became of what was under way, and what follows. One whose
        rows cannot be read is parked: to raise would stop this runner, and each after it, for all others."""
        active = Active(loaded.claim, None, until)
        active.seq = loaded.entries[-1].seq if loaded.entries else 0
        try:
            run, entries = self._found(active, loaded)
        except DAMAGED as error:
            run = machine.begin(self._definition.shape, None)
            entries = [Entry("", "attention", data=f"what is stored of it cannot be read: {words(error)}")]
        active.run = run
        plan, entries = self.planned(run, entries, loaded.row.now_us)
        write = self.write_of(active, entries, plan, loaded.row.now_us)
        active.accept(write, plan)
        active.is_over = write.settles
        return active, write if write.entries or write.settles else None

    def _found(self, active: Active, loaded: Loaded) -> tuple[Run, list[Entry]]:
        """Where it stands, and what has happened since. Raises what `DAMAGED` lists for rows that cannot be read."""
        definition, row = self._definition, loaded.row
        run = machine.begin(definition.shape, row.deadline_us)
        for line in loaded.entries:
            if line.what not in machine.KNOWN:  # to leave it out would be a guess
                raise ValueError(f"line {line.seq} of its journal says {line.what!r}")
            run = machine.evolve(definition.shape, run, Entry(*line[2:7]))  # type: ignore[arg-type]  # from the journal
        if (row.version, row.fingerprint) != (definition.version, definition.shape.fingerprint):
            changed = difference(definition.stored_shape(row.shape), row.version, definition.shape, definition.version)
            return run, [Entry("", "attention", data=f"the definition has changed:\n{changed}")]
        try:
            active.input = definition.decode_input(row.input)
        except DAMAGED as error:
            return run, [Entry("", "attention", data=f"the input cannot be read any more: {words(error)}")]
        return run, self._since(run, loaded, row.now_us)

    def _since(self, run: Run, loaded: Loaded, now_us: int) -> list[Entry]:
        """What has become of steps that were under way when the saga was last looked at."""
        entries: list[Entry] = []
        for name, state in run.steps.items():
            answer = next((c for c in loaded.callbacks if (c.step, c.attempt) == (name, state.attempt)), None)
            if answer is not None and state.status in ("begun", "pending", "waiting"):
                what: machine.What = "done" if answer.what == "done" else "failed"
                entries.append(Entry(name, what, answer.attempt, answer.data))
            elif state.status == "pending" and (state.due_us or 0) <= now_us:
                step = self._definition.steps[name]
                due_us = now_us if state.tries + 1 < step.retry.attempts else None
                late = f"no callback within {step.answer_within:g} s"
                entries.append(Entry(name, "unknown", state.attempt, late, due_us))
            elif (what_now := machine.interruption(state, now_us)) is not None:
                entries.append(Entry(name, what_now, state.attempt, "its process stopped in the middle of it", now_us))
        return entries

    def next(self, active: Active, entries: Sequence[Entry]) -> tuple[Write, Plan]:
        """After these."""
        now_us = self.now_us()
        plan, all_entries = self.planned(active.run, entries, now_us)
        return self.write_of(active, all_entries, plan, now_us), plan

    def planned(self, run: Run, entries: Sequence[Entry], now_us: int) -> tuple[Plan, list[Entry]]:
        shape = self._definition.shape
        for entry in entries:
            run = machine.evolve(shape, run, entry)
        plan = machine.plan(shape, run, now_us, self._secrets)
        return plan, [*entries, *plan.entries]

    def write_of(self, active: Active, entries: Sequence[Entry], plan: Plan, now_us: int) -> Write:
        release_in_us: int | None = None
        if not plan.run.is_over and not plan.work:
            wait_us = max(0, plan.look_us - now_us) if plan.look_us is not None else 0
            waits_for_others = any(state.status == "pending" for state in plan.run.steps.values())
            if waits_for_others or wait_us > NEAR_S * 1_000_000:
                release_in_us = wait_us
        moves = plan.run.phase != active.run.phase
        return Write(active.id, active.claim, active.seq, entries, plan.run, moves, release_in_us)


def _secrets(ids: Ids) -> Iterator[str]:
    while True:
        yield ids.new()

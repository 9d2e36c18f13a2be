"""Driving one saga at a time: perform what is planned, journal what came of it, until it ends or waits for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from faultproof.errors import Failed, InvalidInput, LeaseLost, OutcomeUnknown, Repair, TryAgain
from faultproof.patterns.saga import machine
from faultproof.patterns.saga.calling import Verdict, called, entry_of, failure, words
from faultproof.patterns.saga.definition import Definition
from faultproof.patterns.saga.journal import Item, Journal, Loaded, Write
from faultproof.patterns.saga.machine import Entry, Plan, Run, Work
from faultproof.patterns.saga.shape import difference
from faultproof.patterns.saga.steps import StepContext
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.primitives.apart import Escaped, apart
from faultproof.primitives.group_commit import GroupCommit
from faultproof.signals import SAGA_ATTENTION, SAGA_STEP

NEAR_S = 2.0
"""For a retry that is due so soon the saga is kept in memory."""
AGAIN_S = 0.1
"""How soon a write is tried again that found the database busy."""


class Active:
    """A saga that this process goes on with."""

    __slots__ = ("claim", "id", "in_transaction", "input", "look_us", "run", "seq", "settled", "task", "until", "work")

    def __init__(self, claim: Claim, input: Any, until: float) -> None:
        self.claim = claim
        self.id = claim.id
        self.input = input
        self.until = until
        """By the monotonic clock: when its lease ends."""
        self.run: Run
        self.seq = 0
        self.work: list[Work] = []
        self.look_us: int | None = None
        self.settled = False
        self.in_transaction = False
        """A local step holds the claim's row locked; nobody can take it over, and to renew it would wait."""
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{self.id}: {self.run.phase}>"

    def accept(self, write: Write, plan: Plan) -> None:
        """What was written is so."""
        self.run, self.work, self.look_us = plan.run, plan.work, plan.look_us
        self.seq = write.seq + len(write.entries)
        self.settled = write.settles


class Driver:
    """Goes on with sagas. One for each runner; sagas share its group commit."""

    def __init__(self, database: Database, definition: Definition, commit: GroupCommit[Item, Any]) -> None:
        self._database = database
        self._definition = definition
        self._journal = Journal(database, definition.name)
        self._commit = commit
        self._secrets = _secrets(database)
        self._ahead_us = 0

    # -- time: the engine's clock, as far as this process knows it ----------------------------------------------------

    def now_us(self) -> int:
        """The engine's clock, from what it said last and the monotonic clock since."""
        return int(self._database.env.clock.monotonic() * 1_000_000) + self._ahead_us

    def set_clock(self, now_us: int) -> None:
        """The engine has just said what time it is."""
        self._ahead_us = now_us - int(self._database.env.clock.monotonic() * 1_000_000)

    # -- taking up ------------------------------------------------------------------------------------------------------

    def go_on(self, loaded: Loaded, until: float) -> tuple[Active, Write | None]:
        """A saga as it is stored, and what to write first: what became of what was under way, and what follows."""
        definition, row = self._definition, loaded.row
        active = Active(loaded.claim, None, until)
        active.seq = loaded.entries[-1].seq if loaded.entries else 0
        run = machine.begin(definition.shape, row.deadline_us)
        for line in loaded.entries:
            run = machine.evolve(definition.shape, run, Entry(*line[2:7]))  # type: ignore[arg-type]  # from the journal
        active.run = run
        if (row.version, row.fingerprint) != (definition.version, definition.shape.fingerprint):
            changed = difference(definition.stored_shape(row.shape), row.version, definition.shape, definition.version)
            entries = [Entry("", "attention", data=f"the definition has changed:\n{changed}")]
        else:
            try:
                active.input = definition.decode_input(row.input)
            except ValueError as error:
                entries = [Entry("", "attention", data=f"the input cannot be read any more: {words(error)}")]
            else:
                entries = self._since(run, loaded, row.now_us)
        plan, entries = self._planned(run, entries, row.now_us)
        write = self._write_of(active, entries, plan, row.now_us)
        active.accept(write, plan)
        self._tell(active)
        return active, write if write.entries or write.settles else None

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

    # -- going on -------------------------------------------------------------------------------------------------------

    async def drive(self, active: Active) -> None:
        """Until it has ended, waits for others, or belongs to somebody else. What it raises is about the database."""
        while not active.settled:
            if len(active.work) > 1:
                await self._side_by_side(active)
            elif not active.work:
                await self._wait(active)
            elif self._is_local(active.work[0]):
                await self._perform_local(active, active.work[0])
            else:
                await self.journal(active, [await self._perform(active, active.work[0])])

    async def journal(self, active: Active, entries: Sequence[Entry]) -> None:
        """Write entries, and what follows from them, in a transaction shared with other sagas."""
        now_us = self.now_us()
        plan, all_entries = self._planned(active.run, entries, now_us)
        write = self._write_of(active, all_entries, plan, now_us)
        if write.entries or write.settles:
            await self._committed(active, write)
        active.accept(write, plan)
        self._tell(active)

    async def _committed(self, active: Active, write: Write) -> None:
        clock = self._database.env.clock
        while True:
            try:
                await self._commit.submit(write)
                return
            except TryAgain:  # what is known now would be lost otherwise
                if clock.monotonic() >= active.until:
                    raise
            await clock.sleep(AGAIN_S)

    def _planned(self, run: Run, entries: Sequence[Entry], now_us: int) -> tuple[Plan, list[Entry]]:
        shape = self._definition.shape
        for entry in entries:
            run = machine.evolve(shape, run, entry)
        plan = machine.plan(shape, run, now_us, self._secrets)
        return plan, [*entries, *plan.entries]

    def _write_of(self, active: Active, entries: Sequence[Entry], plan: Plan, now_us: int) -> Write:
        release_in_us: int | None = None
        if not plan.run.is_over and not plan.work:
            wait_us = max(0, plan.look_us - now_us) if plan.look_us is not None else 0
            waits_for_others = any(state.status == "pending" for state in plan.run.steps.values())
            if waits_for_others or wait_us > NEAR_S * 1_000_000:
                release_in_us = wait_us
        moves = plan.run.phase != active.run.phase
        return Write(active.id, active.claim, active.seq, entries, plan.run, moves, release_in_us)

    def _tell(self, active: Active) -> None:
        if active.settled and active.run.phase == "attention":
            self._database.env.signals.emit(SAGA_ATTENTION, 1, saga=self._definition.name, step=active.run.stuck)

    async def _wait(self, active: Active) -> None:
        """For the time of a retry, which is near."""
        left_us = (active.look_us or 0) - self.now_us()
        if left_us > 0:
            await self._database.env.clock.sleep(left_us / 1_000_000)
        await self.journal(active, [])

    async def _side_by_side(self, active: Active) -> None:
        """Several steps at once. Remote ones run beside each other; local ones, and all journaling, take turns."""
        tasks: dict[asyncio.Task[Entry], Work] = {}
        try:
            while not active.settled and (len(active.work) > 1 or tasks):
                for work in active.work:
                    if work not in tasks.values() and not self._is_local(work):
                        tasks[asyncio.create_task(self._perform(active, work))] = work
                local = next((work for work in active.work if self._is_local(work)), None)
                if local is not None:
                    await self._perform_local(active, local)
                    continue
                timeout = None if active.look_us is None else max(0.0, (active.look_us - self.now_us()) / 1_000_000)
                # unbounded: each has a timeout of its own
                done, _ = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                ended = [task for task in tasks if task in done]  # in the order of the steps
                for task in ended:
                    del tasks[task]
                await self.journal(active, [task.result() for task in ended])
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)  # unbounded: they have been cancelled

    # -- attempts -------------------------------------------------------------------------------------------------------

    def _is_local(self, work: Work) -> bool:
        return self._definition.steps[work.step].kind == "local"

    async def _perform(self, active: Active, work: Work) -> Entry:
        """An attempt of a remote or asynchronous step, or of its undo."""
        env, step = self._database.env, self._definition.steps[work.step]
        began = env.clock.monotonic()
        if began >= active.until:  # this loop was blocked for so long that somebody else may be at it
            raise LeaseLost(f"the lease on saga {active.id!r} has run out: whoever takes it goes on")
        timeout = self._timeout(active, work)
        context = self._context(active, work, began + timeout)
        arguments = (context, self._result(active, work)) if work.undo else (context,)
        function = step.undo if work.undo else step.action
        assert function is not None
        returned, wrong = await called(function, *arguments, timeout=timeout)
        self._measured(work, began)
        state = active.run.steps[work.step]
        return entry_of(step, work, state, returned, wrong, now_us=self.now_us(), rng=env.rng)

    async def _perform_local(self, active: Active, work: Work) -> None:
        """An attempt of a local step, or of its undo: what it writes commits with the journal's entries, or not at all."""
        env, step = self._database.env, self._definition.steps[work.step]
        began, state = env.clock.monotonic(), active.run.steps[work.step]
        timeout = self._timeout(active, work)
        wrong: Verdict
        try:
            async with self._database.transaction(timeout=timeout) as tx:
                active.in_transaction = True
                await tx.run(self._journal.guard([active.claim]))
                context = self._context(active, work, began + timeout)
                if work.undo:
                    assert step.undo is not None
                    await apart(_call(step.undo, context, self._result(active, work), tx))
                    entry = Entry(step.name, "undone", work.attempt)
                else:
                    returned = await apart(_call(step.action, context, tx))
                    entry = Entry(step.name, "done", work.attempt, step.encode(returned))
                now_us = self.now_us()
                plan, entries = self._planned(active.run, [entry], now_us)
                write = self._write_of(active, entries, plan, now_us)
                await tx.run(self._journal.write([write]))
        except LeaseLost:
            raise
        except OutcomeUnknown:  # of the commit: the journal knows
            raise
        except Repair:
            raise
        except TryAgain as error:
            wrong = Verdict(words(error), is_unknown=False, is_final=False, retry_after=error.retry_after)
        except (Failed, InvalidInput) as error:
            wrong = Verdict(words(error), is_unknown=False, is_final=True)
        except Escaped as escaped:
            wrong = Verdict(words(escaped.__cause__ or escaped), is_unknown=False, is_final=False)
        except Exception as error:
            wrong = Verdict(words(error), is_unknown=False, is_final=False)
        else:
            active.accept(write, plan)
            self._tell(active)
            return
        finally:
            active.in_transaction = False
            self._measured(work, began)
        await self.journal(active, [failure(step, work, state, wrong, now_us=self.now_us(), rng=env.rng)])

    def _timeout(self, active: Active, work: Work) -> float:
        """Of one attempt; the deadline of the whole cuts an action short, but not the pivot and no undo."""
        step, run = self._definition.steps[work.step], active.run
        if work.undo or run.deadline_us is None or work.step == self._definition.shape.pivot:
            return step.timeout
        pivot = self._definition.shape.pivot
        if pivot is not None and run.steps[pivot].status == "done":
            return step.timeout
        return max(0.001, min(step.timeout, (run.deadline_us - self.now_us()) / 1_000_000))

    def _context(self, active: Active, work: Work, until: float) -> StepContext[Any]:
        name = self._definition.name
        key = f"{name}/{active.id}/{work.step}"
        secret = active.run.steps[work.step].secret
        return StepContext(
            saga=name,
            id=active.id,
            step=work.step,
            input=active.input,
            attempt=work.attempt,
            key=f"{key}/undo" if work.undo else key,
            undone_key=key if work.undo else None,
            token=None if work.undo or secret is None else f"{work.attempt}.{secret}",
            run=active.run,
            until=until,
            clock=self._database.env.clock.monotonic,
        )

    def _result(self, active: Active, work: Work) -> Any:
        result = active.run.steps[work.step].result
        return None if result is None else self._definition.steps[work.step].decode(result)

    def _measured(self, work: Work, began: float) -> None:
        env = self._database.env
        what = f"undo {work.step}" if work.undo else work.step
        env.signals.emit(SAGA_STEP, env.clock.monotonic() - began, saga=self._definition.name, step=what)


async def _call(function: Any, *arguments: object) -> Any:
    return await function(*arguments)  # called in here: a process may be cancelled, or die, before this begins


def _secrets(database: Database) -> Iterator[str]:
    while True:
        yield database.env.ids.new()

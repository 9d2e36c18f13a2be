"""Going on with sagas: make the attempts that are planned, and journal what comes of them.

No task waits for a saga. An attempt is a task of its own, and what came of it is posted to the group commit; both call back
here, and what can be done then is begun. So sagas whose attempts end at the same time share a transaction.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

from faultproof.errors import Failed, FaultproofError, InvalidInput, LeaseLost, OutcomeUnknown, Repair, TryAgain
from faultproof.patterns.saga.active import Active, Attempt
from faultproof.patterns.saga.calling import Verdict, call, entry_of, failure, outcome_of, words
from faultproof.patterns.saga.definition import Definition
from faultproof.patterns.saga.journal import Item, Journal, Write
from faultproof.patterns.saga.machine import Entry, Plan, Work
from faultproof.patterns.saga.planning import DAMAGED, Planner
from faultproof.patterns.saga.steps import Step, StepContext
from faultproof.ports.database import Database
from faultproof.primitives.apart import Escaped, apart
from faultproof.primitives.group_commit import GroupCommit
from faultproof.signals import SAGA_ATTENTION, SAGA_STEP

AGAIN_S = 0.1
"""How soon a write is tried again that found the database busy."""
LOOK_MIN_S = 0.001


class Driver:
    """Goes on with the sagas of one runner, all in one event loop."""

    def __init__(
        self,
        database: Database,
        definition: Definition,
        planner: Planner,
        commit: GroupCommit[Item, Any],
        *,
        settled: Callable[[Active], None],
        failed: Callable[[Active, BaseException], None],
    ) -> None:
        """`settled`: told of each saga that has ended, or waits for others. `failed`: told what the database has raised."""
        self._database = database
        self._clock = database.env.clock
        self._definition = definition
        self._planner = planner
        self._journal = Journal(database, definition.name)
        self._commit = commit
        self._settled = settled
        self._failed = failed
        self._context = contextvars.copy_context()
        self.is_closing = False
        """Nothing new is begun."""

    def open(self) -> None:
        """From now on. Actions run in the context of whoever calls this, not in those of the callers that start sagas."""
        self._context = contextvars.copy_context()
        self.is_closing = False

    def go(self, active: Active) -> None:
        """Begin what can be done now. Whatever ends later comes back here, until the saga has settled or failed."""
        for work in active.work:
            if active.is_over or self.is_closing:
                return
            if work not in active.attempts and work not in active.outcomes and not self._is_local(work):
                self._attempt(active, work)
        if active.is_busy or active.is_over or self.is_closing:
            return
        if active.outcomes:
            self._write(active)
        elif local := next((work for work in active.work if self._is_local(work)), None):
            self._attempt_local(active, local)
        elif active.look_us is not None:
            self._look_later(active, active.look_us)

    def settle(self, active: Active) -> None:
        """It has ended, or waits for others."""
        if active.run.phase == "attention":
            self._database.env.signals.emit(SAGA_ATTENTION, 1, saga=self._definition.name, step=active.run.stuck)
        active.stop()
        self._settled(active)

    # -- journaling -----------------------------------------------------------------------------------------------------

    def _write(self, active: Active) -> None:
        """Journal what has come, and what follows from it, in a transaction shared with other sagas."""
        outcomes, active.outcomes = active.outcomes, {}
        write, plan = self._planner.next(active, list(outcomes.values()))
        if write.entries or write.settles:
            active.is_busy = True
            self._post(active, write, plan)
        else:
            self._written(active, write, plan, None)

    def _post(self, active: Active, write: Write, plan: Plan) -> None:
        try:
            self._commit.post(write, partial(self._written, active, write, plan))
        except FaultproofError as closed:
            self._fail(active, closed)

    def _written(self, active: Active, write: Write, plan: Plan, result: object) -> None:
        if active.is_over:
            return
        if isinstance(result, TryAgain) and self._clock.monotonic() < active.until:
            # What is known now would be lost otherwise.
            self._clock.alarm(AGAIN_S, partial(self._post, active, write, plan), context=self._context)
        elif isinstance(result, BaseException):
            self._fail(active, result)
        else:
            active.is_busy = False
            active.accept(write, plan)
            if write.settles:
                self.settle(active)
            else:
                self.go(active)

    def _fail(self, active: Active, error: BaseException) -> None:
        active.stop()
        self._failed(active, error)

    def _look_later(self, active: Active, look_us: int) -> None:
        if active.look is not None:
            active.look.cancel()
        left = max(LOOK_MIN_S, (look_us - self._planner.now_us()) / 1_000_000)
        active.look = self._clock.alarm(left, partial(self._look, active), context=self._context)

    def _look(self, active: Active) -> None:
        if not (active.is_over or active.is_busy or self.is_closing):  # if it is busy, that brings it here
            self._write(active)

    # -- attempts -------------------------------------------------------------------------------------------------------

    def _is_local(self, work: Work) -> bool:
        return self._definition.steps[work.step].kind == "local"

    def _attempt(self, active: Active, work: Work) -> None:
        """Of a remote or asynchronous step, or of its undo."""
        step = self._definition.steps[work.step]
        began = self._clock.monotonic()
        if began >= active.until:  # this loop was blocked for so long that somebody else may be at it
            self._fail(active, LeaseLost(f"the lease on saga {active.id!r} has run out: whoever takes it goes on"))
            return
        attempt = Attempt(work, began=began, timeout=self._timeout(active, work))
        context = self._step_context(active, work, began + attempt.timeout)
        function = step.undo if work.undo else step.action
        assert function is not None
        try:
            arguments = (context, _result(active, step)) if work.undo else (context,)
        except DAMAGED as error:
            unread = Verdict(f"its result cannot be read any more: {words(error)}", is_unknown=False, is_final=True)
            self._failed_attempt(active, work, unread)
            return
        attempt.task = asyncio.get_running_loop().create_task(call(function, *arguments), context=self._context.copy())
        attempt.alarm = self._clock.alarm(attempt.timeout, attempt.expire, context=self._context)
        active.attempts[work] = attempt
        attempt.task.add_done_callback(partial(self._attempted, active, attempt), context=self._context)

    def _attempted(self, active: Active, attempt: Attempt, task: asyncio.Task[Any]) -> None:
        attempt.alarm.cancel()
        work = attempt.work
        del active.attempts[work]
        returned, wrong = outcome_of(task, timeout=attempt.timeout, expired=attempt.expired)
        if active.is_over:
            return
        self._measured(work, attempt.began)
        step, state = self._definition.steps[work.step], active.run.steps[work.step]
        now_us, rng = self._planner.now_us(), self._database.env.rng
        active.outcomes[work] = entry_of(step, work, state, returned, wrong, now_us=now_us, rng=rng)
        if not active.is_busy:
            self._write(active)

    def _attempt_local(self, active: Active, work: Work) -> None:
        """Of a local step, or of its undo."""
        active.is_busy = active.in_transaction = True
        began = self._clock.monotonic()
        attempt = Attempt(work, began=began, timeout=self._timeout(active, work))
        attempt.task = asyncio.get_running_loop().create_task(
            self._perform_local(active, attempt), context=self._context.copy()
        )
        active.attempts[work] = attempt
        attempt.task.add_done_callback(partial(self._attempted_locally, active, attempt), context=self._context)

    async def _perform_local(self, active: Active, attempt: Attempt) -> tuple[Write, Plan]:
        """What it writes commits with the journal's entries, or not at all."""
        work, step = attempt.work, self._definition.steps[attempt.work.step]
        async with self._database.transaction(timeout=attempt.timeout) as tx:
            await tx.run(self._journal.guard([active.claim]))
            context = self._step_context(active, work, attempt.began + attempt.timeout)
            if work.undo:
                assert step.undo is not None
                await apart(call(step.undo, context, _result(active, step), tx))
                entry = Entry(step.name, "undone", work.attempt)
            else:
                returned = await apart(call(step.action, context, tx))
                entry = Entry(step.name, "done", work.attempt, step.encode(returned))
            write, plan = self._planner.next(active, [entry])
            await tx.run(self._journal.write([write]))
        return write, plan

    def _attempted_locally(self, active: Active, attempt: Attempt, task: asyncio.Task[tuple[Write, Plan]]) -> None:
        active.attempts.pop(attempt.work, None)
        active.in_transaction = False
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if active.is_over:
            return
        self._measured(attempt.work, attempt.began)
        if error is None:
            self._written(active, *task.result(), None)
        elif (wrong := _verdict(error)) is None:
            self._fail(active, error)
        else:
            active.is_busy = False
            self._failed_attempt(active, attempt.work, wrong)

    def _failed_attempt(self, active: Active, work: Work, wrong: Verdict) -> None:
        step, state = self._definition.steps[work.step], active.run.steps[work.step]
        now_us, rng = self._planner.now_us(), self._database.env.rng
        active.outcomes[work] = failure(step, work, state, wrong, now_us=now_us, rng=rng)
        if not active.is_busy:
            self._write(active)

    def _timeout(self, active: Active, work: Work) -> float:
        """Of one attempt; the deadline of the whole cuts an action short, but not the pivot and no undo."""
        step, run = self._definition.steps[work.step], active.run
        if work.undo or run.deadline_us is None or work.step == self._definition.shape.pivot:
            return step.timeout
        pivot = self._definition.shape.pivot
        if pivot is not None and run.steps[pivot].status == "done":
            return step.timeout
        return max(0.001, min(step.timeout, (run.deadline_us - self._planner.now_us()) / 1_000_000))

    def _step_context(self, active: Active, work: Work, until: float) -> StepContext[Any]:
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
            clock=self._clock.monotonic,
        )

    def _measured(self, work: Work, began: float) -> None:
        env = self._database.env
        what = f"undo {work.step}" if work.undo else work.step
        env.signals.emit(SAGA_STEP, self._clock.monotonic() - began, saga=self._definition.name, step=what)


def _result(active: Active, step: Step[Any, Any]) -> Any:
    result = active.run.steps[step.name].result
    return None if result is None else step.decode(result)


def _verdict(error: BaseException) -> Verdict | None:
    """How a local attempt went wrong. None for what is about the database: the journal knows whether it was committed."""
    if isinstance(error, (LeaseLost, OutcomeUnknown, Repair)):
        return None
    if isinstance(error, TryAgain):
        return Verdict(words(error), is_unknown=False, is_final=False, retry_after=error.retry_after)
    if isinstance(error, Escaped):
        return Verdict(words(error.__cause__ or error), is_unknown=False, is_final=False)
    return Verdict(words(error), is_unknown=False, is_final=isinstance(error, (Failed, InvalidInput)))

"""The saga's planted bugs: what a runner looks like that somebody simplified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faultproof.patterns.saga import sql as tables
from faultproof.patterns.saga.active import Active, Attempt
from faultproof.patterns.saga.driver import Driver
from faultproof.patterns.saga.journal import Journal, Write
from faultproof.patterns.saga.machine import Entry, Plan, Run, Work
from faultproof.patterns.saga.planning import Planner
from faultproof.patterns.saga.steps import StepContext
from faultproof.ports.claims import Claim
from faultproof.ports.script import Script


class _JournalsLate(Planner):
    """The intent to act is journaled with the outcome: two lines in one write."""

    def write_of(self, active: Active, entries: Sequence[Entry], plan: Plan, now_us: int) -> Write:
        write = super().write_of(active, entries, plan, now_us)
        held: list[Entry] = getattr(self, "_held", {}).pop(active.id, [])
        late = [entry for entry in entries if entry.what == "began"]
        self.__dict__.setdefault("_held", {})[active.id] = late
        return write._replace(entries=[*held, *(entry for entry in entries if entry.what != "began")])


class _ForgetsUnknown(Planner):
    """No answer is taken for "it did not happen"."""

    def planned(self, run: Run, entries: Sequence[Entry], now_us: int) -> tuple[Plan, list[Entry]]:
        known = [e._replace(what="failed") if e.what in ("unknown", "interrupted") else e for e in entries]
        return super().planned(run, known, now_us)


class _UndoesForward(Planner):
    """Undos begin all at once, whatever depends on what."""

    def planned(self, run: Run, entries: Sequence[Entry], now_us: int) -> tuple[Plan, list[Entry]]:
        plan, made = super().planned(run, entries, now_us)
        if plan.run.phase == "compensating" and any(work.step == "reserve" for work in plan.work):
            state = plan.run.steps["charge"]
            if state.status in ("done", "uncertain"):
                began = Entry("charge", "undo_began", 1)
                steps = {**plan.run.steps, "charge": state._replace(status="undoing", attempt=1)}
                work = [Work("charge", 1, True), *plan.work]
                return plan._replace(run=plan.run._replace(steps=steps), work=work), [*made, began]
        return plan, made


class _NewKeys(Driver):
    """Each attempt has a key of its own."""

    def _step_context(self, active: Active, work: Work, until: float) -> StepContext[Any]:
        context = super()._step_context(active, work, until)
        if not work.undo:
            context.key += f"/{work.attempt}"
        return context


class _SplitsLocal(Driver):
    """A local step commits apart from its entry in the journal."""

    async def _perform_local(self, active: Active, attempt: Attempt) -> tuple[Write, Plan]:
        work, step = attempt.work, self._definition.steps[attempt.work.step]
        async with self._database.transaction() as tx:
            context = self._step_context(active, work, active.until)
            await (step.undo(context, None, tx) if work.undo and step.undo else step.action(context, tx))
        entry = Entry(work.step, "undone" if work.undo else "done", work.attempt, "null")
        write, plan = self._planner.next(active, [entry])
        async with self._database.transaction() as tx:
            await tx.run(self._journal.guard([active.claim]))
            await tx.run(self._journal.write([write]))
        return write, plan


class Unfenced(Journal):
    """Neither the claim's token nor the journal's numbers are checked; each alone would do."""

    def guard(self, claims: Sequence[Claim]) -> Script[None]:
        yield from ()

    def write(self, writes: Sequence[Write]) -> Script[None]:
        for write in writes:
            row = yield from tables.standing(self._saga, write.id)
            claims = yield from self._claims.holders(self._kind)
            latest = next((Claim(h.id, h.token, h.attempts) for h in claims if h.id == write.id), None)
            renumbered = write._replace(seq=row.seq if row else 0, claim=latest or write.claim)
            yield from super().write([renumbered])


DRIVERS: dict[str | None, type[Driver]] = {"new keys": _NewKeys, "split local": _SplitsLocal}
PLANNERS: dict[str | None, type[Planner]] = {
    "journals late": _JournalsLate,
    "forgets the unknown": _ForgetsUnknown,
    "undoes all at once": _UndoesForward,
}

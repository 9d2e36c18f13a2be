"""The decisions of a saga: pure functions of its shape, its journal so far, and the time by the engine's clock.

`evolve` folds one entry of the journal into a `Run`; `plan` says what follows from where it stands: entries that are to be
journaled, the work that may begin once they are, and when to look again. Whoever calls them does the rest.

A step goes `idle -> begun -> done`, over `waiting` (for another attempt) or `pending` (for a callback), or ends `failed`.
When the saga turns, what may have happened becomes `uncertain` and is undone as well as what is `done`:
`undoing -> undone`, over `undo_waiting`, or ends `undo_failed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from faultproof.patterns.saga.shape import Shape, StepShape

Phase = Literal["running", "compensating", "attention", "completed", "compensated"]
Status = Literal[
    "idle",
    "begun",
    "pending",
    "waiting",
    "done",
    "failed",
    "uncertain",
    "undoing",
    "undo_waiting",
    "undo_failed",
    "undone",
]
What = Literal[
    "began",
    "pending",
    "done",
    "failed",
    "unknown",
    "interrupted",
    "undo_began",
    "undone",
    "undo_failed",
    "undo_interrupted",
    "turned",
    "attention",
    "completed",
    "compensated",
    "retried",
    "skipped",
    "resumed",
]

OVER: frozenset[Phase] = frozenset({"completed", "compensated"})
"""In these a saga has ended for good."""
INTERRUPTIONS_MAX = 20
"""After so many processes died in the middle of one step, it counts as failed: it may be what kills them."""
KNOWN: frozenset[str] = frozenset(get_args(What))
"""What this release can go on from. Anything else was journaled by another one, or by hand."""
_TO_UNDO: frozenset[Status] = frozenset({"done", "uncertain", "undoing", "undo_waiting", "undo_failed"})


class Entry(NamedTuple):
    """One line of the journal. `step` is "" for what concerns the whole saga."""

    step: str
    what: What
    attempt: int = 0
    data: str | None = None
    """By `what`: the result (JSON), the error, the reason, or the secret part of a callback's token."""
    due_us: int | None = None
    """Of a failure: when the next attempt may begin, None if there is none. Of `pending`: until when the answer counts."""


class StepState(NamedTuple):
    """Where one step stands."""

    status: Status = "idle"
    attempt: int = 0
    """The last one begun, of the action or, once that has begun, of the undo."""
    tries: int = 0
    """Failures that count against the policy, since the first attempt or since a person asked for more."""
    interruptions: int = 0
    maybe: bool = False
    """An attempt has ended with nobody knowing whether it happened."""
    result: str | None = None
    secret: str | None = None
    due_us: int | None = None
    error: str | None = None


class Run(NamedTuple):
    """Where a saga stands."""

    phase: Phase
    steps: dict[str, StepState]
    deadline_us: int | None
    reason: str | None = None
    """Why it turned, or wants attention."""
    before: Phase = "running"
    """In attention: where it goes on."""
    stuck: str = ""
    """In attention: the step that could not."""
    turned: str | None = None
    """Why it turned, whatever came after."""

    @property
    def is_over(self) -> bool:
        """Nothing follows by itself any more."""
        return self.phase in ("completed", "compensated", "attention")


class Work(NamedTuple):
    """An attempt that has been journaled, and may be made."""

    step: str
    attempt: int
    undo: bool


class Plan(NamedTuple):
    """What follows from where a saga stands."""

    run: Run
    """As it will be once the entries are journaled."""
    entries: list[Entry]
    work: list[Work]
    """Attempts under way, those that `entries` begin included."""
    look_us: int | None
    """When time alone changes something, if nothing else does before."""


def begin(shape: Shape, deadline_us: int | None) -> Run:
    """A saga that has been started, and of which nothing is journaled yet."""
    return Run("running", dict.fromkeys(shape.steps, StepState()), deadline_us)


def evolve(shape: Shape, run: Run, entry: Entry) -> Run:
    """The run after one more entry."""
    if entry.step:
        return _evolve_step(shape, run, entry)
    match entry.what:
        case "turned":
            steps = {name: _turned(shape.steps[name], state) for name, state in run.steps.items()}
            return run._replace(phase="compensating", steps=steps, reason=entry.data, turned=entry.data)
        case "attention":
            return run._replace(phase="attention", before=run.phase, stuck="", reason=entry.data)
        case "resumed":
            return run._replace(phase=run.before, reason=run.turned)
        case "completed":
            return run._replace(
                phase="completed", reason=entry.data or run.reason
            )  # a person's, who has ended it by hand
        case "compensated":
            return run._replace(phase="compensated", reason=entry.data or run.reason)
        case _:
            return run


def _evolve_step(shape: Shape, run: Run, entry: Entry) -> Run:
    if entry.step not in run.steps:  # a step of an older version: the journal keeps it, nothing follows from it
        return run
    state = run.steps[entry.step]
    match entry.what:
        case "began":
            state = StepState(
                "begun",
                entry.attempt,
                state.tries,
                state.interruptions,
                state.maybe,
                None,
                entry.data,
                None,
                state.error,
            )
        case "pending":
            state = state._replace(status="pending", due_us=entry.due_us)
        case "done":
            state = StepState(
                "done", state.attempt, state.tries, state.interruptions, state.maybe, entry.data, state.secret
            )
        case "failed" | "unknown":
            state = state._replace(
                status="failed" if entry.due_us is None else "waiting",
                tries=state.tries + 1,
                maybe=state.maybe or entry.what == "unknown",
                due_us=entry.due_us,
                error=entry.data,
            )
        case "interrupted":
            given_up = state.interruptions >= INTERRUPTIONS_MAX
            state = state._replace(
                status="failed" if given_up else "waiting",
                interruptions=state.interruptions + 1,
                maybe=state.maybe or shape.steps[entry.step].kind != "local",
                due_us=entry.due_us,
                error=entry.data,
            )
        case "undo_began":
            fresh = state.status not in ("undo_waiting", "undo_failed")
            state = state._replace(
                status="undoing",
                attempt=entry.attempt,
                tries=0 if fresh else state.tries,
                interruptions=0 if fresh else state.interruptions,
                due_us=None,
            )
        case "undone":
            state = state._replace(status="undone", due_us=None, error=None)
        case "undo_failed":
            status: Status = "undo_failed" if entry.due_us is None else "undo_waiting"
            state = state._replace(status=status, tries=state.tries + 1, due_us=entry.due_us, error=entry.data)
        case "undo_interrupted":
            given_up = state.interruptions >= INTERRUPTIONS_MAX
            state = state._replace(
                status="undo_failed" if given_up else "undo_waiting",
                interruptions=state.interruptions + 1,
                due_us=entry.due_us,
                error=entry.data,
            )
        case "attention":
            return run._replace(phase="attention", before=run.phase, stuck=entry.step, reason=entry.data)
        case "retried":
            waiting: Status = "waiting" if run.before == "running" else "undo_waiting"
            state = state._replace(status=waiting, tries=0, interruptions=0, due_us=entry.due_us)
            run = run._replace(phase=run.before, reason=run.turned)
        case "skipped":
            if run.before == "running":
                state = state._replace(status="done", result=entry.data or "null", due_us=None)
            else:
                state = state._replace(status="undone", due_us=None)
            run = run._replace(phase=run.before, reason=run.turned)
        case _:
            return run
    return run._replace(steps={**run.steps, entry.step: state})


def _turned(step: StepShape, state: StepState) -> StepState:
    """A step when the saga turns: what may have happened is to be undone."""
    if state.status == "done":
        return state._replace(tries=0, interruptions=0)
    under_way = state.status == "pending" or (state.status == "begun" and step.kind != "local")
    status: Status = "uncertain" if state.maybe or under_way else "idle"
    return state._replace(status=status, tries=0, interruptions=0, due_us=None)


class _Planner:
    """Collects entries, each folded in at once, so that the next decision is made on it."""

    def __init__(self, shape: Shape, run: Run, secret: Iterator[str]) -> None:
        self.shape = shape
        self.run = run
        self.secret = secret
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.run = evolve(self.shape, self.run, entry)

    def plan(self, work: list[Work], look_us: int | None) -> Plan:
        return Plan(self.run, self.entries, work, look_us)


def plan(shape: Shape, run: Run, now_us: int, secret: Iterator[str]) -> Plan:
    """What follows. `secret`: for the tokens of asynchronous steps, none of which can be guessed."""
    planner = _Planner(shape, run, secret)
    if run.phase == "running":
        forward = _forward(planner, now_us)
        if forward is not None:
            return forward
    if planner.run.phase == "compensating":
        return _back(planner, now_us)
    return planner.plan([], None)


def _forward(planner: _Planner, now_us: int) -> Plan | None:
    """The next stage; None once the saga has turned."""
    shape, run = planner.shape, planner.run
    stage = _next_stage(shape, run)
    if stage is None:
        planner.add(Entry("", "completed"))
        return planner.plan([], None)
    states = [(step, run.steps[step.name]) for step in stage]
    failed = next(((step, state) for step, state in states if state.status == "failed"), None)
    late = run.deadline_us is not None and now_us >= run.deadline_us and _is_before_pivot(shape, run)
    if late and all(state.status != "begun" for _, state in states):  # or it turns when those under way have ended
        planner.add(Entry("", "turned", data="the deadline of the whole has passed"))
        return None
    work: list[Work] = []
    for step, state in states:
        is_due = state.status == "idle" or (state.status == "waiting" and (state.due_us or 0) <= now_us)
        if is_due and failed is None and not late:
            secret = next(planner.secret) if step.kind == "asynchronous" else None
            planner.add(Entry(step.name, "began", state.attempt + 1, secret))
            work.append(Work(step.name, state.attempt + 1, False))
        elif state.status == "begun":
            work.append(Work(step.name, state.attempt, False))
    # Those beside a failed one have their timeouts: with their results more is known when they are undone.
    if failed is not None and not work:
        step, state = failed
        if _may_turn(shape, run):
            planner.add(Entry("", "turned", data=f"{step.name}: {state.error}"))
            return None
        unsure = "nobody knows whether it happened: " if state.maybe else ""
        planner.add(Entry(step.name, "attention", data=f"{unsure}{state.error}"))
        return planner.plan([], None)
    if failed is not None or late:  # only their ends bring it on
        return planner.plan(work, None)
    dues = [due for name in shape.steps if (due := planner.run.steps[name].due_us) is not None]
    if run.deadline_us is not None and _is_before_pivot(shape, planner.run):
        dues.append(run.deadline_us)
    return planner.plan(work, min(dues, default=None))


def _next_stage(shape: Shape, run: Run) -> tuple[StepShape, ...] | None:
    """The first of which something is to be done yet."""
    for stage in shape.stages:
        for step in stage:
            if run.steps[step.name].status != "done":
                return stage
    return None


def _back(planner: _Planner, now_us: int) -> Plan:
    """The last stage of which something is to be undone."""
    for stage in reversed(planner.shape.stages):
        steps = [step for step in stage if step.undo and planner.run.steps[step.name].status in _TO_UNDO]
        if not steps:
            continue
        for step in steps:
            state = planner.run.steps[step.name]
            due = state.status == "undo_waiting" and (state.due_us or 0) <= now_us
            if due or state.status in ("done", "uncertain"):
                attempt = state.attempt + 1 if state.status == "undo_waiting" else 1
                planner.add(Entry(step.name, "undo_began", attempt))
        states = [(step.name, planner.run.steps[step.name]) for step in steps]
        work = [Work(name, state.attempt, True) for name, state in states if state.status == "undoing"]
        waits = [state.due_us for _, state in states if state.status == "undo_waiting" and state.due_us is not None]
        if not work and not waits:
            name, state = next((name, state) for name, state in states if state.status == "undo_failed")
            planner.add(Entry(name, "attention", data=state.error))
            return planner.plan([], None)
        return planner.plan(work, min(waits, default=None))
    planner.add(Entry("", "compensated"))
    return planner.plan([], None)


def _may_turn(shape: Shape, run: Run) -> bool:
    """Whether everything that happened, or may have, can still be undone."""
    if shape.pivot is None:
        return True
    pivot = run.steps[shape.pivot]
    return pivot.status != "done" and (not pivot.maybe or shape.steps[shape.pivot].undoable)


def _is_before_pivot(shape: Shape, run: Run) -> bool:
    """Whether the pivot certainly has not happened: until then the deadline counts."""
    if shape.pivot is None:
        return True
    pivot = run.steps[shape.pivot]
    return pivot.status in ("idle", "waiting", "failed") and not pivot.maybe


def interruption(state: StepState, now_us: int) -> What | None:
    """What to journal of a step that a process which is gone had under way: nobody knows how far it came."""
    return {"begun": "interrupted", "undoing": "undo_interrupted"}.get(state.status)  # type: ignore[return-value]

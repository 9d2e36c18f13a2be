"""The saga's proof: orders that are charged, reserved and shipped, or undone, while their runner crashes and freezes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec

from faultproof.errors import Failed, OutcomeUnknown, TryAgain
from faultproof.patterns.saga import sql as tables
from faultproof.patterns.saga.active import Active, Attempt
from faultproof.patterns.saga.driver import Driver
from faultproof.patterns.saga.journal import Journal, Write
from faultproof.patterns.saga.machine import Entry, Plan, Run, Work
from faultproof.patterns.saga.planning import Planner
from faultproof.patterns.saga.proof_callbacks import CALLBACKS
from faultproof.patterns.saga.proof_decisions import DECISIONS
from faultproof.patterns.saga.runner import Runner
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Step, StepContext, StepRetry
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import Script, sql
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import Plant, Proof
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.world import World

__all__ = ["CALLBACKS", "DECISIONS", "SAGA"]

T = TypeVar("T")

TTL_S = 0.5
DEADLINE_S = 0.3
"""Shorter than a lease: a saga with it that loses its runner finds it passed."""
RETRY = StepRetry(attempts=2, base=0.05, cap=0.1)
LOSES_ANSWERS, REFUSED, HURRIED = "loses answers", "refused", "hurried"
ORDERS = {"o1": LOSES_ANSWERS, "o2": REFUSED, "o3": HURRIED}
"""The last one is carried through if nothing disturbs it, and undone if it loses its runner before the pivot."""
HELD = "o1"
"""Started by the runner's own process; the others by a client."""


class Order(msgspec.Struct, frozen=True):
    """What a saga is started with; `kind` is what its providers do to it."""

    id: str
    kind: str


@sql("INSERT INTO reserved (order_id) VALUES (:order)")
def _insert(order: str) -> None: ...


class _Provider:
    """The other side: its record is its own, it remembers keys, and sometimes it does its work and loses the answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.charges: dict[str, str] = {}
        """Key -> order."""
        self.refunded: set[str] = set()
        self.shipped: list[str] = []
        self.events: list[tuple[str, str]] = []
        """(order, what), as they took effect anywhere."""

    async def call(self, process: Process, what: str, order: Order, work: Callable[[], T]) -> T:
        """A request that arrives, and is answered; its sender may die or freeze before and after."""

        def arrives() -> T:
            process.note("provider", what, order.id)
            return work()

        result: T = await self._world.operate(process, object(), f"{what} {order.id}", arrives)
        return result

    def charge(self, order: Order, key: str) -> str:
        if key in self.refunded:
            raise Failed("refunded before it arrived")
        if key not in self.charges:
            self.charges[key] = order.id
            self.events.append((order.id, "charge"))
        if order.kind == LOSES_ANSWERS:
            raise OutcomeUnknown("the answer is lost")
        return key

    def refund(self, order: Order, key: str) -> None:
        if key not in self.refunded:
            self.refunded.add(key)
            self.events.append((order.id, "refund"))

    def ship(self, order: Order) -> None:
        if order.kind == REFUSED:
            raise Failed("nobody ships there")
        if order.id not in self.shipped:
            self.shipped.append(order.id)
            self.events.append((order.id, "ship"))

    def notify(self, order: Order, attempt: int) -> None:
        if attempt == 1:
            raise TryAgain("not now")


_AT: ContextVar[tuple[_Provider, Process]] = ContextVar("at")
"""The provider, and the process that calls it: what an HTTP client would know."""


async def _call(what: str, order: Order, work: Callable[[_Provider], T]) -> T:
    provider, process = _AT.get()
    return await provider.call(process, what, order, lambda: work(provider))


async def _charge(context: StepContext[Order]) -> str:
    return await _call("charge", context.input, lambda p: p.charge(context.input, context.key))


async def _refund(context: StepContext[Order], key: str | None) -> None:
    await _call("refund", context.input, lambda p: p.refund(context.input, context.undone_key or ""))


async def _reserve(context: StepContext[Order], tx: Transaction) -> None:
    await tx.run(_insert(context.input.id))


async def _release(context: StepContext[Order], result: None, tx: Transaction) -> None:
    await tx.execute("DELETE FROM reserved WHERE order_id = ?", context.input.id)


async def _label(context: StepContext[Order]) -> None:
    await _call("label", context.input, lambda p: p.events.append((context.id, "label")))


async def _pack(context: StepContext[Order]) -> None:
    await _call("pack", context.input, lambda p: p.events.append((context.id, "pack")))


async def _ship(context: StepContext[Order]) -> None:
    await _call("ship", context.input, lambda p: p.ship(context.input))


async def _notify(context: StepContext[Order]) -> None:
    await _call("notify", context.input, lambda p: p.notify(context.input, context.attempt))


_PIVOT = Step.remote(_ship, name="ship", retry=RETRY, undo=NOTHING_TO_UNDO)
_STEPS: list[Step[Any, Any] | list[Step[Any, Any]]] = [
    Step.remote(_charge, name="charge", undo=_refund, retry=RETRY, undo_retry=RETRY),
    Step.local(_reserve, name="reserve", undo=_release, retry=RETRY, undo_retry=RETRY),
    [
        Step.remote(_label, name="label", retry=RETRY, undo=NOTHING_TO_UNDO),
        Step.remote(_pack, name="pack", retry=RETRY, undo=NOTHING_TO_UNDO),
    ],
    _PIVOT,
    Step.remote(_notify, name="notify", retry=StepRetry(attempts=3, base=0.05, cap=0.1), undo=NOTHING_TO_UNDO),
]


def _saga(database: Database, plant: str | None = None) -> Saga[Order]:
    """The order's saga."""
    pivot = None if plant == "compensates after the pivot" else _PIVOT
    return Saga(database, "order", input=Order, steps=_STEPS, pivot=pivot)


async def _prepare(database: Database) -> None:
    await _saga(database).install()
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE reserved (n INTEGER PRIMARY KEY, order_id TEXT NOT NULL)")


class _Run:
    """One run: a client starts the sagas, or the runner's process itself; the runner carries them through."""

    def __init__(self, world: World, plant: str | None) -> None:
        self._world = world
        self._plant = plant
        self._provider = _Provider(world)
        self._started: set[str] = set()
        world.spawn("client", self._client)
        world.spawn("runner", self._runner)

    async def _client(self, process: Process) -> None:
        saga = _saga(process.database(), self._plant)
        orders = [Order(id, kind) for id, kind in ORDERS.items() if id != HELD]
        await asyncio.gather(*(self._start(process, saga, order) for order in orders))

    async def _start(self, process: Process, saga: Saga[Order], order: Order) -> None:
        await saga.start(order.id, order, deadline=DEADLINE_S if order.kind == HURRIED else None)
        process.note("started", order.id)
        self._started.add(order.id)

    async def _runner(self, process: Process) -> None:
        _AT.set((self._provider, process))
        saga = _saga(process.database(), self._plant)
        runner = saga.runner(ttl=TTL_S)
        runner._driver.__class__ = _DRIVERS.get(self._plant, Driver)
        runner._planner.__class__ = _PLANNERS.get(self._plant, Planner)
        if self._plant == "dropped fence":
            for each in (saga._journal, runner._driver._journal):
                each.__class__ = _Unfenced
        await asyncio.gather(Worker(process.env, runner).run(), self._start_held(process, saga, runner))

    async def _start_held(self, process: Process, saga: Saga[Order], runner: Runner) -> None:
        """By the process that goes on with it, which holds it from the first."""
        while not runner.has_room:
            await process.env.clock.sleep(0.01)
        await self._start(process, saga, Order(HELD, ORDERS[HELD]))

    def done(self) -> bool:
        if len(self._started) < len(ORDERS):
            return False
        over = self._world.store.fetch(
            "SELECT count(*) FROM faultproof_saga WHERE ended_us IS NOT NULL OR state = 'attention'"
        )
        return over == [(len(ORDERS),)]

    def violations(self) -> list[str]:
        fetch, provider = self._world.store.fetch, self._provider
        wrong = [f"{name} died of {error!r}" for name, error in self._world.deaths]
        reserved = Counter(order for (order,) in fetch("SELECT order_id FROM reserved"))
        charged = Counter(provider.charges.values())
        paid = Counter(order for key, order in provider.charges.items() if key not in provider.refunded)
        for id, state, reason in fetch("SELECT id, state, reason FROM faultproof_saga"):
            if charged[id] > 1:
                wrong.append(f"{id} was charged {charged[id]} times")
            shipped = id in provider.shipped
            if state == "completed" and (paid[id], reserved[id], shipped) != (1, 1, True):
                wrong.append(f"{id} is completed: paid {paid[id]}, reserved {reserved[id]}, shipped {shipped}")
            elif state == "compensated" and (paid[id], reserved[id], shipped) != (0, 0, False):
                wrong.append(f"{id} is compensated: paid {paid[id]}, reserved {reserved[id]}, shipped {shipped}")
            elif state not in ("completed", "compensated"):
                wrong.append(f"{id} is {state}: {reason}")
        return wrong + self._disordered() + self._unjournaled()

    def _disordered(self) -> list[str]:
        """What was done last is undone first."""
        entries = self._world.store.fetch("SELECT id, step, what, seq FROM faultproof_saga_entry ORDER BY id, seq")
        undone: dict[tuple[str, str], int] = {}
        for id, step, what, seq in entries:
            if what in ("undo_began", "undone"):
                undone[id, f"{step} {what}"] = seq
        return [
            f"the charge of {id} was undone before its reservation"
            for id in ORDERS
            if undone.get((id, "reserve undone"), 0) > undone.get((id, "charge undo_began"), 1_000_000)
        ]

    def _unjournaled(self) -> list[str]:
        """Whatever took effect, or was undone, had been announced in the journal."""
        began = set(self._world.store.fetch("SELECT id, step FROM faultproof_saga_entry WHERE what = 'began'"))
        steps = {"charge": "charge", "refund": "charge", "ship": "ship"}
        return [
            f"{what} of {order}, and the journal has no word of it"
            for order, what in self._provider.events
            if what in steps and (order, steps[what]) not in began
        ]


# -- planted bugs: what a runner looks like that somebody simplified --------------------------------------------------


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


class _Unfenced(Journal):
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


_DRIVERS: dict[str | None, type[Driver]] = {"new keys": _NewKeys, "split local": _SplitsLocal}
_PLANNERS: dict[str | None, type[Planner]] = {
    "journals late": _JournalsLate,
    "forgets the unknown": _ForgetsUnknown,
    "undoes all at once": _UndoesForward,
}


SAGA = Proof(
    name="faultproof.patterns.saga.proof:SAGA",
    claim=(
        "Every saga that was started ends with all of its steps done, or with everything undone that happened or may have; "
        "the provider's record and the local rows agree with its state; nobody is charged twice, undos run in reverse order, "
        "for nothing that was not begun, and never after the pivot."
    ),
    faults=(
        "a process dies before or after any commit, request or answer, and is started again",
        "a process is frozen there for longer than its lease, replaced, and wakes up",
        "a provider does its work and loses the answer, refuses, or asks to be called later",
        "wake-ups are late or lost (in random runs)",
    ),
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "a provider gives a repeated key its first answer, and refuses a key whose undo has come before it",
        "undos succeed before their attempts are used up",
    ),
    not_tested=(
        "two writers at the same time, and two snapshots: simulated SQLite has one of each",
        "power loss: a killed process does not test what the disk keeps",
        "clocks that jump: in simulation all processes share one",
    ),
    prepare=_prepare,
    start=_Run,
    plants=(
        Plant(
            name="journals late", breaks="the intent is journaled after the action: a crash between leaves it undone"
        ),
        Plant(name="new keys", breaks="a repeated attempt has another key: the provider does the work twice"),
        Plant(name="split local", breaks="a local step and its entry commit apart: a crash between repeats the step"),
        Plant(name="forgets the unknown", breaks="what may have happened is not undone"),
        Plant(name="dropped fence", breaks="a frozen runner that wakes up repeats what its successor has done"),
        Plant(name="compensates after the pivot", breaks="a deadline undoes an order that has been shipped"),
        Plant(name="undoes all at once", breaks="an undo runs before those of the steps behind it"),
    ),
)

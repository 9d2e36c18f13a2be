"""The saga's proof: orders that are charged, reserved and shipped, or undone, while their runner crashes and freezes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec

from faultproof.errors import Failed, OutcomeUnknown, TryAgain
from faultproof.patterns.saga.driver import Driver
from faultproof.patterns.saga.planning import Planner
from faultproof.patterns.saga.proof_answers import ANSWERS
from faultproof.patterns.saga.proof_callbacks import CALLBACKS
from faultproof.patterns.saga.proof_decisions import DECISIONS
from faultproof.patterns.saga.proof_journals import misdated, misnumbered
from faultproof.patterns.saga.proof_planted import DRIVERS, PLANNERS, Unfenced
from faultproof.patterns.saga.proof_starts import STARTS
from faultproof.patterns.saga.proof_survivors import SURVIVORS
from faultproof.patterns.saga.runner import Runner
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Step, StepContext, StepRetry
from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import sql
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

__all__ = ["ANSWERS", "CALLBACKS", "DECISIONS", "SAGA", "STARTS"]

T = TypeVar("T")

TTL_S = 0.5
DEADLINE_S = 0.3
"""Shorter than a lease: a saga with it that loses its runner finds it passed."""
RETRY = StepRetry(attempts=2, base=0.05, cap=0.1)
PATIENT = StepRetry(attempts=6, base=0.05, cap=0.1)
"""Where the claim assumes that an action or an undo succeeds before its attempts are used up: more than the network loses."""
LOSES_ANSWERS, REFUSED, HURRIED = "loses answers", "refused", "hurried"
ORDERS = {"o1": LOSES_ANSWERS, "o2": REFUSED, "o3": HURRIED}
"""The last one is carried through if nothing disturbs it, and undone if it loses its runner before the pivot."""
HELD, SECOND_S = "o1", 0.1
"""Started by the runner's own process, which has taken up no other by then; the others by a client."""


class Order(msgspec.Struct, frozen=True):
    """What a saga is started with; `kind` is what its providers do to it."""

    id: str
    kind: str


# Not idempotent, and the undo neither: the pattern promises that each takes effect once.
@sql("INSERT INTO reserved (order_id, units) VALUES (:order, :units)")
def _insert(order: str, units: int) -> None: ...


class _Provider:
    """The other side: its record is its own, it remembers keys, and sometimes it does its work and loses the answer."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.charges: dict[str, str] = record.setdefault("charges", {})
        """Key -> order."""
        self.refunded: list[str] = record.setdefault("refunded", [])
        """Keys."""
        self.shipped: list[str] = record.setdefault("shipped", [])
        self.events: list[list[str]] = record.setdefault("events", [])
        """[order, what], as they took effect anywhere."""
        self.callers: dict[str, list[str]] = record.setdefault("callers", {})
        """Attempt -> processes that have made it."""

    def charge(self, order: Order, key: str) -> str:
        if key in self.refunded:
            raise Failed("refunded before it arrived")
        if key not in self.charges:
            self.charges[key] = order.id
            self.events.append([order.id, "charge"])
        if order.kind == LOSES_ANSWERS:
            raise OutcomeUnknown("the answer is lost")
        return key

    def refund(self, order: Order, key: str) -> None:
        if key not in self.refunded:
            self.refunded.append(key)
            self.events.append([order.id, "refund"])

    def ship(self, order: Order) -> None:
        if order.kind == REFUSED:
            raise Failed("nobody ships there")
        if order.id not in self.shipped:
            self.shipped.append(order.id)
            self.events.append([order.id, "ship"])

    def notify(self, order: Order, attempt: int) -> None:
        if attempt == 1:
            raise TryAgain("not now")


_CALLER: ContextVar[Process] = ContextVar("caller")
"""The process that calls: what an HTTP client would know."""


async def _call(what: str, context: StepContext[Order], work: Callable[[_Provider], T]) -> T:
    """A request to the provider. What it refuses it answers with: an error would undo what it has recorded."""
    caller, name = _CALLER.get(), f"{what} {context.id}"

    def arrives(record: dict[str, Any]) -> T | Failed | OutcomeUnknown | TryAgain:
        callers = _Provider(record).callers.setdefault(f"{name}, attempt {context.attempt}", [])
        if caller.env.process not in callers:  # the network may double a request
            callers.append(caller.env.process)
        try:
            return work(_Provider(record))
        except (Failed, TryAgain) as refusal:
            return refusal
        except OutcomeUnknown as silence:
            return silence

    answer = await caller.outside(name, arrives)
    if isinstance(answer, Exception):
        raise answer
    return answer


async def _charge(context: StepContext[Order]) -> str:
    return await _call("charge", context, lambda p: p.charge(context.input, context.key))


async def _refund(context: StepContext[Order], key: str | None) -> None:
    await _call("refund", context, lambda p: p.refund(context.input, context.undone_key or ""))


async def _reserve(context: StepContext[Order], tx: Transaction) -> None:
    await tx.run(_insert(context.input.id, 1))


async def _release(context: StepContext[Order], result: None, tx: Transaction) -> None:
    await tx.run(_insert(context.input.id, -1))


async def _pack(context: StepContext[Order]) -> None:
    await _call("pack", context, lambda p: p.events.append([context.id, "pack"]))


async def _ship(context: StepContext[Order]) -> None:
    await _call("ship", context, lambda p: p.ship(context.input))


async def _notify(context: StepContext[Order]) -> None:
    await _call("notify", context, lambda p: p.notify(context.input, context.attempt))


_PIVOT = Step.remote(_ship, name="ship", retry=PATIENT, undo=NOTHING_TO_UNDO)
_STEPS: list[Step[Any, Any] | list[Step[Any, Any]]] = [
    Step.remote(_charge, name="charge", undo=_refund, retry=RETRY, undo_retry=PATIENT),
    [
        Step.local(_reserve, name="reserve", undo=_release, retry=PATIENT, undo_retry=PATIENT),
        Step.remote(_pack, name="pack", retry=PATIENT, undo=NOTHING_TO_UNDO),
    ],
    _PIVOT,
    Step.remote(_notify, name="notify", retry=PATIENT, undo=NOTHING_TO_UNDO),
]


def _saga(database: Database, plant: str | None = None) -> Saga[Order]:
    """The order's saga."""
    pivot = None if plant == "compensates after the pivot" else _PIVOT
    return Saga(database, "order", input=Order, steps=_STEPS, pivot=pivot)


async def _prepare(database: Database) -> None:
    await _saga(database).install()
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE reserved (order_id TEXT, units BIGINT)")


class _Workload:
    """A client starts the sagas, or the runner's process itself; the runner carries them through."""

    def __init__(self, plant: str | None) -> None:
        self._plant = plant

    def processes(self) -> dict[str, Main]:
        """By name."""
        return {"client": self._client, "runner": self._runner}

    async def _client(self, process: Process) -> None:
        saga = _saga(process.database(), self._plant)
        await process.env.clock.sleep(SECOND_S)
        orders = [Order(id, kind) for id, kind in ORDERS.items() if id != HELD]
        await asyncio.gather(*(_start(process, saga, order) for order in orders))

    async def _runner(self, process: Process) -> None:
        _CALLER.set(process)
        saga = _saga(process.database(), self._plant)
        runner = saga.runner(ttl=TTL_S)
        runner._driver.__class__ = DRIVERS.get(self._plant, Driver)
        runner._planner.__class__ = PLANNERS.get(self._plant, Planner)
        if self._plant == "dropped fence":
            for each in (saga._journal, runner._driver._journal):
                each.__class__ = Unfenced
        await asyncio.gather(Worker(process.env, runner).run(), self._start_held(process, saga, runner))

    async def _start_held(self, process: Process, saga: Saga[Order], runner: Runner) -> None:
        """By the process that goes on with it, which holds it from the first."""
        while not runner.has_room:
            await process.env.clock.sleep(0.01)
        await _start(process, saga, Order(HELD, ORDERS[HELD]))


async def _start(process: Process, saga: Saga[Order], order: Order) -> None:
    await saga.start(order.id, order, deadline=DEADLINE_S if order.kind == HURRIED else None)
    process.note("started", order.id)


# -- the verdict ------------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    if noted(evidence, "started") < ORDERS.keys():
        return False
    over = evidence.fetch("SELECT count(*) FROM faultproof_saga WHERE ended_us IS NOT NULL OR state = 'attention'")
    return over == [(len(ORDERS),)]


def _record(evidence: Evidence) -> _Provider:
    return _Provider(dict(evidence.outside))


def _wrong_ends(evidence: Evidence) -> list[str]:
    provider, wrong = _record(evidence), []
    moved = Counter(evidence.fetch("SELECT order_id, units FROM reserved"))
    charged = Counter(provider.charges.values())
    paid = Counter(order for key, order in provider.charges.items() if key not in provider.refunded)
    for id, state, reason in evidence.fetch("SELECT id, state, reason FROM faultproof_saga"):
        if charged[id] > 1:
            wrong.append(f"{id} was charged {charged[id]} times")
        reserved, released = moved[id, 1], moved[id, -1]
        if reserved > 1 or released > 1:
            wrong.append(f"{id} was reserved {reserved} times, and released {released} times")
        shipped, left = id in provider.shipped, reserved - released
        if state == "completed" and (paid[id], left, shipped) != (1, 1, True):
            wrong.append(f"{id} is completed: paid {paid[id]}, reserved {left}, shipped {shipped}")
        elif state == "compensated" and (paid[id], left, shipped) != (0, 0, False):
            wrong.append(f"{id} is compensated: paid {paid[id]}, reserved {left}, shipped {shipped}")
        elif state not in ("completed", "compensated"):
            wrong.append(f"{id} is {state}: {reason}")
    return wrong


def _disordered(evidence: Evidence) -> list[str]:
    """What was done last is undone first."""
    undone: dict[tuple[str, str], int] = {}
    for id, step, what, seq in evidence.fetch("SELECT id, step, what, seq FROM faultproof_saga_entry ORDER BY id, seq"):
        if what in ("undo_began", "undone"):
            undone[id, f"{step} {what}"] = seq
    return [
        f"the charge of {id} was undone before its reservation"
        for id in ORDERS
        if undone.get((id, "reserve undone"), 0) > undone.get((id, "charge undo_began"), 1_000_000)
    ]


def _unjournaled(evidence: Evidence) -> list[str]:
    """Whatever took effect, or was undone, had been announced in the journal."""
    began = set(evidence.fetch("SELECT id, step FROM faultproof_saga_entry WHERE what = 'began'"))
    steps = {"charge": "charge", "refund": "charge", "ship": "ship"}
    return [
        f"{what} of {order}, and the journal has no word of it"
        for order, what in _record(evidence).events
        if what in steps and (order, steps[what]) not in began
    ]


def _made_twice(evidence: Evidence) -> list[str]:
    """Whoever begins an attempt has it in the journal first: another process sees it there, and begins the next one."""
    callers = _record(evidence).callers
    return [f"{attempt}, was made by {' and '.join(made)}" for attempt, made in callers.items() if len(made) > 1]


def _ends_in(state: str) -> Callable[[Evidence], bool]:
    return lambda evidence: (state,) in evidence.fetch("SELECT state FROM faultproof_saga")


SAGA = Proof(
    name="faultproof.patterns.saga.proof:SAGA",
    claim=(
        "Every saga that was started ends with all of its steps done, or with everything undone that happened or may have; "
        "the provider's record and the local rows agree with its state; nobody is charged twice, undos run in reverse order, "
        "for nothing that was not begun, and never after the pivot."
    ),
    faults=(*ANY_FAULT, "a provider does its work and loses the answer, refuses, or asks to be called later"),
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "a provider gives a repeated key its first answer, and refuses a key whose undo has come before it",
        "undos, and what comes after the pivot, succeed before their attempts are used up",
    ),
    not_tested=("two writers at the same time, and two snapshots: simulated SQLite has one of each",),
    prepare=_prepare,
    processes=lambda plant: _Workload(plant).processes(),
    done=_done,
    eventually=(
        Eventually(claim="every saga is completed or compensated, and so are its effects", wrong=_wrong_ends),
        Eventually(claim="undos run in reverse order", wrong=_disordered),
        Eventually(claim="nothing takes effect that was not begun", wrong=_unjournaled),
        Eventually(claim="an attempt is made by the process that has begun it", wrong=_made_twice),
        Eventually(claim="the lines of a journal are numbered, each once", wrong=misnumbered),
        Eventually(claim="what is put off is so by the engine's clock", wrong=misdated),
    ),
    sometimes=(
        Sometimes(claim="a saga is completed", happened=_ends_in("completed")),
        Sometimes(claim="a saga is compensated", happened=_ends_in("compensated")),
    ),
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
    survivors=SURVIVORS,
)

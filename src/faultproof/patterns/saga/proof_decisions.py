"""Decisions by hand, simulated: sagas that cannot be undone, and an operator who retries, skips or resolves them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from faultproof.errors import Failed, InvalidInput
from faultproof.patterns.saga import operations, sql
from faultproof.patterns.saga.journal import claim_kind, ended_topic, work_topic
from faultproof.patterns.saga.machine import Entry, evolve
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Step, StepContext, StepRetry
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import Plant, Proof
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.world import World

NAME = "undoing"
TTL_S = 0.5
LOOK_S = 0.05
RETRY = StepRetry(attempts=1)
RETRIED, SKIPPED, RESOLVED = "retried", "skipped", "resolved"
KINDS = (RETRIED, SKIPPED, RESOLVED)
"""What the operator does about each: none of them can be undone until it is mended, or refunded by hand."""


class _Bank:
    """The other side: charges and refunds by key, and refuses refunds until it is mended."""

    def __init__(self) -> None:
        self.charged: set[str] = set()
        self.refunds: Counter[str] = Counter()
        """Those that took effect."""
        self.mended: set[str] = set()

    def charge(self, id: str) -> None:
        self.charged.add(id)

    def refund(self, id: str) -> None:
        if id not in self.mended:
            raise Failed("the form is out of order")
        self.refund_by_hand(id)

    def refund_by_hand(self, id: str) -> None:
        """Whoever asks again finds that it has been done."""
        if not self.refunds[id]:
            self.refunds[id] += 1


class _Run:
    """One run: a client starts the sagas, a runner goes on with them, and an operator decides what it cannot."""

    def __init__(self, world: World, plant: str | None) -> None:
        self._world = world
        self._bank = _Bank()
        self._started: set[str] = set()
        self._decide = _DECIDERS.get(plant, _decided)
        for name, main in (("client", self._client), ("runner", self._runner), ("operator", self._operator)):
            world.spawn(name, main)

    async def _client(self, process: Process) -> None:
        saga = self._saga(process)
        await asyncio.gather(*(saga.start(id, id) for id in KINDS))
        process.note("started")
        self._started.update(KINDS)

    async def _runner(self, process: Process) -> None:
        await Worker(process.env, self._saga(process).runner(ttl=TTL_S)).run()

    async def _operator(self, process: Process) -> None:
        """Who looks, sees to it, and says so; and did all of that before, if the answer was lost."""
        database = process.database()
        while True:
            for row in await database.read(operations.listed(NAME, "attention", 10)):
                if row.id == RETRIED:
                    self._bank.mended.add(row.id)
                else:
                    await self._call(process, f"by hand {row.id}", lambda id=row.id: self._bank.refund_by_hand(id))  # type: ignore[misc]
                try:
                    await database.transact(self._decide(database, row.id))
                except InvalidInput:  # who was here before has decided
                    process.note("was decided", row.id)
                else:
                    process.note("decided", row.id)
            await process.env.clock.sleep(LOOK_S)

    async def _call(self, process: Process, what: str, work: Callable[[], None]) -> None:
        """A request that arrives, and is answered; its sender may die or freeze before and after."""
        await self._world.operate(process, object(), what, work)

    def _saga(self, process: Process) -> Saga[str]:
        async def charge(context: StepContext[str]) -> None:
            await self._call(process, f"charge {context.id}", lambda: self._bank.charge(context.id))

        async def refund(context: StepContext[str], result: None) -> None:
            await self._call(process, f"refund {context.id}", lambda: self._bank.refund(context.id))

        async def refuse(context: StepContext[str]) -> None:
            raise Failed("nobody ships there")

        charged = Step.remote(charge, undo=refund, retry=RETRY, undo_retry=RETRY)
        refused = Step.remote(refuse, undo=NOTHING_TO_UNDO, retry=RETRY)
        return Saga(process.database(), NAME, input=str, steps=[charged, refused])

    def done(self) -> bool:
        over = "SELECT count(*) FROM faultproof_saga WHERE ended_us IS NOT NULL"
        if len(self._started) < len(KINDS) or self._world.store.fetch(over) != [(len(KINDS),)]:
            return False
        # Whoever was frozen while he decided wakes up, and must find that it has been decided.
        return not any(process.strand.frozen for process in self._world.processes)

    def violations(self) -> list[str]:
        fetch, bank = self._world.store.fetch, self._bank
        wrong = [f"{name} died of {error!r}" for name, error in self._world.deaths]
        journals: dict[str, list[str]] = {id: [] for id in KINDS}
        for id, what in fetch("SELECT id, what FROM faultproof_saga_entry ORDER BY id, seq"):
            journals[id].append(what)
        for id, state, reason in fetch("SELECT id, state, reason FROM faultproof_saga"):
            whats = journals[id]
            decisions = sum(what in ("retried", "skipped") for what in whats)
            if state != "compensated":
                wrong.append(f"{id} is {state}: {reason}")
            elif whats.count("compensated") != 1 or whats[-1] != "compensated":
                wrong.append(f"{id} has ended, and its journal goes on: {', '.join(whats)}")
            if decisions > whats.count("attention"):
                wrong.append(
                    f"{id} wanted attention {whats.count('attention')} times, and {decisions} decisions are journaled"
                )
            if (id in bank.charged) != bool(bank.refunds[id]):
                wrong.append(f"{id}: charged {id in bank.charged}, refunded {bank.refunds[id]} times")
        left = fetch("SELECT id FROM faultproof_claim")
        return wrong + [f"{id} has ended, and somebody would take it up" for (id,) in left]


async def _prepare(database: Database) -> None:
    await database.install(database.claims.schema, sql.SCHEMA)


def _decided(database: Database, id: str) -> Script[None]:
    match id:
        case "retried":
            return operations.retry(database, NAME, id)
        case "skipped":
            return operations.skip(database, NAME, id)
        case _:
            return operations.resolve(NAME, id, outcome="compensated", reason="refunded by hand")


# -- planted bugs: nobody looks whether the saga still wants it -------------------------------------------------------


def _retried_unseen(database: Database, id: str) -> Script[None]:
    if id != RETRIED:
        return (yield from _decided(database, id))
    found = yield from operations.standing(NAME, id)
    entry = Entry(found.run.stuck or "charge", "retried", 0, None, 0)
    run = evolve(found.shape, found.run, entry)
    yield from sql.write(NAME, [sql.NewEntry(id, found.seq + 1, *entry)])
    yield from sql.move(NAME, [id], run.phase, run.reason, 0)
    yield from database.claims.add(claim_kind(NAME), [id])
    yield Wake(work_topic(NAME))


def _resolved_unseen(database: Database, id: str) -> Script[None]:
    if id != RESOLVED:
        return (yield from _decided(database, id))
    found = yield from operations.standing(NAME, id)
    yield from sql.write(NAME, [sql.NewEntry(id, found.seq + 1, "", "compensated", 0, "by hand", None)])
    yield from sql.move(NAME, [id], "compensated", "by hand", 1)
    yield Wake(ended_topic(NAME))


_DECIDERS: dict[str | None, Callable[[Database, str], Script[None]]] = {
    "retries unseen": _retried_unseen,
    "resolves unseen": _resolved_unseen,
}

DECISIONS = Proof(
    name="faultproof.patterns.saga.proof:DECISIONS",
    claim=(
        "A saga that wants attention goes on, or ends, as one decision says; who decides a second time changes nothing, and "
        "after its end nothing is journaled, nor taken up."
    ),
    faults=(
        "the runner, the operator, or who starts dies before or after any commit, request or answer, and is started again",
        "one of them is frozen there for longer than a lease, replaced, and wakes up: two operators see the same saga",
        "wake-ups are late or lost (in random runs)",
    ),
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "a person sees to what could not be undone before saying so",
    ),
    not_tested=(
        "two writers at the same time, and two snapshots: simulated SQLite has one of each",
        "adopting another definition: `tests/patterns/saga/test_attention.py`",
    ),
    prepare=_prepare,
    start=_Run,
    plants=(
        Plant(
            name="retries unseen",
            breaks="an operator who was frozen retries what another has retried, and it has ended",
        ),
        Plant(name="resolves unseen", breaks="an operator who was frozen ends once more what another has ended"),
    ),
)

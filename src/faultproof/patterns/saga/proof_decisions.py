"""Decisions by hand, simulated: sagas that cannot be undone, and an operator who retries, skips or resolves them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faultproof.errors import Failed, InvalidInput
from faultproof.patterns.saga import operations, sql
from faultproof.patterns.saga.journal import claim_kind, ended_topic, work_topic
from faultproof.patterns.saga.machine import Entry, evolve
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Step, StepContext, StepRetry
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

NAME = "undoing"
TTL_S = 0.5
LOOK_S = 0.05
QUIET_S = 0.2
"""After which the operator is shown what does not want attention, too."""
RETRY = StepRetry(attempts=1)
RETRIED, SKIPPED, RESOLVED = "retried", "skipped", "resolved"
KINDS = (RETRIED, SKIPPED, RESOLVED)
"""What the operator does about each: none of them can be undone until it is mended, or refunded by hand."""


class _Bank:
    """The other side: charges and refunds by key, and refuses refunds until it is mended."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.charged: list[str] = record.setdefault("charged", [])
        self.refunded: list[str] = record.setdefault("refunded", [])
        """Also what was never charged, and will not be any more: it may have been lost on its way."""
        self.mended: list[str] = record.setdefault("mended", [])

    def charge(self, id: str) -> None:
        if id not in self.refunded:
            _put(self.charged, id)

    def refund(self, id: str) -> bool:
        """False while the form is out of order."""
        if id in self.mended:
            _put(self.refunded, id)
        return id in self.mended

    def see_to(self, id: str) -> None:
        """What an operator does before deciding: mend the form, or refund by hand."""
        _put(self.mended if id == RETRIED else self.refunded, id)


def _put(ids: list[str], id: str) -> None:
    """Whoever asks again finds that it has been done."""
    if id not in ids:
        ids.append(id)


class _Workload:
    """A client starts the sagas, a runner goes on with them, and an operator decides what it cannot."""

    def __init__(self, plant: str | None) -> None:
        self._decide = _DECIDERS.get(plant, _decided)

    def processes(self) -> dict[str, Main]:
        """By name."""
        return {"client": self._client, "runner": self._runner, "operator": self._operator}

    async def _client(self, process: Process) -> None:
        saga = _saga(process)
        await asyncio.gather(*(saga.start(id, id) for id in KINDS))
        process.note("started", len(KINDS))

    async def _runner(self, process: Process) -> None:
        await Worker(process.env, _saga(process).runner(ttl=TTL_S)).run()

    async def _operator(self, process: Process) -> None:
        """Who looks, sees to it, and says so; and did all of that before, if the answer was lost."""
        database = process.database()
        while True:
            wanted, stuck = await database.read(_shown())
            _note(process, wanted, stuck)
            for row in wanted:
                await process.outside(f"by hand {row.id}", lambda record: _Bank(record).see_to(row.id))  # noqa: B023
                try:
                    await database.transact(self._decide(database, row.id))
                except InvalidInput:  # who was here before has decided
                    process.note("was decided", row.id)
                else:
                    process.note("decided", row.id)
            await process.env.clock.sleep(LOOK_S)


def _note(process: Process, wanted: list[sql.Listed], stuck: list[sql.Listed]) -> None:
    for row in wanted + stuck:
        process.note("shown", row.id, row.state, row.quiet_s)
    process.note("wanted", *(row.id for row in wanted))


def _shown() -> Script[tuple[list[sql.Listed], list[sql.Listed]]]:
    """What wants attention, and what does or is quiet, as the operator is shown it."""
    wanted = yield from operations.listed(NAME, "attention", 10)
    return wanted, (yield from operations.stuck(NAME, QUIET_S, 10))


def _saga(process: Process) -> Saga[str]:
    async def charge(context: StepContext[str]) -> None:
        if context.id == RETRIED:  # now it is sure that one is under way, and somebody looks
            _note(process, *await process.database().read(_shown()))
        await process.outside(f"charge {context.id}", lambda record: _Bank(record).charge(context.id))

    async def refund(context: StepContext[str], result: None) -> None:
        if not await process.outside(f"refund {context.id}", lambda record: _Bank(record).refund(context.id)):
            raise Failed(f"the form of {context.id} is out of order")

    async def refuse(context: StepContext[str]) -> None:
        raise Failed(f"nobody ships {context.id} there")

    charged = Step.remote(charge, undo=refund, retry=RETRY, undo_retry=RETRY)
    refused = Step.remote(refuse, undo=NOTHING_TO_UNDO, retry=RETRY)
    return Saga(process.database(), NAME, input=str, steps=[charged, refused])


# -- the verdict ------------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    over = "SELECT count(*) FROM faultproof_saga WHERE ended_us IS NOT NULL"
    return bool(noted(evidence, "started")) and evidence.fetch(over) == [(len(KINDS),)]


def _wrong_journals(evidence: Evidence) -> list[str]:
    wrong = []
    journals: dict[str, list[str]] = {id: [] for id in KINDS}
    for id, what in evidence.fetch("SELECT id, what FROM faultproof_saga_entry ORDER BY id, seq"):
        journals[id].append(what)
    for id, state, reason in evidence.fetch("SELECT id, state, reason FROM faultproof_saga"):
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
    return wrong


def _wrong_refunds(evidence: Evidence) -> list[str]:
    bank = _Bank(dict(evidence.outside))
    return [f"{id} was charged, and is not refunded" for id in bank.charged if id not in bank.refunded]


def _wrong_lists(evidence: Evidence) -> list[str]:
    wrong = [
        f"{id} is {state} and was quiet for {quiet_s:.3f} s, and the operator is shown it"
        for kind, id, state, quiet_s in (note for note in evidence.notes if note[0] == "shown")
        if state in ("completed", "compensated") or (state != "attention" and quiet_s < QUIET_S)
    ]
    for _, *ids in (note for note in evidence.notes if note[0] == "wanted"):
        if len(ids) > len(set(ids)):
            wrong.append(f"the operator is shown {ids}: one more than once")
    return wrong


def _left_over(evidence: Evidence) -> list[str]:
    return [
        f"{id} has ended, and somebody would take it up" for (id,) in evidence.fetch("SELECT id FROM faultproof_claim")
    ]


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
    faults=(*ANY_FAULT, "an operator who was frozen while deciding wakes up: two have seen the same saga"),
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "a person sees to what could not be undone before saying so",
    ),
    not_tested=(
        "two writers at the same time, and two snapshots: simulated SQLite has one of each",
        "adopting another definition: `tests/patterns/saga/test_attention.py`",
    ),
    prepare=_prepare,
    processes=lambda plant: _Workload(plant).processes(),
    done=_done,
    eventually=(
        Eventually(claim="a saga ends once, by one decision for each time it wanted one", wrong=_wrong_journals),
        Eventually(claim="whoever was charged is refunded", wrong=_wrong_refunds),
        Eventually(claim="an operator is shown what wants attention, or is quiet, and each once", wrong=_wrong_lists),
        Eventually(claim="nobody takes up what has ended", wrong=_left_over),
    ),
    sometimes=(
        Sometimes(claim="an operator decides", happened=lambda evidence: bool(noted(evidence, "decided"))),
        Sometimes(claim="an operator finds it decided", happened=lambda evidence: bool(noted(evidence, "was decided"))),
    ),
    plants=(
        Plant(
            name="retries unseen",
            breaks="an operator who was frozen retries what another has retried, and it has ended",
        ),
        Plant(name="resolves unseen", breaks="an operator who was frozen ends once more what another has ended"),
    ),
)

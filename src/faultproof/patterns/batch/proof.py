"""Batch's proof: callers in two processes commit single operations in shared transactions, under crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from faultproof.errors import FaultproofError, OutcomeUnknown, TryAgain
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.primitives.batcher import BatchLimits, Result
from faultproof.primitives.group_commit import Busy, Err, GroupCommit, Ok, Outcome
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

CALLERS = 4
ROUNDS = 2
POISON, REFUSED, BUSY = "poison", "refused", "busy"


class Item(NamedTuple):
    """One operation: a row to write. Its kind says what is wrong with it, if anything."""

    id: str
    kind: str


@sql("INSERT INTO item (id, kind) SELECT id, kind FROM {items} ORDER BY ordinal")
def _insert(items: Sequence[Item]) -> None: ...


def _apply(items: Sequence[Item], wait: bool) -> Script[list[Outcome[str]]]:
    """Poison violates the table's CHECK, so that the whole statement fails; a refused item is told so; a busy one waits."""
    taken = [item for item in items if item.kind != REFUSED and (wait or item.kind != BUSY)]
    yield from _insert(taken)
    return [_outcome(item, wait) for item in items]


def _outcome(item: Item, wait: bool) -> Outcome[str]:
    if item.kind == REFUSED:
        return Err(ValueError(item.id))
    if item.kind == BUSY and not wait:
        return Busy()
    return Ok(item.id)


async def _prepare(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE item (id TEXT, kind TEXT CHECK (kind <> 'poison'))")


class _AnswersEarly(GroupCommit[Item, str]):
    async def _commit(self, items: Sequence[Item]) -> list[Result[str]]:
        self._late = asyncio.get_running_loop().create_task(super()._commit(items))
        return [ValueError(item.id) if item.kind in (REFUSED, POISON) else item.id for item in items]


class _CommitsHalves(GroupCommit[Item, str]):
    """After an error it tries the items one by one, without having rolled back what went before."""

    async def _commit(self, items: Sequence[Item]) -> list[Result[str]]:
        for item in items[:-1]:
            if item.kind not in (POISON, REFUSED, BUSY):
                await self._database.transact(_insert([item]))
        return await super()._commit(items)


class _LosesLast(GroupCommit[Item, str]):
    async def _commit(self, items: Sequence[Item]) -> list[Result[str]]:
        if len(items) < 3:
            return await super()._commit(items)
        return [*await super()._commit(items[:-1]), items[-1].id]


class _BlamesAll(GroupCommit[Item, str]):
    """One bad item fails its whole batch."""

    async def _commit(self, items: Sequence[Item]) -> list[Result[str]]:
        try:
            await self._database.transact(_apply(items, True))
        except FaultproofError as error:
            return [error for _ in items]
        return [_value(_outcome(item, True)) for item in items]


class _RepeatsUnknown(GroupCommit[Item, str]):
    """An answer that took long is taken for a failure, and the batch is sent again."""

    async def _commit(self, items: Sequence[Item]) -> list[Result[str]]:
        clock = self._database.env.clock
        began = clock.monotonic()
        results = await super()._commit(items)
        return await super()._commit(items) if clock.monotonic() - began > 1.0 else results


def _value(outcome: Outcome[str]) -> str | BaseException:
    if isinstance(outcome, Ok):
        return outcome.value
    return outcome.error if isinstance(outcome, Err) else ValueError("busy")


_BROKEN: dict[str, type[GroupCommit[Item, str]]] = {
    "answers early": _AnswersEarly,
    "no rollback": _CommitsHalves,
    "loses the last": _LosesLast,
    "blames all": _BlamesAll,
    "repeats the unknown": _RepeatsUnknown,
}


SERVICES = ("service-1", "service-2")


def _processes(plant: str | None) -> dict[str, Main]:
    """Callers that each submit a few operations, one after the other."""
    kind_of_commit = _BROKEN.get(plant or "", GroupCommit[Item, str])

    async def service(process: Process) -> None:
        group_commit = kind_of_commit(process.database(), _apply, limits=BatchLimits(items=5))
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(_caller(process, group_commit, number))
        process.note("finished", process.name)

    return dict.fromkeys(SERVICES, service)


async def _caller(process: Process, group_commit: GroupCommit[Item, str], number: int) -> None:
    for turn in range(ROUNDS):
        kind = {(1, 0): POISON, (2, 1): REFUSED, (3, 0): BUSY}.get((number, turn), "plain")
        item = Item(f"{process.env.process}/{number}/{turn}", kind)
        try:
            process.note("done", await group_commit.submit(item))
        except OutcomeUnknown:
            process.note("unknown", item.id)
        except TryAgain:
            process.note("not now", item.id)
        except (FaultproofError, ValueError):
            process.note("refused", item.id, item.kind)


def _wrong_answers(evidence: Evidence) -> list[str]:
    rows = Counter(id for (id,) in evidence.fetch("SELECT id FROM item"))
    wrong = [f"operation {id} was committed {count} times" for id, count in rows.items() if count > 1]
    wrong += [f"poison was let in: {id}" for (id,) in evidence.fetch("SELECT id FROM item WHERE kind = 'poison'")]
    for kind, id, *facts in evidence.notes:
        if kind == "done" and id not in rows:
            wrong.append(f"operation {id} was answered and is not there")
        if kind in ("refused", "not now") and id in rows:
            wrong.append(f"operation {id} was {kind} and is there")
        if kind == "refused" and facts[0] not in (POISON, REFUSED):
            wrong.append(f"operation {id} was refused for another's fault")
    return wrong


def _shared(evidence: Evidence) -> bool:
    """Somebody was told the truth while others of the batch were refused."""
    return {"done", "refused"} <= {note[0] for note in evidence.notes}


BATCH = Proof(
    name="faultproof.patterns.batch.proof:BATCH",
    claim=(
        "An operation whose caller was given a result is committed, once; one whose caller was given an error is not; and a "
        "bad operation harms no other in its batch."
    ),
    faults=ANY_FAULT,
    assumptions=("a commit that was acknowledged survives (the database's durability setting)",),
    not_tested=("two writers at the same time: simulated SQLite has one",),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: noted(evidence, "finished") == set(SERVICES),
    eventually=(Eventually(claim="who was given a result, or an error, was told the truth", wrong=_wrong_answers),),
    sometimes=(Sometimes(claim="operations succeed beside others that are refused", happened=_shared),),
    plants=(
        Plant(name="answers early", breaks="callers are answered before the commit: a crash between loses operations"),
        Plant(name="no rollback", breaks="what was written before an error stays: operations are there twice"),
        Plant(name="loses the last", breaks="the last operation of a larger batch is answered and never written"),
        Plant(name="blames all", breaks="one bad operation fails the whole batch"),
        Plant(name="repeats the unknown", breaks="a batch whose answer came late is sent again"),
    ),
)

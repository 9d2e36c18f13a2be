"""Batch's proof: callers in two processes commit single operations in shared transactions, under crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from faultproof.errors import FaultproofError
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.primitives.batcher import BatchLimits, Result
from faultproof.primitives.group_commit import Busy, Err, GroupCommit, Ok, Outcome
from faultproof.prove.proof import Plant, Proof
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.world import World

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
        await tx.execute("CREATE TABLE item (n INTEGER PRIMARY KEY, id TEXT, kind TEXT CHECK (kind <> 'poison'))")


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


class _Run:
    """Callers that each submit a few operations, one after the other."""

    def __init__(self, world: World, plant: str | None) -> None:
        self._world = world
        self._group_commit = _BROKEN.get(plant or "", GroupCommit[Item, str])
        self._finished: set[str] = set()
        for name in ("service-1", "service-2"):
            world.spawn(name, self._service)

    async def _service(self, process: Process) -> None:
        limits = BatchLimits(items=5)
        group_commit = self._group_commit(process.database(), _apply, limits=limits)

        async def caller(number: int) -> None:
            for turn in range(ROUNDS):
                kind = {(1, 0): POISON, (2, 1): REFUSED, (3, 0): BUSY}.get((number, turn), "plain")
                item = Item(f"{process.strand.name}/{number}/{turn}", kind)
                try:
                    process.note("done", await group_commit.submit(item))
                except (FaultproofError, ValueError):
                    process.note("refused", item.id, item.kind)

        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(caller(number))
        self._finished.add(process.name)

    def done(self) -> bool:
        return len(self._finished) == 2

    def violations(self) -> list[str]:
        wrong = [f"{name} died of {error!r}" for name, error in self._world.deaths]
        rows = Counter(id for (id,) in self._world.store.fetch("SELECT id FROM item"))
        wrong += [f"operation {id} was committed {count} times" for id, count in rows.items() if count > 1]
        for note in self._world.notes:
            if note[0] == "done" and note[1] not in rows:
                wrong.append(f"operation {note[1]} was answered and is not there")
            if note[0] == "refused" and note[1] in rows:
                wrong.append(f"operation {note[1]} was refused and is there")
            if note[0] == "refused" and note[2] not in (POISON, REFUSED):
                wrong.append(f"operation {note[1]} was refused for another's fault")
        return wrong


BATCH = Proof(
    name="faultproof.patterns.batch.proof:BATCH",
    claim=(
        "An operation whose caller was given a result is committed, once; one whose caller was given an error is not; and a "
        "bad operation harms no other in its batch."
    ),
    faults=(
        "a process dies before or after any commit or answer, and is started again",
        "a process is frozen there and wakes up later",
    ),
    assumptions=("a commit that was acknowledged survives (the database's durability setting)",),
    not_tested=(
        "a COMMIT whose answer is lost while the process lives on",
        "two writers at the same time: simulated SQLite has one",
    ),
    prepare=_prepare,
    start=_Run,
    plants=(
        Plant(name="answers early", breaks="callers are answered before the commit: a crash between loses operations"),
        Plant(name="no rollback", breaks="what was written before an error stays: operations are there twice"),
        Plant(name="loses the last", breaks="the last operation of a larger batch is answered and never written"),
        Plant(name="blames all", breaks="one bad operation fails the whole batch"),
        Plant(name="repeats the unknown", breaks="a batch whose answer came late is sent again"),
    ),
)

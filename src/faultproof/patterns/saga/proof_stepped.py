"""The saga between two sessions: who starts it, an answer that comes as its runner goes, a runner and its successor, and two
people who decide."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from faultproof.errors import InvalidInput, KeyReused, LeaseLost
from faultproof.patterns.saga import callbacks, machine, operations, sql
from faultproof.patterns.saga.journal import Journal, Take, Write, claim_kind
from faultproof.patterns.saga.machine import Entry
from faultproof.patterns.saga.planning import Planner
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Pending, Step, StepContext
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database, Tx
from faultproof.ports.script import Inline, Script
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped import proof_claims
from faultproof.prove.stepped.case import Case, Isolation, Main, Rewrite, Stepping, dropped, replaced

_HERE = "faultproof.patterns.saga.proof_stepped"
_SQL = "patterns.saga.sql"
NAME, ID, SECRET = "order", "s-1", "secret"
HOUR_US = 3_600_000_000
LATE_US = 4_102_444_800_000_000
"""The year 2100."""
MINE = Claim(ID, 1, 1)
"""Of the runner that has taken the saga up: the first claim that there is."""


async def _ask(context: StepContext[str]) -> Pending:
    return Pending()


def _saga(database: Database) -> Saga[str]:
    step = Step.asynchronous(_ask, name="ask", result=str, undo=NOTHING_TO_UNDO)
    return Saga(database, NAME, input=str, steps=[step])


async def _prepare(database: Database) -> None:
    await _saga(database).install()


def _start(database: Database, input: str) -> Script[bool]:
    return _saga(database).start(ID, input, tx=Inline())


# -- starting -------------------------------------------------------------------------------------------------------------


def _starter(input: str, isolation: Isolation | None) -> Main:
    async def main(process: Stepping) -> None:
        database = process.database()

        def work(tx: Tx) -> Awaitable[bool]:
            return tx.run(_start(database, input))

        try:
            if isolation is None:
                is_new = await database.transact(lambda: _start(database, input))
            else:
                is_new = await process.joined(isolation, work)
        except KeyReused:
            process.note("reused", input)
        else:
            process.note("new" if is_new else "known", input)

    return main


def _starting(name: str, other: str, isolation: Isolation | None, *, plants: Mapping[str, Rewrite]) -> Case:
    expected = ["known", "new"] if other == "a" else ["new", "reused"]

    def wrong(evidence: Evidence) -> list[str]:
        said = sorted(note[0] for note in evidence.notes)
        found = [] if said == expected else [f"who started it was told {said}"]
        rows = evidence.fetch("SELECT input FROM faultproof_saga")
        if rows != [(f'"{next(iter(noted(evidence, "new")), "")}"',)]:
            found.append(f"the saga was started with {rows}, and {evidence.notes}")
        if evidence.fetch("SELECT count(*) FROM faultproof_claim") != [(1,)]:
            found.append("nobody will take it up")
        return found

    where = "" if isolation is None else f" In transactions of the user's own, at {isolation.upper()}."
    return Case(
        name=f"{_HERE}:{name}",
        claim="Of two that start a saga with one id at the same time one does, and the other is told that it is there, or was "
        "started with another input." + where,
        prepare=_prepare,
        sessions=lambda plant: {"one": _starter("a", isolation), "other": _starter(other, isolation)},
        wrong=wrong,
        plants=tuple(Plant(name=plant, breaks="the other is told what is not so") for plant in plants),
        rewrites=plants,
    )


_INSERT = {"takes it for new": replaced(f"{_SQL}.insert", "DO NOTHING", "DO UPDATE SET state = 'running'")}
START = _starting("START", "a", None, plants=_INSERT)
START_OTHER = _starting("START_OTHER", "b", None, plants={"does not compare": dropped(f"{_SQL}.known")})
START_SERIALIZABLE = _starting("START_SERIALIZABLE", "a", "serializable", plants=_INSERT)

# -- an answer ------------------------------------------------------------------------------------------------------------


def _begun(database: Database) -> Script[None]:
    """Its step has been begun by a runner, which still holds it."""
    yield from _start(database, "a")
    took = yield from database.claims.take(claim_kind(NAME), "runner", ttl_us=HOUR_US, limit=1)
    assert took == [MINE]
    yield from sql.write(NAME, [sql.NewEntry(ID, 1, "ask", "began", 1, SECRET, None)])


async def _prepare_begun(database: Database) -> None:
    await _prepare(database)
    await database.transact(lambda: _begun(database))


def _write(database: Database, claim: Claim, entry: Entry, *, release_in_us: int | None) -> Script[object]:
    shape = _saga(database).definition.shape
    run = machine.evolve(shape, machine.begin(shape, None), Entry("ask", "began", 1, SECRET))
    run = machine.evolve(shape, run, entry)
    write = Write(ID, claim, 1, [entry], run, False, release_in_us)
    return Journal(database, NAME).commit_all([write])


async def _goes(process: Stepping) -> None:
    """A runner that gives the saga back until its answer has come."""
    database = process.database()
    pending = Entry("ask", "pending", 1, None, HOUR_US)
    await database.transact(lambda: _write(database, MINE, pending, release_in_us=HOUR_US))


async def _answers(process: Stepping) -> None:
    database = process.database()
    counts = await database.transact(
        lambda: callbacks.answer(database, NAME, ID, "ask", f"1.{SECRET}", "done", '"yes"')
    )
    process.note("answered", counts)


def _unheard(evidence: Evidence) -> list[str]:
    kept = evidence.fetch("SELECT count(*) FROM faultproof_saga_callback")
    due = evidence.fetch(
        """SELECT owner IS NULL AND until_us < (SELECT max(at_us) FROM faultproof_saga_callback) + 1000000000
           FROM faultproof_claim"""
    )
    wrong = [] if kept == [(1,)] and noted(evidence, "answered") == {True} else ["the answer was not kept"]
    return wrong + ([] if due == [(True,)] else ["the answer is there, and nobody goes on with the saga for an hour"])


ANSWER = Case(
    name=f"{_HERE}:ANSWER",
    claim="An answer that comes as the runner gives the saga back is found by the runner, or calls the next one.",
    prepare=_prepare_begun,
    sessions=lambda plant: {"runner": _goes, "caller": _answers},
    wrong=_unheard,
    plants=(
        Plant(name="calls nobody", breaks="the caller relies on a runner that has looked already"),
        Plant(name="looks for no answer", breaks="the runner relies on a caller that has called already"),
        Plant(
            name="calls without waiting", breaks="the caller takes a saga that is being given back for one that is held"
        ),
    ),
    rewrites={
        "calls nobody": proof_claims.NOBODY_HASTENED,
        "looks for no answer": dropped(f"{_SQL}.callbacks"),
        "calls without waiting": proof_claims.HASTENED_WITHOUT_WAITING,
    },
)


async def _prepare_waiting(database: Database) -> None:
    """Given back until its answer has come, and due all the same: somebody has called for nothing."""
    await _prepare_begun(database)

    def gives_back() -> Script[None]:
        yield from sql.write(NAME, [sql.NewEntry(ID, 2, "ask", "pending", 1, None, LATE_US)])
        yield from database.claims.release(claim_kind(NAME), [MINE])

    await database.transact(gives_back)


async def _looks(process: Stepping) -> None:
    """A runner that takes the saga up, and has nothing to do."""
    database = process.database()
    journal, planner = Journal(database, NAME), Planner(_saga(database).definition, database.env)
    take = Take("runner", HOUR_US, lambda: 1, lambda loaded: planner.go_on(loaded, math.inf))
    for taken in await database.transact(lambda: journal.take(take)):  # none while the caller has it locked
        process.note("went on" if taken.run.is_over else "gave back")


def _unheard_or_over(evidence: Evidence) -> list[str]:
    is_over = evidence.fetch("SELECT count(*) FROM faultproof_claim") == [(0,)]
    if is_over and evidence.fetch("SELECT state FROM faultproof_saga") == [("completed",)]:
        return []
    return _unheard(evidence)


LOOK = Case(
    name=f"{_HERE}:LOOK",
    claim="An answer that comes as a runner takes the saga up is found by that runner, or calls the next one.",
    prepare=_prepare_waiting,
    sessions=lambda plant: {"runner": _looks, "caller": _answers},
    wrong=_unheard_or_over,
    sometimes=tuple(
        Sometimes(claim=f"the runner {what}", happened=lambda evidence, what=what: (what,) in evidence.notes)  # type: ignore[misc]
        for what in ("went on", "gave back")
    ),
    plants=(
        Plant(name="calls nobody", breaks="the caller relies on a runner that has looked already"),
        Plant(
            name="calls without waiting", breaks="the caller takes a saga that is being given back for one that is held"
        ),
    ),
    rewrites={
        "calls nobody": proof_claims.NOBODY_HASTENED,
        "calls without waiting": proof_claims.HASTENED_WITHOUT_WAITING,
    },
)

# -- a successor ----------------------------------------------------------------------------------------------------------


async def _prepare_expired(database: Database) -> None:
    await _prepare_begun(database)
    await database.transact(lambda: database.claims.renew(claim_kind(NAME), [MINE], ttl_us=0))


def _journals(claim: Claim, result: str) -> Callable[[Database], Script[object]]:
    return lambda database: _write(database, claim, Entry("ask", "done", 1, result), release_in_us=None)


async def _zombie(process: Stepping) -> None:
    database = process.database()
    try:
        await database.transact(lambda: _journals(MINE, '"zombie"')(database))
    except LeaseLost:
        process.note("lost")
    else:
        process.note("journaled", "zombie")


async def _successor(process: Stepping) -> None:
    """Takes it up, and goes on from what is journaled."""
    database, journal = process.database(), Journal(process.database(), NAME)
    took = await database.transact(lambda: database.claims.take(claim_kind(NAME), "successor", ttl_us=HOUR_US, limit=1))
    if not took:  # the zombie has it locked, which journals in time
        return
    process.note("took")
    (loaded,) = await database.read(journal.load(took), snapshot=False)
    if loaded.row.entries == 1:
        await database.transact(lambda: _journals(took[0], '"successor"')(database))
        process.note("journaled", "successor")


def _journaled_twice(evidence: Evidence) -> list[str]:
    entries = [data for (data,) in evidence.fetch("SELECT data FROM faultproof_saga_entry WHERE what = 'done'")]
    said = [f'"{note[1]}"' for note in evidence.notes if note[0] == "journaled"]
    kinds = [note[:2] for note in evidence.notes]
    wrong = [] if entries == said and len(said) == 1 else [f"journaled is {entries}, and {said} were told so"]
    if ("took",) in kinds and ("journaled", "zombie") in kinds[kinds.index(("took",)) :]:
        wrong.append("the zombie journaled something after its successor had taken the saga up")
    return wrong


SUCCEED = Case(
    name=f"{_HERE}:SUCCEED",
    claim="A runner whose lease has run out journals nothing once another has taken the saga up, which then goes on from "
    "what is there.",
    prepare=_prepare_expired,
    sessions=lambda plant: {"zombie": _zombie, "successor": _successor},
    wrong=_journaled_twice,
    sometimes=(
        Sometimes(claim="the zombie is told", happened=lambda evidence: ("lost",) in evidence.notes),
        Sometimes(claim="the zombie is in time", happened=lambda evidence: ("journaled", "zombie") in evidence.notes),
    ),
    plants=(
        Plant(name="no guard", breaks="the zombie journals beside its successor"),
        Plant(name="guard without a lock", breaks="the successor comes between the guard and the commit"),
    ),
    rewrites={
        "no guard": proof_claims.NO_GUARD,
        "guard without a lock": proof_claims.GUARD_WITHOUT_LOCK,
    },
)

# -- two people -----------------------------------------------------------------------------------------------------------


async def _prepare_attention(database: Database) -> None:
    await _prepare_begun(database)
    await database.transact(lambda: _stuck(database))


def _stuck(database: Database) -> Script[None]:
    yield from database.claims.finish(claim_kind(NAME), [MINE])
    yield from sql.write(
        NAME,
        [
            sql.NewEntry(ID, 2, "ask", "failed", 1, "no", None),
            sql.NewEntry(ID, 3, "ask", "attention", 0, "no", None),
        ],
    )
    yield from sql.move(NAME, [ID], "attention", "no", 0)


def _decides(how: Literal["completed", "compensated", "retry"]) -> Main:
    async def main(process: Stepping) -> None:
        database = process.database()
        try:
            if how == "retry":
                await database.transact(lambda: operations.retry(database, NAME, ID))
            else:
                await database.transact(lambda: operations.resolve(NAME, ID, outcome=how, reason="by hand"))
        except InvalidInput:
            process.note("refused", how)
        else:
            process.note("decided", how)

    return main


def _decided_twice(evidence: Evidence) -> list[str]:
    decided = [note[1] for note in evidence.notes if note[0] == "decided"]
    ((state, entries),) = evidence.fetch(
        "SELECT state, (SELECT count(*) FROM faultproof_saga_entry) FROM faultproof_saga"
    )
    claims = evidence.fetch("SELECT count(*) FROM faultproof_claim")
    expected = {"retry": "running"}.get(decided[0], decided[0]) if decided else ""
    if len(decided) == 1 and (state, entries) == (expected, 4) and claims == [(int(decided == ["retry"]),)]:
        return []
    return [f"{decided} decided, the saga is {state}, with {entries} entries and {claims} claims"]


def _deciding(name: str, one: Literal["completed", "retry"]) -> Case:
    return Case(
        name=f"{_HERE}:{name}",
        claim="Of two people who decide on a saga that wants attention at the same time one does, and the other is told.",
        prepare=_prepare_attention,
        sessions=lambda plant: {"one": _decides(one), "other": _decides("compensated")},
        wrong=_decided_twice,
        sometimes=tuple(
            Sometimes(claim=f"it is {how}", happened=lambda evidence, how=how: how in noted(evidence, "decided"))  # type: ignore[misc]
            for how in (one, "compensated")
        ),
        plants=(Plant(name="not taken in hand", breaks="both decide, on what they both saw"),),
        rewrites={"not taken in hand": replaced(f"{_SQL}.reopen", "AND state = 'attention'", "")},
    )


RESOLVE = _deciding("RESOLVE", "completed")
RETRY = _deciding("RETRY", "retry")
CASES = (START, START_OTHER, START_SERIALIZABLE, ANSWER, LOOK, SUCCEED, RESOLVE, RETRY)

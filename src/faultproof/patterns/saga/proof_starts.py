"""Starts, simulated: two clients who start the same sagas at the same time, again after a crash, and by mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from faultproof.errors import KeyReused
from faultproof.patterns.saga import sql
from faultproof.patterns.saga.journal import Journal, Start, claim_kind
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Step, StepContext
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.primitives.group_commit import Ok, Outcome
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

ORDER, PARCEL = "order", "parcel"
FIRST = ((ORDER, "1", "tea"), (ORDER, "2", "tea"), (PARCEL, "1", "box"), (PARCEL, "2", "box"))
"""Saga, id and input. The ids of one saga say nothing of those of another."""
SECOND = ((ORDER, "1", "tea"), (ORDER, "2", "milk"), (ORDER, "3", "milk"), (ORDER, "3", "milk"))
"""What is known by then, an id with another input, and one start that is made twice at once."""

TIMES = 2
"""Each client starts its sagas so often, all at once, as if it had no answers."""


class _Workload:
    """Two clients. Nobody goes on with what they start."""

    def __init__(self, plant: str | None) -> None:
        self._plant = plant

    def processes(self) -> dict[str, Main]:
        """By name."""
        return {
            "first": lambda process: self._client(process, FIRST),
            "second": lambda process: self._client(process, SECOND),
        }

    async def _client(self, process: Process, asked: Sequence[tuple[str, str, str]]) -> None:
        database = process.database()
        sagas = {name: _saga(database, name, self._plant) for name in (ORDER, PARCEL)}
        for _ in range(TIMES):
            await asyncio.gather(*(self._start(process, database, sagas[saga], id, input) for saga, id, input in asked))
        process.note("ready", process.name)

    async def _start(self, process: Process, database: Database, saga: Saga[str], id: str, input: str) -> None:
        try:
            is_new = await saga.start(id, input)
        except KeyReused:
            process.note("told", saga.name, id, input, "reused")
            return
        if is_new and self._plant == "hands out apart":
            await database.transact(lambda: database.claims.add(claim_kind(saga.name), [id]))
        process.note("told", saga.name, id, input, "new" if is_new else "known")


async def _go(context: StepContext[str]) -> None: ...


def _saga(database: Database, name: str, plant: str | None = None) -> Saga[str]:
    saga = Saga(database, name, input=str, steps=[Step.remote(_go, name="go", undo=NOTHING_TO_UNDO)])
    saga._journal.__class__ = _JOURNALS.get(plant, Journal)
    return saga


async def _prepare(database: Database) -> None:
    await _saga(database, ORDER).install()


# -- the verdict ------------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    return noted(evidence, "ready") == {"first", "second"}


def _wrong_words(evidence: Evidence) -> list[str]:
    stored = {(saga, id): input for saga, id, input in evidence.fetch("SELECT saga, id, input FROM faultproof_saga")}
    wrong, new = [], set[tuple[str, str]]()
    for saga, id, input, word in (note[1:] for note in evidence.notes if note[0] == "told"):
        what = f"who started {id} of {saga} with {input} was told that it is {word}"
        if (saga, id) not in stored:
            wrong.append(f"{what}, and there is none")
        elif (word == "reused") != (stored[saga, id] != f'"{input}"'):
            wrong.append(f"{what}, and there it has {stored[saga, id]}")
        if word == "new" and (saga, id) in new:
            wrong.append(f"{what}, and so was somebody before")
        elif word == "new":
            new.add((saga, id))
    return wrong


def _left_alone(evidence: Evidence) -> list[str]:
    claims = set(evidence.fetch("SELECT kind, id FROM faultproof_claim"))
    return [
        f"{id} of {saga} was started, and nobody will find it"
        for saga, id in evidence.fetch("SELECT saga, id FROM faultproof_saga")
        if (claim_kind(saga), id) not in claims
    ]


def _were_told(word: str) -> Sometimes:
    return Sometimes(
        claim=f"a client is told that a saga is {word}",
        happened=lambda evidence: any(note[0] == "told" and note[-1] == word for note in evidence.notes),
    )


# -- planted bugs -----------------------------------------------------------------------------------------------------


class _ComparesNothing(Journal):
    """One id is taken for one input."""

    def start(self, starts: Sequence[Start]) -> Script[list[Outcome[bool]]]:
        of, items = starts[0].definition, [start.row for start in starts]
        new = set((yield from sql.insert(self._saga, of.version, of.shape.fingerprint, of.shape.text, items)))
        if new:
            yield from self._hand_out([start for start in starts if start.row.id in new])
        return [Ok(item.id in new) for item in items]


class _HandsOutNothing(Journal):
    """The client does, in a transaction of its own."""

    def _hand_out(self, new: Sequence[Start]) -> Script[None]:
        yield from ()


_JOURNALS: dict[str | None, type[Journal]] = {
    "compares nothing": _ComparesNothing,
    "hands out apart": _HandsOutNothing,
}

STARTS = Proof(
    name="faultproof.patterns.saga.proof:STARTS",
    claim=(
        "However often a saga is started, and by whom, it is there once and somebody will find it; one caller at most is told "
        "that it is new, and who gives its id with another input is told so, whatever sagas of other names are called."
    ),
    faults=ANY_FAULT,
    assumptions=("a commit that was acknowledged survives (the database's durability setting)",),
    not_tested=(
        "two starts at the same moment: simulated SQLite has one writer (`START` and its companions in `proof_stepped`)",
    ),
    prepare=_prepare,
    processes=lambda plant: _Workload(plant).processes(),
    done=_done,
    eventually=(
        Eventually(claim="what callers are told of their starts is so", wrong=_wrong_words),
        Eventually(claim="somebody will find every saga", wrong=_left_alone),
    ),
    sometimes=tuple(_were_told(word) for word in ("new", "known", "reused")),
    plants=(
        Plant(
            name="compares nothing", breaks="who uses an id again by mistake takes another saga for the one it started"
        ),
        Plant(name="hands out apart", breaks="a crash behind the start leaves a saga that nobody will find"),
    ),
)

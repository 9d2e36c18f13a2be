"""Idempotency between sessions: the same request at the same time is done once, and answered twice."""

from __future__ import annotations

from collections.abc import Mapping

from faultproof.errors import LeaseLost
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.primitives.idempotency import Idempotency
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Isolation, Main, Stepping, dropped, replaced

_HERE = "faultproof.prove.stepped.proof_idempotency"
_KEYS = "primitives.idempotency"
KEY = "pay-1"


class _Declined(Exception):
    """What the work of the first caller raises, in one of the cases."""


@sql("INSERT INTO payment (payer) VALUES (:payer)")
def _pay(payer: str) -> None: ...


def _keys(database: Database, ttl: float = 30.0) -> Idempotency[str]:
    return Idempotency(database, "payments", answer=str, ttl=ttl)


async def _prepare(database: Database) -> None:
    await _keys(database).install()
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE payment (payer TEXT NOT NULL)")


def _work(payer: str, *, fails: bool = False) -> Script[str]:
    yield from _pay(payer)
    if fails:
        raise _Declined
    return f"paid by {payer}"


def _caller(*, fails: bool = False) -> Main:
    async def main(process: Stepping) -> None:
        keys = _keys(process.database())
        try:
            answer = await process.database().transact(
                lambda: keys.script(KEY, {"amount": 1}, _work(process.name, fails=fails))
            )
        except _Declined:
            process.note("declined", process.name)
        else:
            process.note("answered", answer)

    return main


def _wrong(evidence: Evidence) -> list[str]:
    payers = [payer for (payer,) in evidence.fetch("SELECT payer FROM payment")]
    answers = [note[1] for note in evidence.notes if note[0] == "answered"]
    if len(payers) == 1 and set(answers) == {f"paid by {payers[0]}"}:
        return []
    return [f"one request was paid by {payers}, and the answers were {answers}"]


_WAITED = "faultproof_idempotency.answer IS NULL AND faultproof_idempotency.until_us <= {now} AND"

ONCE = Case(
    name=f"{_HERE}:ONCE",
    claim="Of two calls with one key at the same time one does the work, and both get its answer.",
    prepare=_prepare,
    sessions=lambda plant: {"one": _caller(), "other": _caller()},
    wrong=_wrong,
    sometimes=(
        Sometimes(claim="either is first", happened=lambda evidence: noted(evidence, "answered") == {"paid by other"}),
    ),
    plants=(
        Plant(name="does what was done", breaks="whoever waited for the first does the work once more"),
        Plant(
            name="answer not kept", breaks="whoever waited for the first finds no answer, and does the work once more"
        ),
    ),
    rewrites={
        "does what was done": replaced(f"{_KEYS}._begin", _WAITED, ""),
        "answer not kept": dropped(f"{_KEYS}._finish"),
    },
)

DECLINED = Case(
    name=f"{_HERE}:DECLINED",
    claim="Where the first call's work fails and is rolled back, the second, which waited for it, does its own.",
    prepare=_prepare,
    sessions=lambda plant: {"declined": _caller(fails=True), "other": _caller()},
    wrong=lambda evidence: (
        [
            f"{note[1]!r}, although only the other could pay"
            for note in evidence.notes
            if note[0] == "answered" and note[1] != "paid by other"
        ]
        + ([] if evidence.fetch("SELECT payer FROM payment") == [("other",)] else ["the payment is not the other's"])
    ),
    sometimes=(
        Sometimes(
            claim="the declined one comes later, and is given the answer of the other",
            happened=lambda evidence: not noted(evidence, "declined"),
        ),
    ),
)
THREE = Case(
    name=f"{_HERE}:THREE",
    claim=ONCE.claim.replace("two", "three").replace("both", "all"),
    prepare=_prepare,
    sessions=lambda plant: {"one": _caller(), "other": _caller(), "third": _caller()},
    wrong=_wrong,
    plants=ONCE.plants[:1],
    rewrites={"does what was done": ONCE.rewrites["does what was done"]},
)


# -- joined ---------------------------------------------------------------------------------------------------------------


def _joined(isolation: Isolation) -> Main:
    async def main(process: Stepping) -> None:
        keys = _keys(process.database())
        process.note(
            "answered",
            await process.joined(isolation, lambda tx: tx.run(keys.script(KEY, {"amount": 1}, _work(process.name)))),
        )

    return main


def _at(isolation: Isolation) -> Case:
    return Case(
        name=f"{_HERE}:JOINED_{isolation.replace(' ', '_').upper()}",
        claim=f"{ONCE.claim} In transactions of the user's own, at {isolation.upper()}.",
        prepare=_prepare,
        sessions=lambda plant: {"one": _joined(isolation), "other": _joined(isolation)},
        wrong=_wrong,
        plants=ONCE.plants[:1],
        rewrites={"does what was done": ONCE.rewrites["does what was done"]},
    )


JOINED_READ_COMMITTED = _at("read committed")
JOINED_REPEATABLE_READ = _at("repeatable read")
JOINED_SERIALIZABLE = _at("serializable")


# -- by a lease -----------------------------------------------------------------------------------------------------------


def _leased(ttl: float) -> Main:
    """What `Idempotency.run` does around work that is not in the database, without its waiting."""

    async def main(process: Stepping) -> None:
        database, keys = process.database(), _keys(process.database(), ttl)
        token, found = await database.transact(lambda: keys._take(KEY, "same"))
        if token is None:
            process.note("finds", found and found.answer)
            return
        try:
            await database.transact(lambda: keys._answered(KEY, token, f'"{process.name}"'))
        except LeaseLost:
            process.note("lost", process.name)
        else:
            process.note("stored", process.name)

    return main


def _wrong_answer(evidence: Evidence) -> list[str]:
    stored = [note[1] for note in evidence.notes if note[0] == "stored"]
    found = [note[1] for note in evidence.notes if note[0] == "finds" and note[1]]
    rows = [answer for (answer,) in evidence.fetch("SELECT answer FROM faultproof_idempotency")]
    if len(stored) == 1 and rows == [f'"{stored[0]}"'] and set(found) <= set(rows):
        return []
    return [f"{stored} stored their answers, the table has {rows}, and others were given {found}"]


def _both_leased(plant: str | None) -> Mapping[str, Main]:
    return {"slow": _leased(0.000001), "other": _leased(3_600.0)}


TAKEN_OVER = Case(
    name=f"{_HERE}:TAKEN_OVER",
    claim="Of two that did the work, because the first one's lease ran out, one stores its answer and the other is told.",
    prepare=_prepare,
    sessions=_both_leased,
    wrong=_wrong_answer,
    sometimes=(
        Sometimes(claim="the slow one is told", happened=lambda evidence: noted(evidence, "lost") == {"slow"}),
        Sometimes(claim="the slow one is in time", happened=lambda evidence: noted(evidence, "stored") == {"slow"}),
    ),
    plants=(Plant(name="answers twice", breaks="the slow one overwrites an answer that was given out"),),
    rewrites={
        # Either condition would do: who has taken over has another token, or has answered already.
        "answers twice": replaced(f"{_KEYS}._finish", "AND token = :token AND answer IS NULL", "AND token >= :token"),
    },
)


async def _gives_up(process: Stepping) -> None:
    database, keys = process.database(), _keys(process.database(), 0.000001)
    token, _ = await database.transact(lambda: keys._take(KEY, "same"))
    if token is not None:
        await database.transact(lambda: keys._freed(KEY, token))


GIVEN_UP = Case(
    name=f"{_HERE}:GIVEN_UP",
    claim="Whoever gives a key up after his lease ran out takes it from nobody who has taken it over.",
    prepare=_prepare,
    sessions=lambda plant: {"slow": _gives_up, "other": _leased(3_600.0)},
    wrong=lambda evidence: [
        f"{note[1]} did the work under a lease that runs, and could not store its answer"
        for note in evidence.notes
        if note[0] == "lost"
    ],
    sometimes=(
        Sometimes(
            claim="the other stores its answer", happened=lambda evidence: noted(evidence, "stored") == {"other"}
        ),
    ),
    plants=(Plant(name="gives up without a token", breaks="the other's claim is deleted with its own"),),
    rewrites={
        "gives up without a token": replaced(f"{_KEYS}._give_up", "token = :token", ":token = :token"),
    },
)
CASES = (
    ONCE,
    DECLINED,
    THREE,
    JOINED_READ_COMMITTED,
    JOINED_REPEATABLE_READ,
    JOINED_SERIALIZABLE,
    TAKEN_OVER,
    GIVEN_UP,
)

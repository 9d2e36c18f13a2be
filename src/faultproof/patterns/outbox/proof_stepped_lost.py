"""The outbox's members between two sessions: one that loses its partition under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faultproof.errors import LeaseLost
from faultproof.patterns.outbox.membership import group_kind
from faultproof.patterns.outbox.proof_stepped import GROUP, HOUR_US, LOG, prepare_group
from faultproof.patterns.outbox.proof_stepped_members import PARKING, gives_up, leased, resurrected, what_is_due
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor
from faultproof.ports.script import Script
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Main, Stepping
from faultproof.prove.stepped.proof_claims import NO_GUARD

_HERE = "faultproof.patterns.outbox.proof_stepped_lost"

# Between its guard and what comes behind it nobody takes over: the lock that the guard takes is all there is.


def _losing(*transactions: Callable[[Parked], Script[Any]]) -> Main:
    """Its lease has run out when it has found what is due; then these, guarded."""

    async def main(process: Stepping) -> None:
        database = process.database()

        def first() -> Script[tuple[list[Any], list[Parked]]]:
            took = yield from leased(process, 0)
            return took, (yield from what_is_due(process)) if took else []

        def guarded(work: Callable[[Parked], Script[Any]]) -> Script[None]:
            yield from database.claims.guard(group_kind(LOG, GROUP), took)
            yield from work(due[0])

        took, due = await database.transact(first)
        try:
            for work in transactions if due else ():
                await database.transact(lambda work=work: guarded(work))  # type: ignore[misc]
        except LeaseLost:
            process.note("lost", process.name)

    return main


def _begins(parked: Parked) -> Script[bool]:
    return (yield from PARKING.begin(parked, again_in_us=0))


def _says_later(parked: Parked) -> Script[None]:
    yield from PARKING.not_counted(parked, again_in_us=0)


def _begins_and_says_later(parked: Parked) -> Script[None]:
    yield from _begins(parked)
    yield from _says_later(parked)


async def _prepare_one_due(database: Database) -> None:
    await prepare_group(database)
    records = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=1))
    await database.transact(lambda: PARKING.aside(records, error="suspected"))


def _later(name: str, *transactions: Callable[[Parked], Script[Any]], together: str) -> Case:
    return Case(
        name=f"{_HERE}:{name}",
        claim="A member that lost its partition does not take an attempt back when its successor has given the event up; "
        f"{together}.",
        prepare=_prepare_one_due,
        sessions=lambda plant: {"member": _losing(*transactions), "successor": gives_up},
        wrong=resurrected,
        sometimes=(Sometimes(claim="the member is told", happened=lambda evidence: bool(noted(evidence, "lost"))),),
        plants=(Plant(name="no guard", breaks="a dead letter is attempted, and nobody has replayed it"),),
        rewrites={"no guard": NO_GUARD},
        preemptions=2,
    )


LATER = _later("LATER", _begins, _says_later, together="the attempt was begun in a transaction of its own")
LATER_AT_ONCE = _later(
    "LATER_AT_ONCE", _begins_and_says_later, together="the attempt was begun in the same transaction"
)


async def _puts_off(process: Stepping) -> None:
    """It attempts what is due, and what that needs is not there."""
    database = process.database()

    def work() -> Script[list[Parked]]:
        due = (yield from what_is_due(process)) if (yield from leased(process, HOUR_US)) else []
        if due:
            yield from _begins_and_says_later(due[0])
        return due

    for parked in await database.transact(work):
        process.note("put off", parked.attempts)


def _counted_in_vain(evidence: Evidence) -> list[str]:
    ((attempts,),) = evidence.fetch("SELECT attempts FROM faultproof_parked")
    before = noted(evidence, "put off")
    return [] if before in (set(), {attempts}) else [f"attempts were {before}, and are {attempts}: one nobody made"]


BEGIN = Case(
    name=f"{_HERE}:BEGIN",
    claim="A member that lost its partition counts no attempt any more.",
    prepare=_prepare_one_due,
    sessions=lambda plant: {"member": _losing(_begins), "successor": _puts_off},
    wrong=_counted_in_vain,
    sometimes=(Sometimes(claim="the member is told", happened=lambda evidence: bool(noted(evidence, "lost"))),),
    plants=(Plant(name="no guard", breaks="an event is given up with an attempt less than it has"),),
    rewrites={"no guard": NO_GUARD},
    preemptions=2,
)

CASES = (LATER, LATER_AT_ONCE, BEGIN)

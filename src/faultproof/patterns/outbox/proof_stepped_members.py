"""The outbox's members between two sessions: one that lost its partition and has it again, and two that share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from faultproof.errors import LeaseLost
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.membership import Membership, group_kind
from faultproof.patterns.outbox.outbox import Outbox, OutboxOptions
from faultproof.patterns.outbox.poison import Parking, Verdict
from faultproof.patterns.outbox.proof_stepped import GROUP, HOUR_US, LOG, SQL, Changed, effect, prepare_group
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Script
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Main, Stepping, replaced

_HERE = "faultproof.patterns.outbox.proof_stepped_members"
PARKING = Parking(LOG, GROUP)
Records = list[Record]
Two: TypeAlias = Callable[[Stepping], Script[Any]]


def membership(database: Database) -> Membership:
    return Membership(database, LOG, GROUP, owner="", ttl=1.0)


def leased(process: Stepping, ttl_us: int) -> Script[list[Any]]:
    return (yield from process.database().claims.take(group_kind(LOG, GROUP), process.name, ttl_us=ttl_us, limit=1))


# -- a partition that was lost, and is held again -------------------------------------------------------------------------
# The guard says nothing then: the lease is this member's own. What it did and read under the one before may be out of date.


def _regaining(before: Two, after: Callable[[Any], Script[Any]]) -> Main:
    """Two transactions, under two leases. `before`: what the first one finds, and the second one needs."""

    async def main(process: Stepping) -> None:
        def first() -> Script[Any]:
            return (yield from before(process)) if (yield from leased(process, 0)) else None

        def second() -> Script[None]:
            if (yield from leased(process, HOUR_US)):
                yield from after(found)

        try:
            if found := await process.database().transact(first):
                await process.database().transact(second)
        except LeaseLost:
            process.note("lost", process.name)

    return main


def what_is_due(process: Stepping) -> Script[list[Parked]]:
    return (yield from sql.due(LOG, GROUP, [0], 1))


async def gives_up(process: Stepping) -> None:
    """It attempts what is due, a last time."""
    database = process.database()

    def first() -> Script[tuple[list[Any], list[Parked]]]:
        took = yield from leased(process, 0)
        return took, (yield from what_is_due(process)) if took else []

    def second() -> Script[bool]:
        yield from database.claims.guard(group_kind(LOG, GROUP), took)
        if not (yield from PARKING.begin(due[0], again_in_us=0)):
            return False
        yield from PARKING.failed_again(due[0], Verdict(None), "no")
        return True

    took, due = await database.transact(first)
    if due:
        with suppress(LeaseLost):
            is_last = await database.transact(second)
            if is_last:
                process.note("given up", due[0].id)


def resurrected(evidence: Evidence) -> list[str]:
    parked = evidence.fetch('SELECT dead, due_us, error FROM faultproof_parked WHERE "offset" = 0')
    if not noted(evidence, "given up") or parked == [(1, None, "no")]:
        return []
    return [f"the event was given up, and then somebody changed it who had lost it before: {parked}"]


def _regained(name: str, *, after: str, member: Main, error: str | None, plant: Plant, old: tuple[str, str]) -> Case:
    async def prepare(database: Database) -> None:
        await prepare_group(database)
        records = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=2))
        await database.transact(lambda: PARKING.aside(records, error=error))

    return Case(
        name=f"{_HERE}:{name}",
        claim=f"A member that lost its partition and has it again, {after}, leaves alone what was given up meanwhile.",
        prepare=prepare,
        sessions=lambda plant: {"member": member, "successor": gives_up},
        wrong=resurrected,
        sometimes=(
            Sometimes(claim="the event is given up", happened=lambda evidence: bool(noted(evidence, "given up"))),
        ),
        plants=(plant,),
        rewrites={plant.name: replaced(f"{SQL}.{old[0]}", old[1], f"({old[1]} OR true)")},
        preemptions=2,
    )


def _took(process: Stepping) -> Script[list[Parked]]:
    due = yield from what_is_due(process)
    return (yield from PARKING.take(due, 10)) if due else []


def _begun(process: Stepping) -> Script[list[Parked]]:
    due = yield from what_is_due(process)
    if due:
        yield from PARKING.begin(due[0], again_in_us=0)
    return due


REGAINED_TAKE = _regained(
    "REGAINED_TAKE",
    after="and takes events to deliver them together",
    member=_regaining(what_is_due, lambda due: PARKING.take(due, 10)),
    error=None,
    plant=Plant(name="takes what was attempted", breaks="a dead letter is delivered as if it had never been attempted"),
    old=("take_together", "error IS NULL"),
)
REGAINED_SETTLE = _regained(
    "REGAINED_SETTLE",
    after="and settles what it took",
    member=_regaining(_took, PARKING.settled_together),
    error=None,
    plant=Plant(name="settles what was attempted", breaks="a dead letter is gone, and nobody has decided on it"),
    old=("unpark_together", "attempts = 0"),
)
REGAINED_PUT_BACK = _regained(
    "REGAINED_PUT_BACK",
    after="and puts back what it took",
    member=_regaining(_took, PARKING.put_back),
    error=None,
    plant=Plant(name="puts back what was attempted", breaks="a dead letter does not say any more what it died of"),
    old=("put_back", "attempts = 0"),
)
REGAINED_BEGIN = _regained(
    "REGAINED_BEGIN",
    after="and begins an attempt",
    member=_regaining(what_is_due, lambda due: PARKING.begin(due[0], again_in_us=0)),
    error="suspected",
    plant=Plant(name="attempts what was attempted", breaks="a dead letter is attempted, and nobody has replayed it"),
    old=("begin_attempt", "attempts = :attempts"),
)
REGAINED_FAIL = _regained(
    "REGAINED_FAIL",
    after="and writes down that its attempt failed",
    member=_regaining(_begun, lambda due: PARKING.failed_again(due[0], Verdict(0), "not yet")),
    error="suspected",
    plant=Plant(name="fails what is dead", breaks="a dead letter is attempted again, and nobody has replayed it"),
    old=("record_failure", "dead = 0"),
)


def _handling(process: Stepping, records: Records) -> Script[None]:
    for record in records:
        yield from effect(record.id)
    yield from membership(process.database()).past(records, None)


def _news(process: Stepping) -> Script[tuple[Stepping, Records]]:
    (standing,) = yield from sql.standing(LOG, GROUP, [0])
    return process, (yield from process.database().logs.read(LOG, [Cursor(0, standing.offset)], limit=10))


async def _handles(process: Stepping) -> None:
    def work() -> Script[None]:
        if (yield from leased(process, 0)):
            _, records = yield from _news(process)
            if records:
                yield from _handling(process, records)

    await process.database().transact(work)


def _repeated(evidence: Evidence) -> list[str]:
    ((effects, each),) = evidence.fetch("SELECT count(*), count(DISTINCT event) FROM effect")
    return [] if effects == each else [f"{effects} effects of {each} events"]


REGAINED_NEW = Case(
    name=f"{_HERE}:REGAINED_NEW",
    claim="A member that lost its partition and has it again handles nothing that was handled meanwhile.",
    prepare=prepare_group,
    sessions=lambda plant: {
        "member": _regaining(_news, lambda found: _handling(*found)),
        "successor": _handles,
    },
    wrong=_repeated,
    sometimes=(Sometimes(claim="the member is told", happened=lambda evidence: bool(noted(evidence, "lost"))),),
    plants=(Plant(name="cursor moved blindly", breaks="what was handled meanwhile is handled again"),),
    rewrites={
        "cursor moved blindly": replaced(f"{SQL}.advance", " AND moves.old = faultproof_inbox.next_offset", ""),
    },
    preemptions=2,
)

# -- two that share -------------------------------------------------------------------------------------------------------


async def _prepare_two_partitions(database: Database) -> None:
    """Two partitions, with an event in each."""
    outbox = Outbox(database, events={"changed": Changed}, options=OutboxOptions(partitions=2))
    await outbox.install()
    async with database.transaction() as tx:
        for key in ("a", "d"):
            await outbox.publish(Changed(1), key=key, tx=tx)
        await tx.run(database.logs.sequence(LOG, [0, 1], limit=2, moved=lambda count: None))
        await tx.run(membership(database)._join(True))


def _first_of(database: Database, partition: int) -> Script[Records]:
    return database.logs.read(LOG, [Cursor(partition, 0)], limit=1)


async def _prepare_two_due(database: Database) -> None:
    await _prepare_two_partitions(database)
    for partition in (0, 1):
        (record,) = await database.read(_first_of(database, partition))
        await database.transact(lambda record=record: PARKING.failed(record, Verdict(0), "not yet"))  # type: ignore[misc]


def _member_of(partition: int) -> Main:
    async def main(process: Stepping) -> None:
        database = process.database()
        (parked,) = await database.read(sql.due(LOG, GROUP, [partition], 10), snapshot=False)

        def settled() -> Script[None]:
            yield from PARKING.settled(parked)
            process.note("about to commit", process.name)

        await database.transact(settled)
        process.note("committed", process.name)
        (standing,) = await database.read(sql.standing(LOG, GROUP, [partition]), snapshot=False)
        process.note("settled", parked.partition)
        process.note("next", standing.next_due_in_us)

    return main


def _at_the_same_time(evidence: Evidence) -> bool:
    return [kind for kind, *_ in evidence.notes[:2]] == ["about to commit", "about to commit"]


def _not_its_own(evidence: Evidence) -> list[str]:
    settled, due = noted(evidence, "settled"), noted(evidence, "next")
    return [] if (settled, due) == ({0, 1}, {None}) else [f"partitions {settled} were settled, and then {due} were due"]


SHARE = Case(
    name=f"{_HERE}:SHARE",
    claim="Of two members each attempts what is due in its own partition, and neither is called for what is due in the "
    "other's, nor waits for it.",
    prepare=_prepare_two_due,
    sessions=lambda plant: {"one": _member_of(0), "other": _member_of(1)},
    wrong=_not_its_own,
    sometimes=(Sometimes(claim="both are at it at the same time", happened=_at_the_same_time),),
    plants=(Plant(name="called for others", breaks="who has nothing to do looks again and again for what others do"),),
    rewrites={
        "called for others": replaced(
            f"{SQL}.standing",
            'due_us IS NOT NULL AND "partition" IN {partitions})',
            "due_us IS NOT NULL)",
        )
    },
    preemptions=2,
)


async def _puts_back(process: Stepping) -> None:
    """It takes an event that only waited, to deliver it together with others, and has no time for it."""
    database = process.database()
    records = await database.read(_first_of(database, 0), snapshot=False)

    def taken() -> Script[list[Parked]]:
        yield from PARKING.aside(records)
        due = yield from sql.due(LOG, GROUP, [0], 1)
        return (yield from PARKING.take(due, 10))

    parked = await database.transact(taken)
    await database.transact(lambda: PARKING.put_back(parked))


async def _sets_aside(process: Stepping) -> None:
    database = process.database()
    records = await database.read(_first_of(database, 1), snapshot=False)
    await database.transact(lambda: PARKING.aside(records, error="suspected"))


def _no_suspect(evidence: Evidence) -> list[str]:
    errors = evidence.fetch('SELECT error FROM faultproof_parked ORDER BY "partition"')
    return (
        []
        if errors == [(None,), ("suspected",)]
        else [f"the second is a suspect, the first is none, and they say {errors}"]
    )


SUSPECT = Case(
    name=f"{_HERE}:SUSPECT",
    claim="An event that is set aside because processes died of it stays a suspect, and is attempted alone, whatever another "
    "member puts back.",
    prepare=_prepare_two_partitions,
    sessions=lambda plant: {"puts back": _puts_back, "sets aside": _sets_aside},
    wrong=_no_suspect,
    plants=(
        Plant(name="puts all back", breaks="the next process dies of it together with others, and does not count it"),
    ),
    rewrites={"puts all back": replaced(f"{SQL}.put_back", "attempts = 0 AND", "attempts = 0 OR")},
    preemptions=2,
)

CASES = (
    REGAINED_TAKE,
    REGAINED_SETTLE,
    REGAINED_PUT_BACK,
    REGAINED_BEGIN,
    REGAINED_FAIL,
    REGAINED_NEW,
    SHARE,
    SUSPECT,
)

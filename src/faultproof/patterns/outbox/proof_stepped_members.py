"""The outbox's members between two sessions: one that lost its partition and has it again, two that share, one that changes
the group's choice, and one that joins a group again which is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from faultproof.errors import Failed, LeaseLost
from faultproof.patterns.outbox import operations, sql
from faultproof.patterns.outbox.membership import Membership, group_kind
from faultproof.patterns.outbox.poison import Parking, Verdict
from faultproof.patterns.outbox.proof_stepped import GROUP, HOUR_US, LOG, SQL, effect, prepare_group
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Script
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Main, Stepping, dropped, replaced

_HERE = "faultproof.patterns.outbox.proof_stepped_members"
_PARKING = Parking(LOG, GROUP)
Records = list[Record]
Two: TypeAlias = Callable[[Stepping], Script[Any]]


def _membership(database: Database) -> Membership:
    return Membership(database, LOG, GROUP, owner="", ttl=1.0)


def _leased(process: Stepping, ttl_us: int) -> Script[list[Any]]:
    return (yield from process.database().claims.take(group_kind(LOG, GROUP), process.name, ttl_us=ttl_us, limit=1))


# -- a partition that was lost, and is held again -------------------------------------------------------------------------
# The guard says nothing then: the lease is this member's own. What it did and read under the one before may be out of date.


def _regaining(before: Two, after: Callable[[Any], Script[Any]]) -> Main:
    """Two transactions, under two leases. `before`: what the first one finds, and the second one needs."""

    async def main(process: Stepping) -> None:
        def first() -> Script[Any]:
            return (yield from before(process)) if (yield from _leased(process, 0)) else None

        def second() -> Script[None]:
            if (yield from _leased(process, HOUR_US)):
                yield from after(found)

        try:
            if found := await process.database().transact(first):
                await process.database().transact(second)
        except LeaseLost:
            process.note("lost", process.name)

    return main


def _due(process: Stepping) -> Script[list[Parked]]:
    return (yield from sql.due(LOG, GROUP, [0], 1))


async def _gives_up(process: Stepping) -> None:
    """It attempts what is due, a last time."""
    database = process.database()

    def first() -> Script[tuple[list[Any], list[Parked]]]:
        took = yield from _leased(process, 0)
        return took, (yield from _due(process)) if took else []

    def second() -> Script[bool]:
        yield from database.claims.guard(group_kind(LOG, GROUP), took)
        if not (yield from _PARKING.begin(due[0], again_in_us=0)):
            return False
        yield from _PARKING.failed_again(due[0], Verdict(None), "no")
        return True

    took, due = await database.transact(first)
    with suppress(LeaseLost):
        if due and await database.transact(second):
            process.note("given up", due[0].id)


def _resurrected(evidence: Evidence) -> list[str]:
    parked = evidence.fetch('SELECT dead, due_us, error FROM faultproof_parked WHERE "offset" = 0')
    if not noted(evidence, "given up") or parked == [(1, None, "no")]:
        return []
    return [f"the event was given up, and then somebody changed it who had lost it before: {parked}"]


def _regained(name: str, *, after: str, member: Main, error: str | None, plant: Plant, old: tuple[str, str]) -> Case:
    async def prepare(database: Database) -> None:
        await prepare_group(database)
        records = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=2))
        await database.transact(lambda: _PARKING.aside(records, error=error))

    return Case(
        name=f"{_HERE}:{name}",
        claim=f"A member that lost its partition and has it again, {after}, leaves alone what was given up meanwhile.",
        prepare=prepare,
        sessions=lambda plant: {"member": member, "successor": _gives_up},
        wrong=_resurrected,
        sometimes=(
            Sometimes(claim="the event is given up", happened=lambda evidence: bool(noted(evidence, "given up"))),
        ),
        plants=(plant,),
        rewrites={plant.name: replaced(f"{SQL}.{old[0]}", old[1], f"({old[1]} OR true)")},
        preemptions=2,
    )


def _took(process: Stepping) -> Script[list[Parked]]:
    due = yield from _due(process)
    return (yield from _PARKING.take(due, 10)) if due else []


def _begun(process: Stepping) -> Script[list[Parked]]:
    due = yield from _due(process)
    if due:
        yield from _PARKING.begin(due[0], again_in_us=0)
    return due


REGAINED_TAKE = _regained(
    "REGAINED_TAKE",
    after="and takes events to deliver them together",
    member=_regaining(_due, lambda due: _PARKING.take(due, 10)),
    error=None,
    plant=Plant(name="takes what was attempted", breaks="a dead letter is delivered as if it had never been attempted"),
    old=("take_together", "error IS NULL"),
)
REGAINED_SETTLE = _regained(
    "REGAINED_SETTLE",
    after="and settles what it took",
    member=_regaining(_took, _PARKING.settled_together),
    error=None,
    plant=Plant(name="settles what was attempted", breaks="a dead letter is gone, and nobody has decided on it"),
    old=("unpark_together", "attempts = 0"),
)
REGAINED_PUT_BACK = _regained(
    "REGAINED_PUT_BACK",
    after="and puts back what it took",
    member=_regaining(_took, _PARKING.put_back),
    error=None,
    plant=Plant(name="puts back what was attempted", breaks="a dead letter does not say any more what it died of"),
    old=("put_back", "attempts = 0"),
)
REGAINED_BEGIN = _regained(
    "REGAINED_BEGIN",
    after="and begins an attempt",
    member=_regaining(_due, lambda due: _PARKING.begin(due[0], again_in_us=0)),
    error="suspected",
    plant=Plant(name="attempts what was attempted", breaks="a dead letter is attempted, and nobody has replayed it"),
    old=("begin_attempt", "attempts = :attempts"),
)
REGAINED_FAIL = _regained(
    "REGAINED_FAIL",
    after="and writes down that its attempt failed",
    member=_regaining(_begun, lambda due: _PARKING.failed_again(due[0], Verdict(0), "not yet")),
    error="suspected",
    plant=Plant(name="fails what is dead", breaks="a dead letter is attempted again, and nobody has replayed it"),
    old=("record_failure", "dead = 0"),
)


def _handling(process: Stepping, records: Records) -> Script[None]:
    for record in records:
        yield from effect(record.id)
    yield from _membership(process.database()).past(records, None)


def _news(process: Stepping) -> Script[tuple[Stepping, Records]]:
    (standing,) = yield from sql.standing(LOG, GROUP, [0])
    return process, (yield from process.database().logs.read(LOG, [Cursor(0, standing.offset)], limit=10))


async def _handles(process: Stepping) -> None:
    def work() -> Script[None]:
        if (yield from _leased(process, 0)):
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

# -- other groups, and the group's choice ---------------------------------------------------------------------------------

_OTHERS = (("outbox", "others"), ("elsewhere", GROUP))
"""Another group of this log, and a group of the same name of another one."""


async def _with_others(database: Database) -> None:
    async with database.transaction() as tx:
        for log, group in _OTHERS:
            await tx.execute(
                """INSERT INTO faultproof_inbox (log, grp, "partition", next_offset, key_waits)
                   SELECT %s, %s, "partition", next_offset, key_waits FROM faultproof_inbox
                   WHERE log = 'outbox' AND grp = 'summary'""",
                log,
                group,
            )


def _others(evidence: Evidence) -> list[Any]:
    return evidence.fetch(
        "SELECT log, grp, key_waits FROM faultproof_inbox WHERE log <> 'outbox' OR grp <> 'summary' ORDER BY log"
    )


async def _prepare_choice(database: Database) -> None:
    """The first of two events of one key is dead, and the key waits."""
    await prepare_group(database)
    await _with_others(database)
    (record,) = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=1))
    await database.transact(lambda: _PARKING.failed(record, Verdict(None), "no"))


async def _chooser(process: Stepping) -> None:
    database = process.database()
    await database.transact(lambda: _membership(database)._join(False))


async def _parker(process: Stepping) -> None:
    database = process.database()
    records = await database.read(database.logs.read(LOG, [Cursor(0, 1)], limit=1), snapshot=False)
    await database.transact(lambda: _PARKING.aside(records))


def _stands_still(evidence: Evidence) -> list[str]:
    parked = evidence.fetch('SELECT "offset", dead, due_us IS NOT NULL FROM faultproof_parked ORDER BY "offset"')
    wrong = [] if parked == [(0, 1, False), (1, 0, True)] else [f"keys go on, and parked is {parked}"]
    others = [(log, group, 1) for log, group in sorted(_OTHERS)]
    return wrong if _others(evidence) == others else [*wrong, f"other groups have changed: {_others(evidence)}"]


CHOOSE = Case(
    name=f"{_HERE}:CHOOSE",
    claim="An event that is parked behind a dead letter while keys are told to go on is due, whichever comes first, and the "
    "choice is this group's alone.",
    prepare=_prepare_choice,
    sessions=lambda plant: {"chooses": _chooser, "parks": _parker},
    wrong=_stands_still,
    plants=(Plant(name="nothing is held", breaks="neither sees what the other did, and the event waits for ever"),),
    rewrites={"nothing is held": dropped(f"{SQL}.hold")},
)


async def _prepare_last(database: Database) -> None:
    """Keys go on, and the first of two events has had all its attempts but one."""
    await prepare_group(database)
    await database.transact(lambda: _membership(database)._join(False))
    (record,) = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=1))
    await database.transact(lambda: _PARKING.failed(record, Verdict(0), "not yet"))


async def _gives_up_unleased(process: Stepping) -> None:
    database = process.database()
    due = await database.read(sql.due(LOG, GROUP, [0], 1), snapshot=False)
    await database.transact(lambda: _PARKING.failed_again(due[0], Verdict(None), "no"))


GIVE_UP = Case(
    name=f"{_HERE}:GIVE_UP",
    claim="Where keys go on, an event that is parked behind another is due once that one is given up, whichever comes first.",
    prepare=_prepare_last,
    sessions=lambda plant: {"gives up": _gives_up_unleased, "parks": _parker},
    wrong=lambda evidence: [sentence for sentence in _stands_still(evidence) if "parked" in sentence],
    plants=(Plant(name="nothing is held", breaks="neither sees what the other did, and the event waits for ever"),),
    rewrites={"nothing is held": dropped(f"{SQL}.hold")},
)

# -- a group that is forgotten --------------------------------------------------------------------------------------------


async def _prepare_forgotten(database: Database) -> None:
    await prepare_group(database)
    await _with_others(database)


async def _forgets(process: Stepping) -> None:
    database = process.database()
    await database.transact(lambda: operations.forget(database, LOG, GROUP))


async def _joins_again(process: Stepping) -> None:
    """Its loop failed, and is started again."""
    database = process.database()
    member = _membership(database)
    member.epoch = await database.read(database.logs.epoch(LOG), snapshot=False)
    try:
        await database.transact(lambda: member._join(True))
    except Failed:
        process.note("told", process.name)


def _begun_anew(evidence: Evidence) -> list[str]:
    cursors = evidence.fetch("SELECT 1 FROM faultproof_inbox WHERE log = 'outbox' AND grp = 'summary'")
    return ["the group was forgotten, and is there again from the first event on"] if cursors else []


FORGET_JOIN_AGAIN = Case(
    name=f"{_HERE}:FORGET_JOIN_AGAIN",
    claim="A group that is forgotten does not begin anew because a member of it is started again at that moment.",
    prepare=_prepare_forgotten,
    sessions=lambda plant: {"forgets": _forgets, "joins": _joins_again},
    wrong=_begun_anew,
    sometimes=(
        Sometimes(claim="the member is told", happened=lambda evidence: bool(noted(evidence, "told"))),
        Sometimes(claim="the member is in time", happened=lambda evidence: not noted(evidence, "told")),
    ),
    plants=(Plant(name="nothing is held", breaks="the group goes between the look at it and the lock"),),
    rewrites={"nothing is held": dropped("engines.postgres.log._lock_all")},
)

CASES = (
    REGAINED_TAKE,
    REGAINED_SETTLE,
    REGAINED_PUT_BACK,
    REGAINED_BEGIN,
    REGAINED_FAIL,
    REGAINED_NEW,
    CHOOSE,
    GIVE_UP,
    FORGET_JOIN_AGAIN,
)

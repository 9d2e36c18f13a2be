"""The outbox's groups between two sessions: what becomes of a dead letter's key, and a group that is forgotten under a member
that joins it again."""

from __future__ import annotations

from typing import Any

from faultproof.errors import Failed
from faultproof.patterns.outbox import operations, sql
from faultproof.patterns.outbox.dead_letters import DeadLetters
from faultproof.patterns.outbox.poison import Verdict
from faultproof.patterns.outbox.proof_stepped import GROUP, LOG, SQL, prepare_group
from faultproof.patterns.outbox.proof_stepped_members import PARKING, membership
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Stepping, dropped, replaced

_HERE = "faultproof.patterns.outbox.proof_stepped_choices"

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
    await database.transact(lambda: PARKING.failed(record, Verdict(None), "no"))


async def _chooser(process: Stepping) -> None:
    database = process.database()
    await database.transact(lambda: membership(database)._join(False))


async def _parker(process: Stepping) -> None:
    database = process.database()
    records = await database.read(database.logs.read(LOG, [Cursor(0, 1)], limit=1), snapshot=False)
    await database.transact(lambda: PARKING.aside(records))


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
    await database.transact(lambda: membership(database)._join(False))
    (record,) = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=1))
    await database.transact(lambda: PARKING.failed(record, Verdict(0), "not yet"))


async def _gives_up_unleased(process: Stepping) -> None:
    database = process.database()
    due = await database.read(sql.due(LOG, GROUP, [0], 1), snapshot=False)
    await database.transact(lambda: PARKING.failed_again(due[0], Verdict(None), "no"))


GIVE_UP = Case(
    name=f"{_HERE}:GIVE_UP",
    claim="Where keys go on, an event that is parked behind another is due once that one is given up, whichever comes first.",
    prepare=_prepare_last,
    sessions=lambda plant: {"gives up": _gives_up_unleased, "parks": _parker},
    wrong=lambda evidence: [sentence for sentence in _stands_still(evidence) if "parked" in sentence],
    plants=(Plant(name="nothing is held", breaks="neither sees what the other did, and the event waits for ever"),),
    rewrites={"nothing is held": dropped(f"{SQL}.hold")},
)


async def _prepare_two_dead(database: Database) -> None:
    """Of one key, which waits: they died while it went on."""
    await prepare_group(database)
    records = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=2))
    for record in records:
        await database.transact(lambda record=record: PARKING.failed(record, Verdict(None), "no"))  # type: ignore[misc]


async def _replays_the_second(process: Stepping) -> None:
    letters = DeadLetters(process.database(), LOG, GROUP)
    await letters.replay((await letters.list())[1].id)


async def _joins(process: Stepping) -> None:
    database = process.database()
    await database.transact(lambda: membership(database)._join(True))


def _kept_back(evidence: Evidence) -> list[str]:
    parked = evidence.fetch('SELECT dead, due_us IS NOT NULL FROM faultproof_parked ORDER BY "offset"')
    return [] if parked == [(1, False), (0, True)] else [f"the second was replayed, and parked is {parked}"]


REPLAY_JOIN = Case(
    name=f"{_HERE}:REPLAY_JOIN",
    claim="A letter that is replayed is due, whoever joins the group with the choice that it has.",
    prepare=_prepare_two_dead,
    sessions=lambda plant: {"replays": _replays_the_second, "joins": _joins},
    wrong=_kept_back,
    plants=(Plant(name="chosen each time", breaks="who joins makes it wait again, for a letter that was left alone"),),
    rewrites={"chosen each time": replaced(f"{SQL}.choose", "key_waits <> :key_waits", "key_waits + :key_waits >= 0")},
    preemptions=2,
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
    member = membership(database)
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

CASES = (CHOOSE, GIVE_UP, REPLAY_JOIN, FORGET_JOIN_AGAIN)

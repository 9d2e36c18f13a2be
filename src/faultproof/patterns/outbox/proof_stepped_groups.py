"""The outbox's groups between two sessions: parking and settling, dead letters that two people decide on, and groups that are
forgotten."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal

from faultproof.errors import LeaseLost
from faultproof.patterns.outbox import operations, sql
from faultproof.patterns.outbox.dead_letters import DeadLetters
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.poison import Parking, Verdict
from faultproof.patterns.outbox.proof_stepped import GROUP, HOUR_US, LOG, SQL, effect, join, prepare_group
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Script
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Main, Stepping, dropped, replaced

_HERE = "faultproof.patterns.outbox.proof_stepped_groups"

# -- parking --------------------------------------------------------------------------------------------------------------


async def _prepare_parked(database: Database) -> None:
    """The first of two events of one key waits for another attempt."""
    await prepare_group(database)
    records = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=1))
    await database.transact(lambda: Parking(LOG, GROUP).aside(records))


async def _settler(process: Stepping) -> None:
    database = process.database()
    parked: list[Parked] = await database.read(sql.due(LOG, GROUP, [0], 1), snapshot=False)
    await database.transact(lambda: Parking(LOG, GROUP).settled(parked[0]))


async def _parker(process: Stepping) -> None:
    database = process.database()
    records = await database.read(database.logs.read(LOG, [Cursor(0, 1)], limit=1), snapshot=False)
    await database.transact(lambda: Parking(LOG, GROUP).aside(records))


def _uncalled(evidence: Evidence) -> list[str]:
    parked = evidence.fetch('SELECT "offset", due_us IS NOT NULL FROM faultproof_parked ORDER BY "offset"')
    return [] if parked == [(1, True)] else [f"parked is {parked}: the second of the key, and nobody will call it"]


PARK = Case(
    name=f"{_HERE}:PARK",
    claim="An event that is parked behind another of its key is due once that one is settled, whichever comes first.",
    prepare=_prepare_parked,
    sessions=lambda plant: {"settles": _settler, "parks": _parker},
    wrong=_uncalled,
    plants=(Plant(name="nothing is held", breaks="neither sees what the other did, and the event waits for ever"),),
    rewrites={"nothing is held": dropped(f"{SQL}.hold")},
)


async def _prepare_failed(database: Database) -> None:
    """The first of two events of one key has failed once."""
    await prepare_group(database)
    records = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=1))
    await database.transact(lambda: Parking(LOG, GROUP).failed(records[0], Verdict(0), "not yet"))


async def _fails_again(process: Stepping) -> None:
    """The next attempt is in an hour."""
    database, parking = process.database(), Parking(LOG, GROUP)
    parked: list[Parked] = await database.read(sql.due(LOG, GROUP, [0], 1), snapshot=False)
    await database.transact(lambda: parking.failed_again(parked[0], Verdict(HOUR_US), "not yet"))


def _called_early(evidence: Evidence) -> list[str]:
    parked = evidence.fetch(
        f'SELECT "offset", due_us - at_us > {HOUR_US} FROM faultproof_parked ORDER BY "offset"'  # noqa: S608
    )
    return [] if parked == [(0, True), (1, None)] else [f"the first is to wait for an hour, and parked is {parked}"]


BACK_OFF = Case(
    name=f"{_HERE}:BACK_OFF",
    claim="An event that has failed is not attempted again before its time because another is parked behind it.",
    prepare=_prepare_failed,
    sessions=lambda plant: {"fails": _fails_again, "parks": _parker},
    wrong=_called_early,
    plants=(
        Plant(name="called again", breaks="each event of a key that comes in is another attempt at the first one"),
    ),
    rewrites={"called again": replaced(f"{SQL}.promote", " AND due_us IS NULL", "")},
)

# -- dead letters ---------------------------------------------------------------------------------------------------------

Verb = Literal["replay", "discard"]


def _operator(verb: Verb, id: list[str]) -> Main:
    async def main(process: Stepping) -> None:
        letters = DeadLetters(process.database(), LOG, GROUP)
        act = letters.replay if verb == "replay" else letters.discard
        process.note(verb, await act(*id))

    return main


def _operator_of_all(process: Stepping) -> Coroutine[Any, Any, None]:
    async def main() -> None:
        process.note("discard", bool(await DeadLetters(process.database(), LOG, GROUP).discard_all()))

    return main()


def _decided_twice(evidence: Evidence) -> list[str]:
    done = [note[0] for note in evidence.notes if note[1]]
    parked = evidence.fetch("SELECT dead, due_us IS NOT NULL FROM faultproof_parked")
    if len(done) == 1 and parked == ([(0, True)] if done == ["replay"] else []):
        return []
    return [f"{done} were told that they did it, and parked is {parked}"]


def _deciding(name: str, one: Verb, other: Verb | None) -> Case:
    """`other`: None discards all there are."""
    dead: list[str] = []

    async def prepare(database: Database) -> None:
        await prepare_group(database)
        (record,) = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=1))
        await database.transact(lambda: Parking(LOG, GROUP).failed(record, Verdict(None), "no"))
        dead[:] = [record.id]

    return Case(
        name=f"{_HERE}:{name}",
        claim="Of two people who decide on a dead letter at the same time one does, and the other is told that it is none.",
        prepare=prepare,
        sessions=lambda plant: {
            "one": _operator(one, dead),
            "other": _operator_of_all if other is None else _operator(other, dead),
        },
        wrong=_decided_twice,
        plants=(Plant(name="nothing is held", breaks="both decide, on what they both saw"),),
        rewrites={"nothing is held": dropped(f"{SQL}.hold")},
    )


REPLAY_DISCARD = _deciding("REPLAY_DISCARD", "replay", "discard")
DISCARD_TWICE = _deciding("DISCARD_TWICE", "discard", "discard")
DISCARD_ALL = _deciding("DISCARD_ALL", "replay", None)

# -- a group that is forgotten --------------------------------------------------------------------------------------------


async def _forgetter(process: Stepping) -> None:
    database = process.database()
    await database.transact(lambda: operations.forget(database, LOG, GROUP))


async def _late_member(process: Stepping) -> None:
    """It has read, and commits its effects with the cursor."""
    database = process.database()
    records: list[Record] = await database.read(database.logs.read(LOG, [Cursor(0, 0)], limit=10), snapshot=False)

    def handle() -> Script[None]:
        for record in records:
            yield from effect(record.id)
        yield from Membership(database, LOG, GROUP, owner="", ttl=1.0).past(records, None)

    try:
        await database.transact(handle)
    except LeaseLost:
        process.note("lost", process.name)
    else:
        process.note("handled", process.name)


def _left_over(evidence: Evidence) -> list[str]:
    rows: dict[str, list[tuple[Any, ...]]] = {
        "its cursors": evidence.fetch("SELECT next_offset FROM faultproof_inbox"),
        "its leases": evidence.fetch("SELECT id FROM faultproof_claim WHERE kind LIKE 'outbox:group:%'"),
    }
    wrong = [f"{what} are left of a group that was forgotten: {found}" for what, found in rows.items() if found]
    effects = evidence.fetch("SELECT count(*) FROM effect")
    if effects != [(2 if noted(evidence, "handled") else 0,)]:
        wrong.append(f"{effects} effects, and {evidence.notes}")
    return wrong


FORGET = Case(
    name=f"{_HERE}:FORGET",
    claim="Of a group that is forgotten nothing is left, and whoever is at work for it commits before, or nothing.",
    prepare=prepare_group,
    sessions=lambda plant: {"forgets": _forgetter, "member": _late_member},
    wrong=_left_over,
    sometimes=(
        Sometimes(claim="the member is told", happened=lambda evidence: bool(noted(evidence, "lost"))),
        Sometimes(claim="the member is in time", happened=lambda evidence: bool(noted(evidence, "handled"))),
    ),
)


async def _second_member(process: Stepping) -> None:
    await process.database().transact(lambda: join(process.database()))


def _half(evidence: Evidence) -> list[str]:
    cursors = evidence.fetch("SELECT count(*) FROM faultproof_inbox")
    leases = evidence.fetch("SELECT count(*) FROM faultproof_claim WHERE kind = 'outbox:group:summary'")
    return [] if cursors == leases else [f"half of the group is left: {cursors} cursors and {leases} leases"]


FORGET_JOIN = Case(
    name=f"{_HERE}:FORGET_JOIN",
    claim="A group that is forgotten while a member joins is there or not: with a cursor and a lease for each partition, or "
    "with neither.",
    prepare=prepare_group,
    sessions=lambda plant: {"forgets": _forgetter, "joins": _second_member},
    wrong=_half,
    sometimes=(
        Sometimes(
            claim="it is there again",
            happened=lambda evidence: evidence.fetch("SELECT count(*) FROM faultproof_inbox") == [(1,)],
        ),
        Sometimes(
            claim="it is gone",
            happened=lambda evidence: evidence.fetch("SELECT count(*) FROM faultproof_inbox") == [(0,)],
        ),
    ),
    plants=(
        Plant(name="nothing is held", breaks="who joins finds cursors that are about to go, and adds leases that stay"),
    ),
    rewrites={"nothing is held": dropped("engines.postgres.log._lock_all")},
)


CASES = (PARK, BACK_OFF, REPLAY_DISCARD, DISCARD_TWICE, DISCARD_ALL, FORGET, FORGET_JOIN)

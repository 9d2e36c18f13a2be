"""The outbox between two sessions: publishing at every isolation level, a consumer and its successor, parking and settling."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from faultproof.errors import LeaseLost
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.membership import Membership, group_kind
from faultproof.patterns.outbox.message_inbox import MessageInbox
from faultproof.patterns.outbox.outbox import Outbox, OutboxOptions
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database, Tx
from faultproof.ports.log import Record
from faultproof.ports.script import Inline, Script
from faultproof.ports.script import sql as statement
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Isolation, Main, Stepping, replaced, together
from faultproof.prove.stepped.proof_claims import NO_GUARD

_HERE = "faultproof.patterns.outbox.proof_stepped"
SQL = "patterns.outbox.sql"
LOG, GROUP = "outbox", "summary"
HOUR_US = 3_600_000_000


class Changed(msgspec.Struct, frozen=True):
    """An item's row has this version now."""

    version: int


@statement("UPDATE item SET version = version + 1 RETURNING version")
def _bump() -> int: ...


@statement("SELECT version + 1 FROM item")
def _look() -> int: ...


@statement("INSERT INTO effect (event) VALUES (:event)")
def effect(event: str) -> None: ...


def _outbox(database: Database) -> Outbox:
    return Outbox(database, events={"changed": Changed}, options=OutboxOptions(partitions=1))


async def _prepare(database: Database) -> None:
    await _outbox(database).install()
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE item (version BIGINT NOT NULL)")
        await tx.execute("INSERT INTO item VALUES (0)")
        await tx.execute("CREATE TABLE effect (event TEXT NOT NULL)")


# -- publishing ----------------------------------------------------------------------------------------------------------


def _business(process: Stepping, plant: str | None) -> Script[None]:
    version = yield from (_look() if plant == "publishes before its lock" else _bump())
    yield from _outbox(process.database()).publish(Changed(version), key="item", tx=Inline())
    if plant == "publishes before its lock":
        yield from _bump()


def _publishers(isolation: Isolation | None) -> Callable[[str | None], Mapping[str, Main]]:
    """In a transaction of the database's, or in one of the user's own at that level."""

    def sessions(plant: str | None) -> Mapping[str, Main]:
        async def main(process: Stepping) -> None:
            def work(tx: Tx) -> Awaitable[None]:
                return tx.run(_business(process, plant))

            if isolation is None:
                await process.database().transact(lambda: _business(process, plant))
            else:
                await process.joined(isolation, work)

        return {"one": main, "other": main}

    return sessions


def _out_of_order(evidence: Evidence) -> list[str]:
    published = [
        msgspec.json.decode(payload, type=Changed).version
        for (payload,) in evidence.fetch("SELECT payload FROM faultproof_intake ORDER BY id")
    ]
    return [] if published == [1, 2] else [f"the row's versions were published as {published}"]


def _publishing(name: str, isolation: Isolation | None) -> Case:
    where = "" if isolation is None else f" In transactions of the user's own, at {isolation.upper()}."
    plant = Plant(
        name="publishes before its lock",
        breaks="both publish the same version, or a version before the one that made it",
    )
    return Case(
        name=f"{_HERE}:{name}",
        claim="Events that are published behind the write that locks their row follow its versions, and none is missing."
        + where,
        prepare=_prepare,
        sessions=_publishers(isolation),
        wrong=_out_of_order,
        # At the levels above, whoever looked at a row that was changed meanwhile cannot commit.
        plants=(plant,) if isolation in (None, "read committed") else (),
    )


PUBLISH = _publishing("PUBLISH", None)
PUBLISH_READ_COMMITTED = _publishing("PUBLISH_READ_COMMITTED", "read committed")
PUBLISH_REPEATABLE_READ = _publishing("PUBLISH_REPEATABLE_READ", "repeatable read")
PUBLISH_SERIALIZABLE = _publishing("PUBLISH_SERIALIZABLE", "serializable")

# -- messages of others ---------------------------------------------------------------------------------------------------


def _receivers(isolation: Isolation) -> Callable[[str | None], Mapping[str, Main]]:
    async def main(process: Stepping) -> None:
        inbox = MessageInbox(process.database(), "mails")

        def handled() -> Script[bool]:
            if is_first := (yield from inbox.first("m-1", tx=Inline())):
                yield from effect("m-1")
            return is_first

        process.note("first", await process.joined(isolation, lambda tx: tx.run(handled())))

    return lambda plant: {"one": main, "other": main}


def _handled_twice(evidence: Evidence) -> list[str]:
    said = sorted(note[1] for note in evidence.notes)
    ((effects,),) = evidence.fetch("SELECT count(*) FROM effect")
    return [] if (said, effects) == ([False, True], 1) else [f"the receivers were told {said}, effects are {effects}"]


def _receiving(name: str, isolation: Isolation) -> Case:
    async def prepare(database: Database) -> None:
        await _prepare(database)
        await MessageInbox(database, "mails").install()

    return Case(
        name=f"{_HERE}:{name}",
        claim=f"Of two that receive one message at the same time one handles it. At {isolation.upper()}.",
        prepare=prepare,
        sessions=_receivers(isolation),
        wrong=_handled_twice,
        plants=(Plant(name="seen before", breaks="a message that was seen counts as seen for the first time"),),
        rewrites={"seen before": replaced(f"{SQL}.see", "DO NOTHING", "DO UPDATE SET at_us = excluded.at_us")},
    )


RECEIVE = _receiving("RECEIVE", "read committed")
RECEIVE_SERIALIZABLE = _receiving("RECEIVE_SERIALIZABLE", "serializable")

# -- consuming ------------------------------------------------------------------------------------------------------------


async def prepare_group(database: Database) -> None:
    """Two events in the log, and a group that has seen none."""
    await _prepare(database)
    outbox = _outbox(database)
    for version in (1, 2):
        await database.transact(lambda version=version: outbox.publish(Changed(version), key="item", tx=Inline()))  # type: ignore[misc]
    await database.transact(lambda: database.logs.sequence(LOG, [0], limit=10, moved=lambda count: None))
    await database.transact(lambda: join(database))


def join(database: Database) -> Script[str]:
    return Membership(database, LOG, GROUP, owner="prepare", ttl=1.0)._join(True)


def _consumer(ttl_us: int) -> Main:
    """What a consumer with an inbox does for one batch: take the lease; read; guard, handle, move the cursor."""

    async def main(process: Stepping) -> None:
        database, kind = process.database(), group_kind(LOG, GROUP)
        took = await database.transact(lambda: database.claims.take(kind, process.name, ttl_us=ttl_us, limit=1))
        if not took:
            return
        (standing,) = await database.read(sql.standing(LOG, GROUP, [0]), snapshot=False)
        # The log does not change here, so what is read there is no step.
        records = [_record(offset) for offset in range(standing.offset, standing.end)]
        if not records:
            return
        try:
            await database.transact(lambda: _handled(database, took, records))
        except LeaseLost:
            process.note("lost", process.name)
        else:
            process.note("handled", process.name)

    return main


def _record(offset: int) -> Record:
    return Record(0, offset, f"event {offset}", "item", "changed", "{}", None, 0)


def _handled(database: Database, took: list[Claim], records: list[Record]) -> Script[None]:
    yield from database.claims.guard(group_kind(LOG, GROUP), took)
    for record in records:
        yield from effect(record.id)
    yield from Membership(database, LOG, GROUP, owner="", ttl=1.0).past(records, None)


def _repeated(evidence: Evidence) -> list[str]:
    effects = [event for (event,) in evidence.fetch("SELECT event FROM effect ORDER BY event")]
    events = ["event 0", "event 1"]
    ((cursor,),) = evidence.fetch("SELECT next_offset FROM faultproof_inbox")
    handled = bool(noted(evidence, "handled"))
    if effects == (events if handled else []) and cursor == (2 if handled else 0):
        return []
    return [f"the effects of {len(effects)} events are there, of {len(events)}, and the cursor stands at {cursor}"]


CONSUME = Case(
    name=f"{_HERE}:CONSUME",
    claim="A consumer whose lease runs out under way and its successor handle each event once, together with the cursor.",
    prepare=prepare_group,
    sessions=lambda plant: {"zombie": _consumer(0), "successor": _consumer(HOUR_US)},
    wrong=_repeated,
    sometimes=(
        Sometimes(claim="the zombie is told", happened=lambda evidence: "zombie" in noted(evidence, "lost")),
        Sometimes(claim="the zombie is in time", happened=lambda evidence: "zombie" in noted(evidence, "handled")),
    ),
    plants=(
        Plant(name="no fence", breaks="neither token nor cursor is looked at (either would do): effects are repeated"),
    ),
    rewrites={
        "no fence": together(
            NO_GUARD,
            replaced(f"{SQL}.advance", " AND moves.old = faultproof_inbox.next_offset", ""),
        )
    },
)

CASES = (
    PUBLISH,
    PUBLISH_READ_COMMITTED,
    PUBLISH_REPEATABLE_READ,
    PUBLISH_SERIALIZABLE,
    RECEIVE,
    RECEIVE_SERIALIZABLE,
    CONSUME,
)

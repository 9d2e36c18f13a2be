"""The log between sessions: what commits late is not skipped, and sequencers neither lose an event nor move it twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from faultproof.errors import InvalidInput
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Entry
from faultproof.ports.script import Script, sql
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Main, Stepping, dropped, replaced

LOG = "orders"
_HERE = "faultproof.prove.stepped.proof_log"
_LOGS = "engines.postgres.log"


def _entry(id: str) -> Entry:
    return Entry(0, id, None, "T", "{}", None, 0)


def _append(database: Database, *ids: str) -> Script[None]:
    return database.logs.append(LOG, [_entry(id) for id in ids], partitions=1)


async def _prepare(database: Database) -> None:
    await database.install(database.claims.schema, database.logs.schema)
    await database.transact(lambda: database.logs.create(LOG, partitions=1, epoch="e"))


async def _prepare_three(database: Database) -> None:
    await _prepare(database)
    await database.transact(lambda: _append(database, "e1", "e2", "e3"))


def _writer(id: str) -> Main:
    async def main(process: Stepping) -> None:
        database = process.database()
        await database.transact(lambda: _append(database, id))
        process.note("committed", id)

    return main


async def _sequence(process: Stepping, *, limit: int) -> None:
    database, moved = process.database(), list[int]()
    await database.transact(lambda: database.logs.sequence(LOG, [0], limit=limit, moved=moved.append))
    process.note("moved", moved[-1])


def _wrong_log(evidence: Evidence, committed: Sequence[str], *, dense: bool = True) -> list[str]:
    """Every committed event stands in the intake or in the log, once, and offsets are dense."""
    log = evidence.fetch('SELECT "offset", event_id, intake_id FROM faultproof_log ORDER BY "offset"')
    waiting = [id for (id,) in evidence.fetch("SELECT event_id FROM faultproof_intake")]
    wrong = []
    if dense and [offset for offset, _, _ in log] != list(range(len(log))):
        wrong.append(f"the offsets are {[offset for offset, _, _ in log]}")
    if sorted([*(id for _, id, _ in log), *waiting]) != sorted(committed):
        wrong.append(
            f"{[id for _, id, _ in log]} are in the log and {waiting} wait; committed were {sorted(committed)}"
        )
    return wrong


# -- what commits late ---------------------------------------------------------------------------------------------------


async def _follow(process: Stepping) -> None:
    """Sequences and reads, twice: a reader's cursor stands behind what it has seen."""
    database, offset = process.database(), 0
    for _ in range(2):
        await _sequence(process, limit=10)
        for record in await database.read(database.logs.read(LOG, [Cursor(0, offset)], limit=10), snapshot=False):
            process.note("read", record.offset, record.id)
            offset = record.offset + 1


async def _early(process: Stepping) -> None:
    await _writer("early")(process)
    await _follow(process)


def _skipped(evidence: Evidence) -> list[str]:
    read = {offset: id for kind, *facts in evidence.notes if kind == "read" for offset, id in [facts]}
    log = dict(evidence.fetch('SELECT "offset", event_id FROM faultproof_log'))
    cursor = max(read, default=-1) + 1
    unseen = [(offset, id) for offset, id in log.items() if offset < cursor and read.get(offset) != id]
    wrong = [f"{id} stands at {offset}, and whoever has read up to {cursor} has not seen it" for offset, id in unseen]
    return wrong + _wrong_log(evidence, sorted(noted(evidence, "committed")), dense=False)


def _read_last(evidence: Evidence) -> bool:
    """The event that was written first was read last."""
    written = [id for (id,) in evidence.fetch("SELECT event_id FROM faultproof_log ORDER BY intake_id")]
    return len(written) == 2 and [note[2] for note in evidence.notes if note[0] == "read"] == written[::-1]


LATE = Case(
    name=f"{_HERE}:LATE",
    claim="A cursor that follows the log misses no event, however late its transaction commits.",
    prepare=_prepare,
    sessions=lambda plant: {"late": _writer("late"), "early": _early},
    wrong=_skipped,
    sometimes=(Sometimes(claim="what was written first is read last", happened=_read_last),),
    plants=(
        Plant(name="offsets are given at the insert", breaks="one that commits late comes to stand behind the cursor"),
    ),
    rewrites={
        "offsets are given at the insert": replaced(
            f"{_LOGS}._move", 'p.next_offset + row_number() OVER (PARTITION BY m."partition" ORDER BY m.id) - 1', "m.id"
        )
    },
)
FOLLOWED = Case(
    name=f"{_HERE}:FOLLOWED",
    claim=LATE.claim,
    prepare=_prepare,
    sessions=lambda plant: {"one": _writer("one"), "other": _writer("other"), "follower": _follow},
    wrong=_skipped,
    sometimes=LATE.sometimes,
    preemptions=2,
)

# -- sequencers ----------------------------------------------------------------------------------------------------------


async def _sequencer(process: Stepping) -> None:
    await _sequence(process, limit=2)


SEQUENCERS = Case(
    name=f"{_HERE}:SEQUENCERS",
    claim="Two that sequence one partition at the same time move each event once, without a gap.",
    prepare=_prepare_three,
    sessions=lambda plant: {"one": _sequencer, "other": _sequencer},
    wrong=lambda evidence: [
        *_wrong_log(evidence, ["e1", "e2", "e3"]),
        *([] if sum(note[1] for note in evidence.notes) == 3 else ["not all was moved, or some of it twice"]),
    ],
    plants=(Plant(name="no lock", breaks="both give the same offsets"),),
    rewrites={"no lock": dropped(f"{_LOGS}._lock_by_indexes")},
)


@sql(
    """INSERT INTO faultproof_log (log, "partition", "offset", intake_id, at_us, event_id, key, type, payload, headers)
       SELECT log, "partition", (SELECT next_offset FROM faultproof_log_partition) + row_number() OVER (ORDER BY id) - 1,
         id, at_us, event_id, key, type, payload, headers
       FROM faultproof_intake WHERE log = :log ORDER BY id LIMIT :limit"""
)
def _write_first(log: str, limit: int) -> None: ...


@sql(
    """UPDATE faultproof_log_partition SET next_offset = (SELECT count(*) FROM faultproof_log WHERE log = :log)
       WHERE log = :log"""
)
def _advance(log: str) -> None: ...


@sql(
    """DELETE FROM faultproof_intake WHERE log = :log AND id IN (
         SELECT id FROM faultproof_intake WHERE log = :log ORDER BY id LIMIT :limit)"""
)
def _delete_first(log: str, limit: int) -> None: ...


async def _in_two_statements(process: Stepping) -> None:
    """The planted bug: "the first n" are others a statement later."""

    def move() -> Script[None]:
        yield from _write_first(LOG, 2)
        yield from _advance(LOG)
        yield from _delete_first(LOG, 2)

    await process.database().transact(move)


def _overtaken(plant: str | None) -> Mapping[str, Main]:
    return {
        "writer": _writer("e1"),
        "sequencer": _in_two_statements if plant == "first n, twice" else _sequencer,
    }


APPEND = Case(
    name=f"{_HERE}:APPEND",
    claim="An event that is committed while others are being sequenced is sequenced with them or later, and never lost.",
    prepare=_prepare,
    sessions=_overtaken,
    wrong=lambda evidence: _wrong_log(evidence, ["e1"]),
    sometimes=(
        Sometimes(claim="it is too late to be moved", happened=lambda evidence: noted(evidence, "moved") == {0}),
    ),
    plants=(
        Plant(
            name="first n, twice",
            breaks="the first n are written and the first n deleted, in two statements: one that commits between is lost",
        ),
    ),
)

# -- retention -----------------------------------------------------------------------------------------------------------


async def _prepare_log(database: Database) -> None:
    await _prepare_three(database)
    await database.transact(lambda: database.logs.sequence(LOG, [0], limit=10, moved=lambda count: None))


async def _trimmer(process: Stepping) -> None:
    database = process.database()
    await database.transact(lambda: database.logs.trim(LOG, upto=[Cursor(0, 2)], older_us=-1_000_000, limit=10))


async def _joiner(process: Stepping) -> None:
    """Where it is told that the log begins, it must be able to begin."""
    database = process.database()

    def begin() -> Script[None]:
        ((_, first, _),) = yield from database.logs.hold(LOG)
        records = yield from database.logs.read(LOG, [Cursor(0, first)], limit=10)
        process.note("began", first, len(records))

    await database.transact(begin)


HOLD = Case(
    name=f"{_HERE}:HOLD",
    claim="Whoever holds a log can read from where it begins until his transaction ends, whatever is trimmed meanwhile.",
    prepare=_prepare_log,
    sessions=lambda plant: {"trimmer": _trimmer, "joiner": _joiner},
    wrong=lambda evidence: (
        [
            f"the log begins at {first}, and from there {count} events were read"
            for _, first, count in evidence.notes
            if first + count != 3
        ]
        + ([] if evidence.fetch("SELECT count(*) FROM faultproof_log") == [(1,)] else ["it was not trimmed"])
    ),
    sometimes=(
        Sometimes(claim="it was trimmed before", happened=lambda evidence: noted(evidence, "began") == {2}),
        Sometimes(claim="it is trimmed after", happened=lambda evidence: noted(evidence, "began") == {0}),
    ),
    plants=(Plant(name="nothing is held", breaks="a trim comes between the look and the reading"),),
    rewrites={"nothing is held": dropped(f"{_LOGS}._lock_all")},
)

# -- a log that is new ---------------------------------------------------------------------------------------------------


async def _prepare_none(database: Database) -> None:
    await database.install(database.claims.schema, database.logs.schema)


def _creator(partitions: int) -> Main:
    async def main(process: Stepping) -> None:
        database = process.database()
        try:
            await database.transact(lambda: database.logs.create(LOG, partitions=partitions, epoch=process.name))
        except InvalidInput:
            process.note("refused", partitions)
        else:
            process.note("created", partitions)

    return main


def _created_twice(evidence: Evidence) -> list[str]:
    created = [note[1] for note in evidence.notes if note[0] == "created"]
    rows = evidence.fetch("SELECT count(*), count(DISTINCT epoch) FROM faultproof_log_partition")
    return (
        [] if rows == [(sum(created), 1)] else [f"created were {created} partitions, (partitions, epochs) are {rows}"]
    )


CREATE = Case(
    name=f"{_HERE}:CREATE",
    claim="Of two that create a log with different partitions at the same time one does, and the other is told.",
    prepare=_prepare_none,
    sessions=lambda plant: {"one": _creator(1), "two": _creator(2)},
    wrong=_created_twice,
    sometimes=tuple(
        Sometimes(claim=f"{count} wins", happened=lambda evidence, count=count: noted(evidence, "created") == {count})  # type: ignore[misc]
        for count in (1, 2)
    ),
    plants=(Plant(name="no lock", breaks="both find none there, and each adds the partitions that the other lacks"),),
    rewrites={"no lock": dropped(f"{_LOGS}._lock_name")},
)
CASES = (LATE, FOLLOWED, SEQUENCERS, APPEND, HOLD, CREATE)

"""Sequenced logs on PostgreSQL.

Every statement of a transaction sees what was committed when *it* began (READ COMMITTED). So a sequencer locks its
partitions in a statement of its own, and what it sees afterwards includes all that the sequencer before it did; and it
deletes and writes the same rows by being one statement: "the first n" may be others a statement later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from faultproof.clock import Clock
from faultproof.engines.postgres.floor import Floors
from faultproof.engines.refusals import events_trimmed, no_place, no_such_log, other_partitions
from faultproof.ports.log import Cursor, Entry, Intake, Ready, Record, Span
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, later, sql
from faultproof.ports.statement import Changed
from faultproof.primitives.install import check

# An entry's `due_us`: 0 if it was not delayed, when it is due if it was, and -1 once it was found due.
SCHEMA = Schema(
    name="log",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_log_partition (
                 log TEXT NOT NULL, "partition" BIGINT NOT NULL, epoch TEXT NOT NULL,
                 first_offset BIGINT NOT NULL DEFAULT 0, next_offset BIGINT NOT NULL DEFAULT 0,
                 PRIMARY KEY (log, "partition")) {updated}""",
            # An event that is not delayed enters one index only; each query of the intake finds its order in one.
            """CREATE TABLE IF NOT EXISTS faultproof_intake (
                 id BIGINT GENERATED ALWAYS AS IDENTITY (CACHE 1), log TEXT NOT NULL, "partition" BIGINT NOT NULL,
                 due_us BIGINT NOT NULL, at_us BIGINT NOT NULL, event_id TEXT NOT NULL, key TEXT, type TEXT NOT NULL,
                 payload TEXT NOT NULL, headers TEXT, PRIMARY KEY (log, id))
               WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
                     autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000)""",
            "CREATE INDEX IF NOT EXISTS faultproof_intake_due ON faultproof_intake (log, due_us) WHERE due_us > 0",
            "CREATE INDEX IF NOT EXISTS faultproof_intake_found_due ON faultproof_intake (log, id) WHERE due_us < 0",
            """CREATE TABLE IF NOT EXISTS faultproof_log (
                 log TEXT NOT NULL, "partition" BIGINT NOT NULL, "offset" BIGINT NOT NULL, intake_id BIGINT NOT NULL,
                 at_us BIGINT NOT NULL, event_id TEXT NOT NULL, key TEXT, type TEXT NOT NULL, payload TEXT NOT NULL,
                 headers TEXT, PRIMARY KEY (log, "partition", "offset"))
               WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05)""",
        ]
    ],
    works_from=1,
    works_to=1,
)


class Moved(NamedTuple):
    """What one transaction moved, and where the intake begins that it saw."""

    events: int
    lowest: int | None
    transaction: str


class Existing(NamedTuple):
    """A log as it was created."""

    partitions: int
    epoch: str | None


@sql("SELECT count(*), min(epoch) FROM faultproof_log_partition WHERE log = :log")
def _existing(log: str) -> Existing: ...


@sql("SELECT pg_advisory_xact_lock(hashtextextended(:log, 1))")
def _lock_name(log: str) -> None: ...


@sql("""INSERT INTO faultproof_log_partition (log, "partition", epoch) SELECT :log, value, :epoch FROM {partitions}""")
def _create(log: str, partitions: Sequence[int], epoch: str) -> None: ...


@sql(
    """SELECT "partition" FROM faultproof_log_partition WHERE log = :log AND "partition" IN {partitions}
       ORDER BY "partition" {lock}""",
    deferred=True,
)
def _lock(log: str, partitions: Sequence[int]) -> None: ...


@sql("""SELECT "partition" FROM faultproof_log_partition WHERE log = :log ORDER BY "partition" {lock}""", deferred=True)
def _lock_all(log: str) -> None: ...


@sql("UPDATE faultproof_log_partition SET epoch = :epoch WHERE log = :log")
def _begin_epoch(log: str, epoch: str) -> Changed: ...


# Nobody would ever sequence an event of a log that is not there, and with another number of partitions than the log has a
# key would change its partition, and lose its order: then nothing is inserted.
@sql(
    """INSERT INTO faultproof_intake (log, "partition", due_us, at_us, event_id, key, type, payload, headers)
       SELECT :log, "partition", CASE delay_us WHEN 0 THEN 0 ELSE {now} + delay_us END, {now},
              id, key, type, payload, headers
       FROM {entries}
       WHERE (SELECT max("partition") FROM faultproof_log_partition WHERE log = :log) = :partitions - 1
         AND "partition" BETWEEN 0 AND :partitions - 1
       ORDER BY ordinal"""
)
def _append_first(log: str, entries: Sequence[Entry], partitions: int) -> Changed: ...


# The same where nobody waits for the answer: a partition that is not there is NULL, which the table refuses.
@sql(
    """INSERT INTO faultproof_intake (log, "partition", due_us, at_us, event_id, key, type, payload, headers)
       SELECT :log, CASE WHEN "partition" BETWEEN 0 AND :partitions - 1 AND :partitions - 1 =
                (SELECT max("partition") FROM faultproof_log_partition WHERE log = :log) THEN "partition" END,
              CASE delay_us WHEN 0 THEN 0 ELSE {now} + delay_us END, {now}, id, key, type, payload, headers
       FROM {entries} ORDER BY ordinal""",
    deferred=True,
)
def _append(log: str, entries: Sequence[Entry], partitions: int) -> None: ...


# One event, which is the rule inside users' transactions, and not a set of one: that costs the server a third more.
@sql(
    """INSERT INTO faultproof_intake (log, "partition", due_us, at_us, event_id, key, type, payload, headers)
       VALUES (:log, CASE WHEN :partition BETWEEN 0 AND :partitions - 1 AND :partitions - 1 =
                 (SELECT max("partition") FROM faultproof_log_partition WHERE log = :log) THEN :partition END,
               CASE :delay_us WHEN 0 THEN 0 ELSE {now} + :delay_us END, {now}, :id, :key, :type, :payload, :headers)""",
    deferred=True,
)
def _append_one(
    log: str,
    partitions: int,
    partition: int,
    id: str,
    key: str | None,
    type: str,
    payload: str,
    headers: str | None,
    delay_us: int,
) -> None: ...


@sql(
    """SELECT (SELECT min(id) FROM faultproof_intake WHERE log = :log AND due_us = 0 AND id > :floor) IS NOT NULL
                OR (SELECT min(id) FROM faultproof_intake WHERE log = :log AND due_us < 0) IS NOT NULL,
              (SELECT min(due_us) - {now} FROM faultproof_intake WHERE log = :log AND due_us > 0)"""
)
def _ready(log: str, floor: int) -> Ready: ...


# The planner knows nothing of a table that is empty most of the time and full at once, and would sort all of it for the
# first two thousand rows. Until the end of this transaction, which is the sequencer's own. (Before version 18 what is off
# merely costs very much, and that would have such a statement compiled each time.)
@sql(
    """SELECT "partition", set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
              set_config('enable_sort', 'off', true), set_config('jit', 'off', true)
       FROM faultproof_log_partition WHERE log = :log AND "partition" IN {partitions} ORDER BY "partition" {lock}""",
    deferred=True,
)
def _lock_by_indexes(log: str, partitions: Sequence[int]) -> None: ...


# From here on a delayed event is as old as one that was published when it became due. Marked and not made like the others:
# its id may lie below the floor (see `floor.py`).
@sql(
    """UPDATE faultproof_intake SET at_us = due_us, due_us = -1 WHERE log = :log AND id IN (
         SELECT id FROM faultproof_intake
         WHERE log = :log AND due_us > 0 AND due_us <= {now} AND "partition" = ANY(ARRAY{partitions})
         ORDER BY due_us, id LIMIT :limit)""",
    deferred=True,
)
def _promote(log: str, partitions: Sequence[int], limit: int) -> None: ...


# One statement, and so one snapshot: what it deletes is what it writes. The partitions are locked by the one before it, so
# that this snapshot has all that the sequencer before did. By `ctid`, because nobody else changes or deletes these rows.
@sql(
    """WITH moved AS (
         DELETE FROM faultproof_intake WHERE ctid = ANY(ARRAY(
           SELECT place FROM (
             (SELECT ctid AS place, id FROM faultproof_intake
              WHERE log = :log AND due_us = 0 AND id > :floor AND "partition" = ANY(ARRAY{partitions})
              ORDER BY id LIMIT :limit)
             UNION ALL
             (SELECT ctid, id FROM faultproof_intake
              WHERE log = :log AND due_us < 0 AND "partition" = ANY(ARRAY{partitions}) ORDER BY id LIMIT :limit)
           ) AS next ORDER BY id LIMIT :limit))
         RETURNING *),
       counted AS (SELECT "partition", count(*) AS events FROM moved GROUP BY "partition"),
       written AS (
         INSERT INTO faultproof_log
           (log, "partition", "offset", intake_id, at_us, event_id, key, type, payload, headers)
         SELECT m.log, m."partition", p.next_offset + row_number() OVER (PARTITION BY m."partition" ORDER BY m.id) - 1,
                m.id, m.at_us, m.event_id, m.key, m.type, m.payload, m.headers
         FROM moved AS m JOIN faultproof_log_partition AS p ON p.log = m.log AND p."partition" = m."partition"),
       advanced AS (
         UPDATE faultproof_log_partition AS p SET next_offset = next_offset + counted.events
         FROM counted WHERE p.log = :log AND p."partition" = counted."partition")
       SELECT coalesce(sum(events), 0)::bigint,
              (SELECT min(id) FROM faultproof_intake WHERE log = :log AND due_us = 0 AND id > :floor),
              pg_current_xact_id()::text
       FROM counted"""
)
def _move(log: str, partitions: Sequence[int], limit: int, floor: int) -> Moved: ...


# Events; and where a cursor stands before the first that is kept, that one's place, without an id.
@sql(
    """SELECT l."partition", l."offset", l.event_id, l.key, l.type, l.payload, l.headers, l.at_us
       FROM {cursors} CROSS JOIN LATERAL (
         SELECT * FROM faultproof_log
         WHERE log = :log AND "partition" = cursors."partition"
           AND "offset" >= cursors."offset" AND "offset" < cursors."offset" + :limit
         ORDER BY "offset" LIMIT :limit) AS l
       UNION ALL
       SELECT p."partition", p.first_offset, '', NULL, '', '', NULL, 0
       FROM {cursors} JOIN faultproof_log_partition AS p ON p.log = :log AND p."partition" = cursors."partition"
       WHERE cursors."offset" < p.first_offset"""
)
def _read(log: str, cursors: Sequence[Cursor], limit: int) -> list[Record]: ...


# Retention removes a prefix and never makes a hole: it stops at the first event that is too young.
@sql(
    """UPDATE faultproof_log_partition AS p SET first_offset = coalesce(
         (SELECT min(l."offset") FROM faultproof_log AS l
          WHERE l.log = p.log AND l."partition" = p."partition" AND l."offset" >= p.first_offset
            AND l."offset" < least(upto."offset", p.first_offset + :limit) AND l.at_us > {now} - :older_us),
         greatest(p.first_offset, least(upto."offset", p.first_offset + :limit, p.next_offset)))
       FROM {upto} WHERE p.log = :log AND p."partition" = upto."partition" """
)
def _raise_first(log: str, upto: Sequence[Cursor], older_us: int, limit: int) -> None: ...


@sql(
    """DELETE FROM faultproof_log WHERE ctid = ANY(ARRAY(
         SELECT l.place FROM faultproof_log_partition AS p CROSS JOIN LATERAL (
           SELECT ctid AS place FROM faultproof_log
           WHERE log = p.log AND "partition" = p."partition"
             AND "offset" < p.first_offset AND "offset" >= p.first_offset - :limit
           ORDER BY "offset" LIMIT :limit) AS l
         WHERE p.log = :log AND p."partition" IN {partitions}))"""
)
def _delete_trimmed(log: str, partitions: Sequence[int], limit: int) -> Changed: ...


@sql(
    """SELECT "partition", first_offset, next_offset FROM faultproof_log_partition WHERE log = :log
       ORDER BY "partition" """
)
def _spans(log: str) -> list[Span]: ...


# An event that was delayed waits since it became due.
@sql(
    """SELECT count(CASE WHEN due_us <= {now} THEN 1 END),
              coalesce({now} - min(CASE WHEN due_us <= 0 THEN at_us WHEN due_us <= {now} THEN due_us END), 0),
              count(CASE WHEN due_us > {now} THEN 1 END)
       FROM faultproof_intake WHERE log = :log"""
)
def _intake(log: str) -> Intake: ...


def _place(record: Record) -> tuple[int, int]:
    return record.partition, record.offset


class PostgresLog:
    """`LogTable` on PostgreSQL."""

    schema = SCHEMA

    def __init__(self, clock: Clock) -> None:
        self._agreed: set[tuple[str, int]] = set()  # bounded: by the logs
        self.floors = Floors(clock)

    def create(self, log: str, *, partitions: int, epoch: str) -> Script[str]:
        existing = yield from _existing(log)
        if existing.epoch is None:
            # One creator at a time: two that disagree would each add the partitions that the other lacks.
            yield from _lock_name(log)
            existing = yield from _existing(log)
        if existing.epoch is None:
            yield from _create(log, list(range(partitions)), epoch)
            return epoch
        if existing.partitions != partitions:
            raise other_partitions(log, existing=existing.partitions, asked=partitions)
        return existing.epoch

    def epoch(self, log: str) -> Script[str]:
        existing = yield from _existing(log)
        if existing.epoch is None:
            raise no_such_log(log)
        return existing.epoch

    def begin_epoch(self, log: str, *, epoch: str) -> Script[None]:
        yield from _lock_all(log)
        yield from _begin_epoch(log, epoch)

    def append(self, log: str, entries: Sequence[Entry], *, partitions: int) -> Script[None]:
        if (log, partitions) in self._agreed:
            if len(entries) == 1:
                yield from _append_one(log, partitions, *entries[0])
            else:
                yield from _append(log, entries, partitions)
            return
        yield from check(SCHEMA)
        if (yield from _append_first(log, entries, partitions)) != len(entries):
            raise no_place(log, existing=(yield from _existing(log)).partitions, asked=partitions)
        self._agreed.add((log, partitions))

    def ready(self, log: str) -> Script[Ready]:
        return (yield from _ready(log, self.floors.of(log).passed))

    def sequence(
        self, log: str, partitions: Sequence[int], *, limit: int, moved: Callable[[int], None]
    ) -> Script[None]:
        floor = self.floors.of(log)

        decided = floor.decided  # before its snapshot: another sequencer in this process may learn of more meanwhile

        def answered(one: Moved) -> None:
            floor.saw(one.lowest, decided=decided, in_transaction=one.transaction)
            moved(one.events)

        yield from floor.look()
        yield from _lock_by_indexes(log, partitions)
        yield from _promote(log, partitions, limit)
        # Nothing depends on how many there were, so the commit goes with it: an event waits for one round trip less.
        yield from later(_move(log, partitions, limit, floor.passed), answered, refuses=False)

    def read(self, log: str, cursors: Sequence[Cursor], *, limit: int) -> Script[list[Record]]:
        records = sorted((yield from _read(log, cursors, limit)), key=_place)
        if any(not record.id for record in records):
            raise events_trimmed(log, next(record for record in records if not record.id))
        return records

    def trim(self, log: str, *, upto: Sequence[Cursor], older_us: int, limit: int) -> Script[int]:
        partitions = [cursor.partition for cursor in upto]
        yield from _lock(log, partitions)
        yield from _raise_first(log, upto, older_us, limit)
        return (yield from _delete_trimmed(log, partitions, limit))

    def spans(self, log: str) -> Script[list[Span]]:
        return (yield from _spans(log))

    def hold(self, log: str) -> Script[list[Span]]:
        yield from _lock_all(log)  # in a statement of its own: the next one sees what a trim before it has left
        return (yield from _spans(log))

    def intake(self, log: str) -> Script[Intake]:
        return (yield from _intake(log))

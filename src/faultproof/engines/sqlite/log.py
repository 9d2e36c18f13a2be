"""Sequenced logs on SQLite.

BEGIN IMMEDIATE and AUTOINCREMENT make the intake's row order the commit order here. The sequencer moves rows inside the
database, so no event passes through Python. It deletes exactly the rows that it wrote, found through `intake_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from faultproof.engines.refusals import events_trimmed, no_place, no_such_log, other_partitions
from faultproof.ports.log import Cursor, Entry, Intake, Ready, Record, Span
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, sql
from faultproof.ports.statement import Changed
from faultproof.primitives.install import check

SCHEMA = Schema(
    name="log",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_log_partition (
                 log TEXT NOT NULL, "partition" BIGINT NOT NULL, epoch TEXT NOT NULL,
                 first_offset BIGINT NOT NULL DEFAULT 0, next_offset BIGINT NOT NULL DEFAULT 0,
                 PRIMARY KEY (log, "partition")) WITHOUT ROWID""",
            """CREATE TABLE IF NOT EXISTS faultproof_intake (
                 id INTEGER PRIMARY KEY AUTOINCREMENT, log TEXT NOT NULL, "partition" BIGINT NOT NULL,
                 due_us BIGINT NOT NULL, at_us BIGINT NOT NULL, event_id TEXT NOT NULL, key TEXT, type TEXT NOT NULL,
                 payload TEXT NOT NULL, headers TEXT)""",
            "CREATE INDEX IF NOT EXISTS faultproof_intake_now ON faultproof_intake (log, id) WHERE due_us = 0",
            "CREATE INDEX IF NOT EXISTS faultproof_intake_due ON faultproof_intake (log, due_us) WHERE due_us > 0",
            """CREATE TABLE IF NOT EXISTS faultproof_log (
                 log TEXT NOT NULL, "partition" BIGINT NOT NULL, "offset" BIGINT NOT NULL, intake_id BIGINT NOT NULL,
                 at_us BIGINT NOT NULL, event_id TEXT NOT NULL, key TEXT, type TEXT NOT NULL, payload TEXT NOT NULL,
                 headers TEXT, PRIMARY KEY (log, "partition", "offset")) WITHOUT ROWID""",
        ]
    ],
    works_from=1,
    works_to=1,
)


class Existing(NamedTuple):
    """A log as it was created."""

    partitions: int
    epoch: str | None


@sql("SELECT count(*), min(epoch) FROM faultproof_log_partition WHERE log = :log")
def _existing(log: str) -> Existing: ...


@sql("""INSERT INTO faultproof_log_partition (log, "partition", epoch) SELECT :log, value, :epoch FROM {partitions}""")
def _create(log: str, partitions: Sequence[int], epoch: str) -> None: ...


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
def _append(log: str, entries: Sequence[Entry], partitions: int) -> Changed: ...


@sql(
    """SELECT EXISTS (SELECT 1 FROM faultproof_intake WHERE log = :log AND due_us = 0),
              (SELECT min(due_us) - {now} FROM faultproof_intake WHERE log = :log AND due_us > 0)"""
)
def _ready(log: str) -> Ready: ...


# From here on a delayed event is as old as one that was published when it became due.
@sql(
    """UPDATE faultproof_intake SET at_us = due_us, due_us = 0 WHERE id IN (
         SELECT id FROM faultproof_intake
         WHERE log = :log AND due_us > 0 AND due_us <= {now} AND "partition" IN {partitions}
         ORDER BY due_us, id LIMIT :limit)"""
)
def _promote(log: str, partitions: Sequence[int], limit: int) -> Changed: ...


@sql(
    """INSERT INTO faultproof_log
         (log, "partition", "offset", intake_id, at_us, event_id, key, type, payload, headers)
       SELECT i.log, i."partition", p.next_offset + row_number() OVER (PARTITION BY i."partition" ORDER BY i.id) - 1,
              i.id, i.at_us, i.event_id, i.key, i.type, i.payload, i.headers
       FROM (SELECT * FROM faultproof_intake WHERE log = :log AND due_us = 0 AND "partition" IN {partitions}
             ORDER BY id LIMIT :limit) AS i
       JOIN faultproof_log_partition AS p ON p.log = i.log AND p."partition" = i."partition" """
)
def _move(log: str, partitions: Sequence[int], limit: int) -> Changed: ...


@sql(
    """DELETE FROM faultproof_intake WHERE id IN (
         SELECT l.intake_id FROM faultproof_log_partition AS p
         CROSS JOIN faultproof_log AS l ON l.log = p.log AND l."partition" = p."partition" AND l."offset" >= p.next_offset
         WHERE p.log = :log)"""
)
def _delete_moved(log: str) -> Changed: ...


@sql(
    """UPDATE faultproof_log_partition SET next_offset = coalesce(
         (SELECT max(l."offset") + 1 FROM faultproof_log AS l
          WHERE l.log = faultproof_log_partition.log AND l."partition" = faultproof_log_partition."partition"),
         next_offset)
       WHERE log = :log AND "partition" IN {partitions}"""
)
def _advance(log: str, partitions: Sequence[int]) -> None: ...


# Events; and where a cursor stands before the first that is kept, that one's place, without an id.
@sql(
    """SELECT l."partition", l."offset", l.event_id, l.key, l.type, l.payload, l.headers, l.at_us
       FROM {cursors} CROSS JOIN faultproof_log AS l
       WHERE l.log = :log AND l."partition" = cursors."partition"
         AND l."offset" >= cursors."offset" AND l."offset" < cursors."offset" + :limit
       UNION ALL
       SELECT p."partition", p.first_offset, '', NULL, '', '', NULL, 0
       FROM {cursors} CROSS JOIN faultproof_log_partition AS p
       WHERE p.log = :log AND p."partition" = cursors."partition" AND cursors."offset" < p.first_offset"""
)
def _read(log: str, cursors: Sequence[Cursor], limit: int) -> list[Record]: ...


# Retention removes a prefix and never makes a hole: it stops at the first event that is too young.
@sql(
    """UPDATE faultproof_log_partition SET first_offset = (
         SELECT coalesce(
           (SELECT min(l."offset") FROM faultproof_log AS l
            WHERE l.log = faultproof_log_partition.log AND l."partition" = upto."partition"
              AND l."offset" < min(upto."offset", first_offset + :limit)
              AND l.at_us > {now} - :older_us),
           max(first_offset, min(upto."offset", first_offset + :limit, next_offset)))
         FROM {upto} WHERE upto."partition" = faultproof_log_partition."partition")
       WHERE log = :log AND "partition" IN (SELECT "partition" FROM {upto})"""
)
def _raise_first(log: str, upto: Sequence[Cursor], older_us: int, limit: int) -> None: ...


@sql(
    """DELETE FROM faultproof_log WHERE (log, "partition", "offset") IN (
         SELECT l.log, l."partition", l."offset" FROM faultproof_log_partition AS p
         CROSS JOIN faultproof_log AS l ON l.log = p.log AND l."partition" = p."partition" AND l."offset" < p.first_offset
         WHERE p.log = :log)"""
)
def _delete_trimmed(log: str) -> Changed: ...


@sql(
    """SELECT "partition", first_offset, next_offset FROM faultproof_log_partition WHERE log = :log
       ORDER BY "partition" """
)
def _spans(log: str) -> list[Span]: ...


# An event that was delayed waits since it became due.
@sql(
    """SELECT count(CASE WHEN due_us <= {now} THEN 1 END),
              coalesce({now} - min(CASE WHEN due_us = 0 THEN at_us WHEN due_us <= {now} THEN due_us END), 0),
              count(CASE WHEN due_us > {now} THEN 1 END)
       FROM faultproof_intake WHERE log = :log"""
)
def _intake(log: str) -> Intake: ...


def _place(record: Record) -> tuple[int, int]:
    return record.partition, record.offset


class SqliteLog:
    """`LogTable` on SQLite."""

    schema = SCHEMA

    def __init__(self) -> None:
        self._checked = False

    def create(self, log: str, *, partitions: int, epoch: str) -> Script[str]:
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
        yield from _begin_epoch(log, epoch)

    def append(self, log: str, entries: Sequence[Entry], *, partitions: int) -> Script[None]:
        if not self._checked:
            yield from check(SCHEMA)
            self._checked = True
        if (yield from _append(log, entries, partitions)) != len(entries):
            raise no_place(log, existing=(yield from _existing(log)).partitions, asked=partitions)

    def ready(self, log: str) -> Script[Ready]:
        waiting, due_in_us = yield from _ready(log)
        return Ready(bool(waiting), due_in_us)

    def sequence(
        self, log: str, partitions: Sequence[int], *, limit: int, moved: Callable[[int], None]
    ) -> Script[None]:
        yield from _promote(log, partitions, limit)
        events = yield from _move(log, partitions, limit)
        if events:
            yield from _delete_moved(log)
            yield from _advance(log, partitions)
        moved(events)

    def read(self, log: str, cursors: Sequence[Cursor], *, limit: int) -> Script[list[Record]]:
        records = sorted((yield from _read(log, cursors, limit)), key=_place)
        if any(not record.id for record in records):
            raise events_trimmed(log, next(record for record in records if not record.id))
        return records

    def trim(self, log: str, *, upto: Sequence[Cursor], older_us: int, limit: int) -> Script[int]:
        yield from _raise_first(log, upto, older_us, limit)
        return (yield from _delete_trimmed(log))

    def spans(self, log: str) -> Script[list[Span]]:
        return (yield from _spans(log))

    def hold(self, log: str) -> Script[list[Span]]:
        return (yield from _spans(log))  # there is one writer at a time

    def intake(self, log: str) -> Script[Intake]:
        return (yield from _intake(log))

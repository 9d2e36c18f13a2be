"""The outbox's own tables: a group's progress (its inbox), and events that wait for another attempt or for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.ports.database import Database
from faultproof.ports.log import Cursor
from faultproof.ports.schema import Schema
from faultproof.ports.script import sql
from faultproof.ports.statement import Changed

SCHEMA = Schema(
    name="outbox",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_inbox (
                 log TEXT NOT NULL, grp TEXT NOT NULL, "partition" BIGINT NOT NULL, next_offset BIGINT NOT NULL,
                 key_waits BIGINT NOT NULL, PRIMARY KEY (log, grp, "partition")) {updated}""",
            """CREATE TABLE IF NOT EXISTS faultproof_parked (
                 log TEXT NOT NULL, grp TEXT NOT NULL, "partition" BIGINT NOT NULL, "offset" BIGINT NOT NULL,
                 event_id TEXT NOT NULL, key TEXT, type TEXT NOT NULL, payload TEXT NOT NULL, headers TEXT,
                 at_us BIGINT NOT NULL, attempts BIGINT NOT NULL, due_us BIGINT, dead BIGINT NOT NULL, error TEXT,
                 PRIMARY KEY (log, grp, "partition", "offset")) {updated}""",
            """CREATE INDEX IF NOT EXISTS faultproof_parked_key
                 ON faultproof_parked (log, grp, "partition", key, "offset")""",
            """CREATE INDEX IF NOT EXISTS faultproof_parked_due
                 ON faultproof_parked (log, grp, due_us) WHERE dead = 0 AND due_us IS NOT NULL""",
        ]
    ],
    works_from=1,
    works_to=1,
)


def schemas(database: Database) -> tuple[Schema, Schema, Schema]:
    """All that an outbox runs on."""
    return database.claims.schema, database.logs.schema, SCHEMA


class Progress(NamedTuple):
    """From where to where a group's cursor moves in one partition."""

    partition: int
    old: int
    new: int


class Standing(NamedTuple):
    """How a group stands in one partition; the last two are the same for all partitions."""

    partition: int
    offset: int
    """Of the first event that the group has not settled or parked."""
    end: int
    """Of the log: there is something to read if it is greater."""
    parks: int
    """Whether anything of the group is parked, anywhere."""
    next_due_in_us: int | None
    """Until the next attempt at what is parked in these partitions."""


class Parked(NamedTuple):
    """An event that waits: for its next attempt (`due_us`), behind another of its key (None), or for a person (`dead`)."""

    partition: int
    offset: int
    id: str
    key: str | None
    type: str
    payload: str
    headers: str | None
    at_us: int
    attempts: int
    due_us: int | None
    dead: int
    error: str | None


class ToPark(NamedTuple):
    """A row to insert into the parked events; `due_in_us` None: behind another event of its key."""

    partition: int
    offset: int
    id: str
    key: str | None
    type: str
    payload: str
    headers: str | None
    at_us: int
    attempts: int
    due_in_us: int | None
    dead: int
    error: str | None


class Place(NamedTuple):
    """Where a parked event stood in the log."""

    partition: int
    offset: int


class Backlog(NamedTuple):
    """How far one group is behind in one partition."""

    group: str
    partition: int
    events: int
    oldest_us: int | None


class ParkedCount(NamedTuple):
    """A group's parked events."""

    group: str
    waiting: int
    dead: int
    oldest_us: int | None
    """When the first of those that wait was published."""


@sql(
    """INSERT INTO faultproof_inbox (log, grp, "partition", next_offset, key_waits)
       SELECT :log, :grp, "partition", "offset", :key_waits FROM {starts} WHERE true
       ON CONFLICT (log, grp, "partition") DO NOTHING"""
)
def join_group(log: str, grp: str, key_waits: int, starts: Sequence[Cursor]) -> None: ...


@sql("UPDATE faultproof_inbox SET key_waits = :key_waits WHERE log = :log AND grp = :grp AND key_waits <> :key_waits")
def choose(log: str, grp: str, key_waits: int) -> Changed: ...


@sql("SELECT count(*) FROM faultproof_inbox WHERE log = :log AND grp = :grp")
def joined(log: str, grp: str) -> int: ...


# All that an idle consumer asks.
@sql(
    """SELECT i."partition", i.next_offset, p.next_offset,
              CASE WHEN EXISTS (SELECT 1 FROM faultproof_parked WHERE log = :log AND grp = :grp) THEN 1 ELSE 0 END,
              (SELECT min(due_us) - {now} FROM faultproof_parked
               WHERE log = :log AND grp = :grp AND dead = 0 AND due_us IS NOT NULL AND "partition" IN {partitions})
       FROM faultproof_inbox AS i
       JOIN faultproof_log_partition AS p ON p.log = i.log AND p."partition" = i."partition"
       WHERE i.log = :log AND i.grp = :grp AND i."partition" IN {partitions} ORDER BY i."partition" """
)
def standing(log: str, grp: str, partitions: Sequence[int]) -> list[Standing]: ...


@sql(
    """UPDATE faultproof_inbox SET next_offset =
         (SELECT moves.new FROM {moves} WHERE moves."partition" = faultproof_inbox."partition")
       WHERE log = :log AND grp = :grp AND EXISTS (SELECT 1 FROM {moves}
         WHERE moves."partition" = faultproof_inbox."partition" AND moves.old = faultproof_inbox.next_offset)"""
)
def advance(log: str, grp: str, moves: Sequence[Progress]) -> Changed: ...


# Whoever parks behind an event of its key, and whoever settles that event: each must see what the other did.
@sql(
    """SELECT next_offset FROM faultproof_inbox
       WHERE log = :log AND grp = :grp AND "partition" IN {partitions} ORDER BY "partition" {lock}""",
    deferred=True,
)
def hold(log: str, grp: str, partitions: Sequence[int]) -> None: ...


@sql(
    """SELECT DISTINCT key FROM faultproof_parked
       WHERE log = :log AND grp = :grp AND "partition" IN {partitions} AND key IN {keys} AND (dead = 0 OR :key_waits = 1)"""
)
def blocked_keys(log: str, grp: str, partitions: Sequence[int], keys: Sequence[str], key_waits: int) -> list[str]: ...


@sql(
    """SELECT "partition", "offset", event_id, key, type, payload, headers, at_us, attempts, due_us, dead, error
       FROM faultproof_parked WHERE log = :log AND grp = :grp AND dead = 0 AND due_us <= {now}
         AND "partition" IN {partitions} ORDER BY due_us, "partition", "offset" LIMIT :limit"""
)
def due(log: str, grp: str, partitions: Sequence[int], limit: int) -> list[Parked]: ...


# Those of a key in their turn, its head first, as `promote` sees them.
@sql(
    """SELECT "partition", "offset", event_id, key, type, payload, headers, at_us, attempts, due_us, dead, error
       FROM faultproof_parked WHERE log = :log AND grp = :grp AND "partition" = :partition AND key = :key
         AND (dead = 0 OR (SELECT max(key_waits) FROM faultproof_inbox WHERE log = :log AND grp = :grp) = 1)
       ORDER BY "offset" LIMIT :limit"""
)
def line(log: str, grp: str, partition: int, key: str, limit: int) -> list[Parked]: ...


@sql(
    """UPDATE faultproof_parked SET error = :error
       WHERE log = :log AND grp = :grp AND error IS NULL
         AND ("partition", "offset") IN (SELECT "partition", "offset" FROM {places})"""
)
def take_together(log: str, grp: str, error: str, places: Sequence[Place]) -> Changed: ...


@sql(
    """UPDATE faultproof_parked SET error = NULL
       WHERE log = :log AND grp = :grp AND attempts = 0
         AND ("partition", "offset") IN (SELECT "partition", "offset" FROM {places})"""
)
def put_back(log: str, grp: str, places: Sequence[Place]) -> Changed: ...


@sql(
    """INSERT INTO faultproof_parked
         (log, grp, "partition", "offset", event_id, key, type, payload, headers, at_us, attempts, due_us, dead, error)
       SELECT :log, :grp, "partition", "offset", id, key, type, payload, headers, at_us, attempts, {now} + due_in_us, dead,
              error
       FROM {events} WHERE true"""
)
def park(log: str, grp: str, events: Sequence[ToPark]) -> None: ...


@sql(
    """UPDATE faultproof_parked SET attempts = attempts + 1, due_us = {now} + :due_in_us
       WHERE log = :log AND grp = :grp AND "partition" = :partition AND "offset" = :offset
         AND attempts = :attempts"""
)
def begin_attempt(log: str, grp: str, partition: int, offset: int, attempts: int, due_in_us: int) -> Changed: ...


@sql(
    """UPDATE faultproof_parked SET attempts = :attempts, due_us = {now} + :due_in_us
       WHERE log = :log AND grp = :grp AND "partition" = :partition AND "offset" = :offset"""
)
def take_back_attempt(log: str, grp: str, partition: int, offset: int, attempts: int, due_in_us: int) -> Changed: ...


@sql(
    """UPDATE faultproof_parked SET dead = :dead, error = :error, due_us = {now} + :due_in_us
       WHERE log = :log AND grp = :grp AND "partition" = :partition AND "offset" = :offset AND dead = 0"""
)
def record_failure(
    log: str, grp: str, partition: int, offset: int, due_in_us: int | None, dead: int, error: str
) -> Changed: ...


@sql(
    """DELETE FROM faultproof_parked
       WHERE log = :log AND grp = :grp AND "partition" = :partition AND "offset" = :offset"""
)
def unpark(log: str, grp: str, partition: int, offset: int) -> Changed: ...


@sql(
    """DELETE FROM faultproof_parked
       WHERE log = :log AND grp = :grp AND attempts = 0
         AND ("partition", "offset") IN (SELECT "partition", "offset" FROM {places})"""
)
def unpark_together(log: str, grp: str, places: Sequence[Place]) -> Changed: ...


# The next event of the key becomes due, unless one that is dead stands before it and keys wait in this group.
@sql(
    """UPDATE faultproof_parked SET due_us = {now}
       WHERE log = :log AND grp = :grp AND "partition" = :partition AND dead = 0 AND due_us IS NULL
         AND "offset" = (SELECT min(q."offset") FROM faultproof_parked AS q
           WHERE q.log = :log AND q.grp = :grp AND q."partition" = :partition AND q.key = :key
             AND (q.dead = 0 OR (SELECT max(key_waits) FROM faultproof_inbox WHERE log = :log AND grp = :grp) = 1))"""
)
def promote(log: str, grp: str, partition: int, key: str) -> Changed: ...


# Keys go on from now on: the first of each key, behind none but the dead, is due.
@sql(
    """UPDATE faultproof_parked SET due_us = {now}
       WHERE log = :log AND grp = :grp
         AND "offset" = (SELECT min(q."offset") FROM faultproof_parked AS q
           WHERE q.log = :log AND q.grp = :grp AND q."partition" = faultproof_parked."partition"
             AND q.key = faultproof_parked.key AND q.dead = 0)"""
)
def let_keys_go_on(log: str, grp: str) -> Changed: ...


# Keys wait from now on: whatever stands behind another of its key, which may be dead.
@sql(
    """UPDATE faultproof_parked SET due_us = NULL
       WHERE log = :log AND grp = :grp AND EXISTS (SELECT 1 FROM faultproof_parked AS q
         WHERE q.log = :log AND q.grp = :grp AND q."partition" = faultproof_parked."partition"
           AND q.key = faultproof_parked.key AND q."offset" < faultproof_parked."offset")"""
)
def let_keys_wait(log: str, grp: str) -> Changed: ...


@sql(
    """SELECT "partition", "offset", event_id, key, type, payload, headers, at_us, attempts, due_us, dead, error
       FROM faultproof_parked WHERE log = :log AND grp = :grp AND dead = 1
       ORDER BY "partition", "offset" LIMIT :limit"""
)
def dead_letters(log: str, grp: str, limit: int) -> list[Parked]: ...


@sql(
    """SELECT "partition", "offset", event_id, key, type, payload, headers, at_us, attempts, due_us, dead, error
       FROM faultproof_parked WHERE log = :log AND grp = :grp AND dead = 1 AND event_id = :id"""
)
def dead_letter(log: str, grp: str, id: str) -> Parked | None: ...


# Behind one of its key that is attempted again it waits, as every other: or it would overtake that one. Before one that is
# dead it goes, since a person has decided so.
@sql(
    """UPDATE faultproof_parked SET dead = 0, attempts = 0, due_us = CASE WHEN EXISTS (SELECT 1 FROM faultproof_parked AS q
           WHERE q.log = :log AND q.grp = :grp AND q."partition" = :partition AND q.key = faultproof_parked.key
             AND q."offset" < :offset AND q.dead = 0)
         THEN NULL ELSE {now} END
       WHERE log = :log AND grp = :grp AND "partition" = :partition AND "offset" = :offset"""
)
def revive(log: str, grp: str, partition: int, offset: int) -> Changed: ...


@sql("SELECT DISTINCT grp FROM faultproof_inbox WHERE log = :log ORDER BY grp")
def groups(log: str) -> list[str]: ...


@sql("DELETE FROM faultproof_inbox WHERE log = :log AND grp = :grp")
def leave_group(log: str, grp: str) -> Changed: ...


@sql("DELETE FROM faultproof_parked WHERE log = :log AND grp = :grp")
def forget_parked(log: str, grp: str) -> Changed: ...


@sql('SELECT "partition", min(next_offset) FROM faultproof_inbox WHERE log = :log GROUP BY "partition" ')
def slowest(log: str) -> list[Cursor]: ...


@sql(
    """SELECT i.grp, i."partition", p.next_offset - i.next_offset,
              (SELECT l.at_us FROM faultproof_log AS l
               WHERE l.log = i.log AND l."partition" = i."partition" AND l."offset" = i.next_offset)
       FROM faultproof_inbox AS i
       JOIN faultproof_log_partition AS p ON p.log = i.log AND p."partition" = i."partition"
       WHERE i.log = :log ORDER BY i.grp, i."partition" """
)
def backlogs(log: str) -> list[Backlog]: ...


@sql(
    """SELECT grp, count(CASE WHEN dead = 0 THEN 1 END), count(CASE WHEN dead = 1 THEN 1 END),
              min(CASE WHEN dead = 0 THEN at_us END)
       FROM faultproof_parked
       WHERE log = :log GROUP BY grp ORDER BY grp"""
)
def parked_counts(log: str) -> list[ParkedCount]: ...


@sql("SELECT {now}")
def engine_now_us() -> int: ...


# -- messages that a `MessageInbox` has seen ------------------------------------------------------------------------------

SEEN = Schema(
    name="seen",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_seen (
                 inbox TEXT NOT NULL, message_id TEXT NOT NULL, at_us BIGINT NOT NULL, PRIMARY KEY (inbox, message_id))""",
            "CREATE INDEX IF NOT EXISTS faultproof_seen_at ON faultproof_seen (inbox, at_us)",
        ]
    ],
    works_from=1,
    works_to=1,
)


@sql(
    """INSERT INTO faultproof_seen (inbox, message_id, at_us) VALUES (:inbox, :id, {now})
       ON CONFLICT (inbox, message_id) DO NOTHING"""
)
def see(inbox: str, id: str) -> Changed: ...


@sql(
    """DELETE FROM faultproof_seen WHERE inbox = :inbox AND message_id IN (
         SELECT message_id FROM faultproof_seen
         WHERE inbox = :inbox AND at_us <= {now} - :older_us ORDER BY at_us LIMIT :limit)"""
)
def forget_seen(inbox: str, older_us: int, limit: int) -> Changed: ...

"""The saga's tables: a row for each saga, its journal, and callbacks that wait to be taken up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.ports.schema import Schema
from faultproof.ports.script import sql
from faultproof.ports.statement import Changed

SCHEMA = Schema(
    name="saga",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_saga (
                 saga TEXT NOT NULL, id TEXT NOT NULL, version BIGINT NOT NULL, fingerprint TEXT NOT NULL,
                 shape TEXT NOT NULL, digest TEXT NOT NULL, input TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
                 deadline_us BIGINT, started_us BIGINT NOT NULL, ended_us BIGINT, PRIMARY KEY (saga, id)) {updated}""",
            # Of the sagas that are over there may be millions; those that are not are what operators ask for.
            """CREATE INDEX IF NOT EXISTS faultproof_saga_open ON faultproof_saga (saga, state, started_us)
                 WHERE ended_us IS NULL""",
            """CREATE INDEX IF NOT EXISTS faultproof_saga_ended ON faultproof_saga (saga, ended_us)
                 WHERE ended_us IS NOT NULL""",
            """CREATE TABLE IF NOT EXISTS faultproof_saga_entry (
                 saga TEXT NOT NULL, id TEXT NOT NULL, seq BIGINT NOT NULL, step TEXT NOT NULL, what TEXT NOT NULL,
                 attempt BIGINT NOT NULL, data TEXT, due_us BIGINT, at_us BIGINT NOT NULL, PRIMARY KEY (saga, id, seq))""",
            """CREATE TABLE IF NOT EXISTS faultproof_saga_callback (
                 saga TEXT NOT NULL, id TEXT NOT NULL, step TEXT NOT NULL, attempt BIGINT NOT NULL, what TEXT NOT NULL,
                 data TEXT, at_us BIGINT NOT NULL, PRIMARY KEY (saga, id, step, attempt))""",
        ]
    ],
    works_from=1,
    works_to=1,
)


class NewSaga(NamedTuple):
    """A saga to start."""

    id: str
    digest: str
    input: str
    deadline_us: int | None
    """From now."""


class Known(NamedTuple):
    """What tells a repeated start from a mistaken one."""

    id: str
    digest: str


class Stored(NamedTuple):
    """A saga as somebody needs it who goes on with it."""

    id: str
    version: int
    fingerprint: str
    shape: str
    input: str
    state: str
    deadline_us: int | None
    entries: int
    now_us: int


class NewEntry(NamedTuple):
    """A line for the journal."""

    id: str
    seq: int
    step: str
    what: str
    attempt: int
    data: str | None
    due_us: int | None


class StoredEntry(NamedTuple):
    """A line of the journal."""

    id: str
    seq: int
    step: str
    what: str
    attempt: int
    data: str | None
    due_us: int | None
    at_us: int


class Callback(NamedTuple):
    """An answer to an asynchronous step."""

    id: str
    step: str
    attempt: int
    what: str
    data: str | None


class Ended(NamedTuple):
    """A saga that goes on no more by itself."""

    id: str
    state: str
    reason: str | None


class StepResult(NamedTuple):
    """What a step returned, as JSON."""

    step: str
    data: str | None


class Listed(NamedTuple):
    """A saga for operators."""

    id: str
    state: str
    version: int
    reason: str | None
    step: str | None
    """Of the journal's last entry."""
    what: str | None
    age_s: float
    """Since it was started."""
    quiet_s: float
    """Since its journal's last entry."""


class ListedRow(NamedTuple):
    """The same in whole microseconds: what engines make of a division differs."""

    id: str
    state: str
    version: int
    reason: str | None
    step: str | None
    what: str | None
    age_us: int
    quiet_us: int


class Standing(NamedTuple):
    """A saga's row for whoever decides on it by hand."""

    state: str
    version: int
    shape: str
    seq: int
    """Of its journal's last entry."""
    deadline_us: int | None


# In order, or two that start the same sagas in different orders would deadlock.
@sql(
    """INSERT INTO faultproof_saga (saga, id, version, fingerprint, shape, digest, input, state, deadline_us, started_us)
       SELECT :saga, id, :version, :fingerprint, :shape, digest, input, 'running', {now} + deadline_us, {now}
       FROM {items} WHERE true ORDER BY id, ordinal
       ON CONFLICT (saga, id) DO NOTHING RETURNING id"""
)
def insert(saga: str, version: int, fingerprint: str, shape: str, items: Sequence[NewSaga]) -> list[str]: ...


# The same where all are taken to be new: a key refuses the transaction if they are not.
@sql(
    """INSERT INTO faultproof_saga (saga, id, version, fingerprint, shape, digest, input, state, deadline_us, started_us)
       SELECT :saga, id, :version, :fingerprint, :shape, digest, input, 'running', {now} + deadline_us, {now}
       FROM {items} WHERE true ORDER BY id, ordinal""",
    deferred=True,
)
def insert_new(saga: str, version: int, fingerprint: str, shape: str, items: Sequence[NewSaga]) -> None: ...


@sql("SELECT id, digest FROM faultproof_saga WHERE saga = :saga AND id IN {ids}")
def known(saga: str, ids: Sequence[str]) -> list[Known]: ...


@sql(
    """SELECT s.id, s.version, s.fingerprint, s.shape, s.input, s.state, s.deadline_us,
              (SELECT count(*) FROM faultproof_saga_entry e WHERE e.saga = s.saga AND e.id = s.id), {now}
       FROM faultproof_saga s WHERE s.saga = :saga AND s.id IN {ids} ORDER BY s.id"""
)
def stored(saga: str, ids: Sequence[str]) -> list[Stored]: ...


@sql(
    """SELECT id, seq, step, what, attempt, data, due_us, at_us FROM faultproof_saga_entry
       WHERE saga = :saga AND id IN {ids} ORDER BY id, seq"""
)
def entries(saga: str, ids: Sequence[str]) -> list[StoredEntry]: ...


@sql(
    """SELECT id, step, attempt, what, data FROM faultproof_saga_callback
       WHERE saga = :saga AND id IN {ids} ORDER BY id, step, attempt"""
)
def callbacks(saga: str, ids: Sequence[str]) -> list[Callback]: ...


@sql(
    """INSERT INTO faultproof_saga_entry (saga, id, seq, step, what, attempt, data, due_us, at_us)
       SELECT :saga, id, seq, step, what, attempt, data, due_us, {now} FROM {items} ORDER BY ordinal""",
    deferred=True,
)
def write(saga: str, items: Sequence[NewEntry]) -> None: ...


@sql(
    """UPDATE faultproof_saga SET state = :state, reason = :reason, ended_us = CASE WHEN :is_over = 1 THEN {now} END
       WHERE saga = :saga AND id IN {ids}""",
    deferred=True,
)
def move(saga: str, ids: Sequence[str], state: str, reason: str | None, is_over: int) -> None: ...


@sql(
    """INSERT INTO faultproof_saga_callback (saga, id, step, attempt, what, data, at_us)
       VALUES (:saga, :id, :step, :attempt, :what, :data, {now}) ON CONFLICT DO NOTHING"""
)
def call_back(saga: str, id: str, step: str, attempt: int, what: str, data: str | None) -> Changed: ...


@sql(
    """SELECT id, state, reason FROM faultproof_saga
       WHERE saga = :saga AND id IN {ids} AND (ended_us IS NOT NULL OR state = 'attention')"""
)
def ended(saga: str, ids: Sequence[str]) -> list[Ended]: ...


@sql("SELECT id FROM faultproof_saga WHERE saga = :saga AND id = :id")
def exists(saga: str, id: str) -> str | None: ...


@sql(
    """SELECT step, data FROM faultproof_saga_entry
       WHERE saga = :saga AND id = :id AND what IN ('done', 'skipped') ORDER BY seq"""
)
def results(saga: str, id: str) -> list[StepResult]: ...


@sql(
    """SELECT state, version, shape,
              coalesce((SELECT max(seq) FROM faultproof_saga_entry e WHERE e.saga = :saga AND e.id = :id), 0), deadline_us
       FROM faultproof_saga WHERE saga = :saga AND id = :id"""
)
def standing(saga: str, id: str) -> Standing | None: ...


# Taken before anything is read: whoever decides by hand does so one after the other.
@sql("UPDATE faultproof_saga SET state = 'running' WHERE saga = :saga AND id = :id AND state = 'attention'")
def reopen(saga: str, id: str) -> Changed: ...


@sql(
    """UPDATE faultproof_saga SET version = :version, fingerprint = :fingerprint, shape = :shape
       WHERE saga = :saga AND id = :id"""
)
def adopt(saga: str, id: str, version: int, fingerprint: str, shape: str) -> None: ...


@sql(
    """SELECT s.id, s.state, s.version, s.reason, e.step, e.what, {now} - s.started_us,
              {now} - coalesce(e.at_us, s.started_us)
       FROM faultproof_saga s LEFT JOIN faultproof_saga_entry e ON e.saga = s.saga AND e.id = s.id
         AND e.seq = (SELECT max(seq) FROM faultproof_saga_entry l WHERE l.saga = s.saga AND l.id = s.id)
       WHERE s.saga = :saga AND s.ended_us IS NULL
         AND (s.state = 'attention' OR coalesce(e.at_us, s.started_us) <= {now} - :older_us)
         AND (:state = '' OR s.state = :state)
       ORDER BY s.started_us, s.id LIMIT :limit"""
)
def open_sagas(saga: str, state: str, older_us: int, limit: int) -> list[ListedRow]: ...


@sql(
    """SELECT s.id, s.state, s.version, s.reason, NULL, NULL, {now} - s.started_us,
              {now} - s.ended_us
       FROM faultproof_saga s WHERE s.saga = :saga AND s.state = :state AND s.ended_us IS NOT NULL
       ORDER BY s.ended_us DESC, s.id LIMIT :limit"""
)
def ended_sagas(saga: str, state: str, limit: int) -> list[ListedRow]: ...


@sql("SELECT {now}")
def now() -> int: ...


@sql("SELECT DISTINCT saga FROM faultproof_saga ORDER BY saga")
def names() -> list[str]: ...


@sql(
    """SELECT id FROM faultproof_saga WHERE saga = :saga AND ended_us IS NOT NULL AND ended_us <= {now} - :older_us
       ORDER BY ended_us LIMIT :limit"""
)
def old(saga: str, older_us: int, limit: int) -> list[str]: ...


@sql("DELETE FROM faultproof_saga_callback WHERE saga = :saga AND id IN {ids}")
def forget_callbacks(saga: str, ids: Sequence[str]) -> None: ...


@sql("DELETE FROM faultproof_saga_entry WHERE saga = :saga AND id IN {ids}")
def forget_entries(saga: str, ids: Sequence[str]) -> None: ...


@sql("DELETE FROM faultproof_saga WHERE saga = :saga AND id IN {ids} AND ended_us IS NOT NULL")
def forget(saga: str, ids: Sequence[str]) -> Changed: ...

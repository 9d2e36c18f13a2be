"""What people do with sagas, from the application or from outside of it: look, and decide where a saga could not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput, Repair
from faultproof.patterns.saga import machine, sql
from faultproof.patterns.saga.journal import claim_kind, ended_topic, work_topic
from faultproof.patterns.saga.machine import Entry, Run
from faultproof.patterns.saga.shape import Shape
from faultproof.patterns.saga.steps import keepable
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake
from faultproof.primitives.install import check

STATES = ("running", "compensating", "attention", "completed", "compensated")
LIST_MAX = 10_000


class HistoryEntry(NamedTuple):
    """A line of the audit trail."""

    seq: int
    at_us: int
    """Microseconds since 1970, by the engine's clock."""
    step: str
    """"" for what concerns the whole saga."""
    what: str
    attempt: int
    data: str | None
    """A result as JSON, an error, or a reason. Secrets of callbacks are left out."""


class Standing(NamedTuple):
    """A saga's shape, and where it stands in it."""

    shape: Shape
    run: Run
    seq: int


def require(database: Database) -> Script[None]:
    """Nothing, if this release can work on the tables. Raises `SchemaMismatch` if it cannot, or they are not there."""
    yield from check(database.claims.schema, sql.SCHEMA)


def listed(saga: str, state: str | None, limit: int) -> Script[list[sql.Listed]]:
    """Sagas of one state, or all that are not over; the oldest first, those that are over latest first."""
    bounds.count("limit", limit, most=LIST_MAX)
    if state not in (None, *STATES):
        raise InvalidInput(f"a saga is in one of the states {', '.join(STATES)}, got {state!r}")
    if state in ("completed", "compensated"):
        return _in_seconds((yield from sql.ended_sagas(saga, state, limit)))
    return _in_seconds((yield from sql.open_sagas(saga, state or "", 0, limit)))


def stuck(saga: str, older: float, limit: int) -> Script[list[sql.Listed]]:
    """Those that want attention, and those whose journal has been quiet for `older` seconds."""
    bounds.seconds("older", older, least=0)
    bounds.count("limit", limit, most=LIST_MAX)
    return _in_seconds((yield from sql.open_sagas(saga, "", int(older * 1_000_000), limit)))


def _in_seconds(rows: Sequence[sql.ListedRow]) -> list[sql.Listed]:
    return [sql.Listed(*row[:6], row.age_us / 1_000_000, row.quiet_us / 1_000_000) for row in rows]


def history(saga: str, id: str) -> Script[list[HistoryEntry]]:
    """The audit trail of one saga. Raises `InvalidInput` for one that is not there."""
    yield from _row(saga, id)
    return [
        HistoryEntry(e.seq, e.at_us, e.step, e.what, e.attempt, None if e.what == "began" else e.data)
        for e in (yield from sql.entries(saga, [id]))
    ]


def standing(saga: str, id: str) -> Script[Standing]:
    """Where a saga stands, by its own shape. Raises `InvalidInput` for one that is not there, `Repair` for one whose shape
    cannot be read."""
    row = yield from _row(saga, id)
    try:
        shape = msgspec.json.decode(row.shape, type=Shape)
    except msgspec.DecodeError as error:
        raise Repair(f"the shape of saga {id!r} cannot be read ({error}): see to it by hand, and resolve it") from error
    run = machine.begin(shape, row.deadline_us)
    for line in (yield from sql.entries(saga, [id])):
        run = machine.evolve(shape, run, Entry(*line[2:7]))  # type: ignore[arg-type]  # from the journal
    return Standing(shape, run, row.seq)


def retry(database: Database, saga: str, id: str) -> Script[None]:
    """Try again what could not be done, with fresh attempts. Raises `InvalidInput` unless the saga wants attention."""
    found = yield from _reopened(saga, id)
    step = found.run.stuck
    entry = Entry(step, "retried", 0, None, 0) if step else Entry("", "resumed")
    yield from _go_on(database, saga, id, found, entry)


def skip(database: Database, saga: str, id: str, *, result: str | None = None) -> Script[None]:
    """Count the step that could not be done, or undone, as if it had been: somebody has seen to it. `result`: of an action,
    as JSON; the step's own type only its application knows. Raises `InvalidInput` unless the saga wants attention because
    of a step, for what is no JSON, and for a result of an undo, which has none."""
    found = yield from _reopened(saga, id)
    if not found.run.stuck:
        raise InvalidInput(
            f"the saga {id!r} stands still because of no step: retry, adopt or resolve it ({found.run.reason})"
        )
    step = found.run.stuck
    if result is not None:
        if found.run.before != "running":
            raise InvalidInput(f"the undo of step {step!r} could not be done, and an undo has no result: give none")
        result = typed_in(result)
    yield from _go_on(database, saga, id, found, Entry(step, "skipped", 0, result))


def typed_in(result: str) -> str:
    """What somebody says that a step has returned: JSON that it could have. Raises `InvalidInput`, `PayloadTooLarge`."""
    try:
        encoded = result.encode()
        msgspec.json.decode(encoded)  # `format` alone is not as strict
        return keepable(msgspec.json.format(encoded, indent=-1), "the result")
    except (UnicodeEncodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"the result is no JSON: {error}") from error


def resolve(saga: str, id: str, *, outcome: Literal["completed", "compensated"], reason: str) -> Script[None]:
    """End it by hand: somebody has done, or undone, what was left. Raises `InvalidInput` unless it wants attention."""
    if outcome not in ("completed", "compensated"):
        raise InvalidInput(f"a saga ends completed or compensated, got {outcome!r}")
    row = yield from _taken_in_hand(saga, id)  # and no more of it than that: its rows may be damaged
    yield from sql.write(saga, [sql.NewEntry(id, row.seq + 1, "", outcome, 0, reason, None)])
    yield from sql.move(saga, [id], outcome, reason, 1)
    yield Wake(ended_topic(saga))


def trim(saga: str, older_us: int, limit: int) -> Script[int]:
    """Forget sagas that have been over for so long, with their journals; how many."""
    ids: Sequence[str] = yield from sql.old(saga, older_us, limit)
    if not ids:
        return 0
    yield from sql.forget_callbacks(saga, ids)
    yield from sql.forget_entries(saga, ids)
    return (yield from sql.forget(saga, ids))


def resume(database: Database, saga: str, id: str, found: Standing) -> Script[None]:
    """Go on as it is, after `reopen`."""
    yield from _go_on(database, saga, id, found, Entry("", "resumed"))


def reopened(saga: str, id: str) -> Script[Standing]:
    """Take a saga that wants attention in hand: nobody else decides on it until the commit."""
    return (yield from _reopened(saga, id))


def _reopened(saga: str, id: str) -> Script[Standing]:
    yield from _taken_in_hand(saga, id)
    return (yield from standing(saga, id))


def _taken_in_hand(saga: str, id: str) -> Script[sql.Standing]:
    is_ours = (yield from sql.reopen(saga, id)) == 1
    row = yield from _row(saga, id)
    if not is_ours:
        raise InvalidInput(f"the saga {id!r} is {row.state} and wants no attention: nothing was changed")
    return row


def _row(saga: str, id: str) -> Script[sql.Standing]:
    row = yield from sql.standing(saga, id)
    if row is None:
        raise InvalidInput(f"there is no saga {id!r} of {saga!r}")
    return row


def _go_on(database: Database, saga: str, id: str, found: Standing, entry: Entry) -> Script[None]:
    run = machine.evolve(found.shape, found.run, entry)
    yield from sql.write(saga, [sql.NewEntry(id, found.seq + 1, *entry)])
    yield from sql.move(saga, [id], run.phase, run.reason, 0)
    yield from database.claims.add(claim_kind(saga), [id])
    yield Wake(work_topic(saga))

"""Histories of a sequenced log."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Entry
from faultproof.ports.script import Script, sql
from faultproof.ports.statement import Changed
from tests.agreement.pair import ELAPSE_S, HOUR_US, Operation, coarse, in_one_transaction
from tests.moving import moving

PARTITIONS = 3


class Waiting(NamedTuple):
    """A row of the intake, without its times."""

    partition: int
    id: str
    key: str | None
    delayed: int


class Stored(NamedTuple):
    """A row of the log, without its times."""

    partition: int
    offset: int
    id: str
    key: str | None
    type: str
    payload: str
    headers: str | None


@sql(
    """UPDATE faultproof_intake SET at_us = at_us - :us, due_us = CASE WHEN due_us > 0 THEN due_us - :us ELSE due_us END
       WHERE log = :log"""
)
def older_intake(log: str, us: int) -> Changed: ...


@sql("UPDATE faultproof_log SET at_us = at_us - :us WHERE log = :log")
def older_log(log: str, us: int) -> Changed: ...


@sql(
    """SELECT "partition", event_id, key, CASE WHEN due_us > 0 THEN 1 ELSE 0 END FROM faultproof_intake
       WHERE log = :log ORDER BY id"""
)
def waiting(log: str) -> list[Waiting]: ...


@sql(
    """SELECT "partition", "offset", event_id, key, type, payload, headers FROM faultproof_log
       WHERE log = :log ORDER BY "partition", "offset" """
)
def stored(log: str) -> list[Stored]: ...


class Log:
    """One log, and whoever writes, sequences, reads and trims it."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._table = database.logs
        self._log = name
        self._numbers = itertools.count()

    async def begin(self) -> None:
        await self._database.transact(self._table.create(self._log, partitions=PARTITIONS, epoch="e"))

    async def alone(self, step: Operation) -> object:
        return await self._database.transact(self._script(step))

    async def looked(self, step: Operation) -> object:
        return await self._database.read(self._script(step))

    async def together(self, steps: Sequence[Operation], commit: bool) -> object:
        return await in_one_transaction(
            self._database, [lambda step=step: self._script(step) for step in steps], commit=commit
        )

    async def elapse(self) -> object:
        return await self._database.transact(self._elapse())

    async def tables(self) -> object:
        return await self._database.transact(self._tables())

    # -- scripts ----------------------------------------------------------------------------------------------------

    def create(self, partitions: int) -> Script[object]:
        return (yield from self._table.create(self._log, partitions=partitions, epoch="another"))

    def begin_epoch(self, epoch: str) -> Script[object]:
        yield from self._table.begin_epoch(self._log, epoch=epoch)
        return (yield from self._table.epoch(self._log))

    def append(self, events: Sequence[tuple[int, str | None, int]], partitions: int) -> Script[object]:
        entries = [
            Entry(partition, f"{next(self._numbers):04}", key, "t", '{"ü": 1}', None if key else '{"h":"1"}', delay_us)
            for partition, key, delay_us in events
        ]
        return (yield from self._table.append(self._log, entries, partitions=partitions))

    def append_elsewhere(self) -> Script[object]:
        entry = Entry(0, "x", None, "t", "{}", None, 0)
        return (yield from self._table.append("nowhere", [entry], partitions=PARTITIONS))

    def ready(self) -> Script[object]:
        found = yield from self._table.ready(self._log)
        return bool(found.waiting), coarse(found.due_in_us)

    def sequence(self, partitions: Sequence[int], limit: int) -> Script[object]:
        return (yield from moving(self._table, self._log, partitions, limit=limit))

    def read(self, cursors: Sequence[Cursor], limit: int) -> Script[object]:
        records = yield from self._table.read(self._log, cursors, limit=limit)
        return [record[:7] for record in records]

    def trim(self, upto: Sequence[Cursor], older_us: int, limit: int) -> Script[object]:
        return (yield from self._table.trim(self._log, upto=upto, older_us=older_us, limit=limit))

    def spans(self) -> Script[object]:
        return (yield from self._table.spans(self._log))

    def hold(self) -> Script[object]:
        return (yield from self._table.hold(self._log))

    def intake(self) -> Script[object]:
        found = yield from self._table.intake(self._log)
        return found.events, coarse(found.age_us), found.delayed

    # -- inside -----------------------------------------------------------------------------------------------------

    def _script(self, step: Operation) -> Script[object]:
        script: Script[object] = getattr(self, step.name)(*step.arguments)
        return script

    def _elapse(self) -> Script[object]:
        us = ELAPSE_S * 1_000_000
        return (yield from older_intake(self._log, us)), (yield from older_log(self._log, us))

    def _tables(self) -> Script[object]:
        spans = yield from self._table.spans(self._log)
        epoch = yield from self._table.epoch(self._log)
        return spans, epoch, (yield from waiting(self._log)), (yield from stored(self._log))


_partition = st.integers(0, PARTITIONS - 1)
_key = st.sampled_from(["a", "b", None])
_delay = st.sampled_from([0, 0, 0, HOUR_US, 2 * HOUR_US])
_events = st.lists(st.tuples(_partition, _key, _delay), min_size=1, max_size=5)
_mine = st.lists(_partition, max_size=PARTITIONS, unique=True)
_cursors = st.lists(
    st.builds(Cursor, _partition, st.integers(0, 6)), max_size=PARTITIONS, unique_by=lambda cursor: cursor.partition
)
_limit = st.integers(1, 5)
_append = st.builds(Operation, st.just("append"), st.tuples(_events, st.just(PARTITIONS)))
_sequence = st.builds(Operation, st.just("sequence"), st.tuples(_mine, _limit))
_read = st.builds(Operation, st.just("read"), st.tuples(_cursors, _limit))
_look = st.sampled_from([Operation(name, ()) for name in ("spans", "intake", "ready")])
_scripts = st.one_of(
    _append,
    _append,
    _sequence,
    _sequence,
    _read,
    _look,
    st.just(Operation("hold", ())),
    st.builds(Operation, st.just("trim"), st.tuples(_cursors, st.sampled_from([0, HOUR_US]), _limit)),
    st.builds(Operation, st.just("create"), st.tuples(st.integers(PARTITIONS, PARTITIONS + 1))),
    st.builds(Operation, st.just("begin_epoch"), st.tuples(st.sampled_from(["f", "g"]))),
)
_refused = st.one_of(
    st.builds(Operation, st.just("append"), st.tuples(_events, st.just(PARTITIONS + 1))),
    st.just(Operation("append_elsewhere", ())),
)
steps = st.one_of(
    st.builds(Operation, st.just("alone"), st.tuples(_scripts)),
    st.builds(Operation, st.just("alone"), st.tuples(_scripts)),
    st.builds(Operation, st.just("looked"), st.tuples(st.one_of(_read, _look))),
    st.builds(Operation, st.just("together"), st.tuples(st.lists(_scripts, min_size=2, max_size=4), st.booleans())),
    st.builds(Operation, st.just("alone"), st.tuples(_refused)),
    st.just(Operation("elapse", ())),
)
"""What a history of a log is made of."""

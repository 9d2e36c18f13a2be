"""Dead letters: events that a group has given up, for a person to look at, replay or discard."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from faultproof import bounds
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.poison import Parking
from faultproof.patterns.outbox.sequencer import log_topic
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake

LIST_MAX = 10_000
"""As many fit into memory."""
_Act: TypeAlias = Callable[[Parked], Script[None]]


class DeadLetter(NamedTuple):
    """One given-up event."""

    id: str
    type: str
    key: str | None
    payload: str
    """As published: JSON."""
    partition: int
    offset: int
    attempts: int
    error: str | None
    """The last failure: type and message."""
    at: datetime.datetime
    """When it was published; if it was delayed, when it became due."""


class DeadLetters:
    """The dead letters of one group."""

    def __init__(self, database: Database, log: str, group: str) -> None:
        self._database = database
        self._log = log
        self._group = group

    async def list(self, *, limit: int = 100) -> list[DeadLetter]:
        """The oldest ones first, by partition."""
        bounds.count("limit", limit, most=LIST_MAX)
        rows = await self._database.read(sql.dead_letters(self._log, self._group, limit))
        return [
            DeadLetter(
                row.id,
                row.type,
                row.key,
                row.payload,
                row.partition,
                row.offset,
                row.attempts,
                row.error,
                datetime.datetime.fromtimestamp(row.at_us / 1_000_000, datetime.UTC),
            )
            for row in rows
        ]

    async def replay(self, id: str) -> bool:
        """Attempt the event again from the first attempt; False if it is not among the dead."""
        return await self._database.transact(lambda: self._one(id, self._revive))

    async def discard(self, id: str) -> bool:
        """Give the event up for good; the next one of its key goes on. False if it is not among the dead."""
        return await self._database.transact(lambda: self._one(id, self._settle))

    async def replay_all(self, *, limit: int = 1_000) -> tuple[str, ...]:
        """Replay the first `limit` dead letters, in one transaction; their ids, none if there are none."""
        return await self._database.transact(lambda: self._first(limit, self._revive))

    async def discard_all(self, *, limit: int = 1_000) -> tuple[str, ...]:
        """Discard the first `limit` dead letters, in one transaction; their ids, none if there are none."""
        return await self._database.transact(lambda: self._first(limit, self._settle))

    def _one(self, id: str, act: _Act) -> Script[bool]:
        def look() -> Script[Sequence[Parked]]:
            row = yield from sql.dead_letter(self._log, self._group, id)
            return [] if row is None else [row]

        return bool((yield from self._each(look, act)))

    def _first(self, limit: int, act: _Act) -> Script[tuple[str, ...]]:
        bounds.count("limit", limit, most=LIST_MAX)
        return (yield from self._each(lambda: sql.dead_letters(self._log, self._group, limit), act))

    def _each(self, look: Callable[[], Script[Sequence[Parked]]], act: _Act) -> Script[tuple[str, ...]]:
        partitions = sorted({row.partition for row in (yield from look())})
        if not partitions:
            return ()
        # Held before they are looked at once more, as by whoever settles: of two people who decide on the same one, the
        # second would else discard what the first has replayed.
        yield from sql.hold(self._log, self._group, partitions)
        rows = [row for row in (yield from look()) if row.partition in partitions]
        for row in rows:
            yield from act(row)
        if rows:
            yield Wake(log_topic(self._log))
        return tuple(row.id for row in rows)

    def _revive(self, row: Parked) -> Script[None]:
        yield from sql.revive(self._log, self._group, row.partition, row.offset)

    def _settle(self, row: Parked) -> Script[None]:
        yield from Parking(self._log, self._group).settled(row)

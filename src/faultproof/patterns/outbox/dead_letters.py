"""Dead letters: events that a group has given up, for a person to look at, replay or discard."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from faultproof.errors import InvalidInput
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.poison import Parking
from faultproof.patterns.outbox.sequencer import log_topic
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake

LIST_MAX = 10_000


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
    """When it was published."""


class DeadLetters:
    """The dead letters of one group."""

    def __init__(self, database: Database, log: str, group: str) -> None:
        self._database = database
        self._log = log
        self._group = group

    async def list(self, *, limit: int = 100) -> list[DeadLetter]:
        """The oldest ones first, by partition."""
        if not 1 <= limit <= LIST_MAX:
            raise InvalidInput(f"limit must be between 1 and {LIST_MAX}, got {limit}")
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
        return await self._database.transact(self._replay(id))

    async def discard(self, id: str) -> bool:
        """Give the event up for good; the next one of its key goes on. False if it is not among the dead."""
        return await self._database.transact(self._discard(id))

    def _replay(self, id: str) -> Script[bool]:
        row = yield from sql.dead_letter(self._log, self._group, id)
        if row is None:
            return False
        yield from sql.revive(self._log, self._group, row.partition, row.offset)
        yield Wake(log_topic(self._log))
        return True

    def _discard(self, id: str) -> Script[bool]:
        row = yield from sql.dead_letter(self._log, self._group, id)
        if row is None:
            return False
        yield from Parking(self._log, self._group).settled(row)
        yield Wake(log_topic(self._log))
        return True

"""Retention: forgets what has been over for long, and tells how much is stuck."""

from __future__ import annotations

from faultproof import bounds
from faultproof.patterns.saga import operations
from faultproof.patterns.saga.journal import ended_topic
from faultproof.ports.database import Database, News
from faultproof.signals import SAGA_STUCK

BATCH = 500
STUCK_MAX = 1_000
"""The signal counts no further."""


class Retention:
    """A `Loop` that trims and watches; one of them for each kind of saga is enough, more do no harm."""

    def __init__(self, database: Database, saga: str, *, keep: float, every: float, stuck: float) -> None:
        bounds.seconds("keep", keep, least=0)
        bounds.seconds("every", every)
        bounds.seconds("stuck", stuck, least=0)
        self.name = f"{saga}:retention"
        self._database = database
        self._saga = saga
        self._keep = keep
        self._every = every
        self._stuck = stuck

    async def open(self) -> News:
        await self._database.read(operations.require(self._database))
        return self._database.changed(f"{ended_topic(self._saga)}.never")  # nobody calls: it looks when it is time

    async def step(self) -> float:
        database = self._database
        stuck = await database.read(operations.stuck(self._saga, self._stuck, STUCK_MAX))
        database.env.signals.emit(SAGA_STUCK, len(stuck), saga=self._saga)
        keep_us = int(self._keep * 1_000_000)
        trimmed = await database.transact(lambda: operations.trim(self._saga, keep_us, BATCH))
        return 0.0 if trimmed == BATCH else self._every

    async def close(self) -> None:
        """It holds nothing."""

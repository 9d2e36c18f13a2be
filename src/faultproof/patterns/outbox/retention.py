"""Retention: bounded deletes of what every group has settled, and the regular look at the lag."""

from __future__ import annotations

from faultproof import bounds
from faultproof.patterns.outbox import lag, operations, sql
from faultproof.patterns.outbox.sequencer import log_topic
from faultproof.ports.database import Database, News
from faultproof.ports.log import Cursor
from faultproof.ports.script import Script


class Retention:
    """A `Loop` that trims the log: events that all groups are past and that are older than `keep` seconds.

    Promise: an event that a group has not settled is never removed, and no step deletes more than `batch` events per
    partition. A group that is gone for good stops it until it is forgotten (`Outbox.forget`).
    """

    def __init__(self, database: Database, log: str, *, keep: float, every: float, batch: int) -> None:
        bounds.seconds("keep", keep, least=0)
        bounds.seconds("every", every)
        bounds.count("batch", batch)
        self.name = f"{log}:retention"
        self._database = database
        self._log = log
        self._keep_us = int(keep * 1_000_000)
        self._every = every
        self._batch = batch
        self._due = 0.0

    async def open(self) -> News:
        await self._database.read(operations.require(self._database, self._log))
        return self._database.changed(f"{log_topic(self._log)}.trim")

    async def step(self) -> float:
        clock = self._database.env.clock
        if (left := self._due - clock.monotonic()) > 0:  # woken early: news may come with every commit
            return left
        trimmed = await self._database.transact(self._trim)
        await lag.measure(self._database, self._log)
        if trimmed >= self._batch:
            return 0.0
        self._due = clock.monotonic() + self._every
        return self._every

    async def close(self) -> None:
        pass

    def _trim(self) -> Script[int]:
        spans = yield from self._database.logs.hold(self._log)  # from here on no group can join
        upto = yield from sql.slowest(self._log)
        if not upto:  # no group reads this log (a sink outside may): age alone decides
            upto = [Cursor(span.partition, span.next) for span in spans]
        return (yield from self._database.logs.trim(self._log, upto=upto, older_us=self._keep_us, limit=self._batch))

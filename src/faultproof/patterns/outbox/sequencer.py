"""The sequencer: moves committed events from the intake into the log, giving each its offset."""

from __future__ import annotations

from collections.abc import Callable

from faultproof import bounds
from faultproof.errors import LeaseLost
from faultproof.patterns.outbox import operations
from faultproof.patterns.outbox.heard import Heard
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database, News
from faultproof.ports.log import intake_topic
from faultproof.ports.script import Script, Wake
from faultproof.primitives.leases import Leases

IDLE_S = 5.0
"""How often an idle loop looks although nobody called."""
PAUSE_S = 0.01
"""How soon it looks for what nobody told of, after it has moved all there was."""


def log_topic(log: str) -> str:
    """News of events in the log."""
    return f"{log}.log"


def lease_kind(log: str) -> str:
    """The kind of a log's sequencer leases: one per partition."""
    return f"{log}:sequencer"


class Sequencer:
    """A `Loop` that sequences every partition whose lease it holds. Run it in any number of processes: one works, the
    others stand by and take over when its leases run out (`ttl` seconds after its last renewal).

    Promise: an event of a committed transaction enters the log once; one that was rolled back never does; per partition
    offsets are dense and follow the intake. Proof: `faultproof.patterns.outbox.proof:OUTBOX`.
    """

    def __init__(self, database: Database, log: str, *, owner: str, ttl: float, batch: int) -> None:
        bounds.count("batch", batch)
        self.name = f"{log}:sequencer"
        self._database = database
        self._log = log
        self._batch = batch
        self._leases = Leases(database, lease_kind(log), owner=owner, ttl=ttl, share=False)
        self._heard: Heard | None = None

    async def open(self) -> News:
        await self._database.read(operations.require(self._database, self._log))
        self._leases.doubt()
        self._heard = Heard(self._database.changed(intake_topic(self._log)))
        return self._heard

    async def step(self) -> float:
        claims = await self._leases.tend()
        if not claims:
            return self._leases.rest_s()
        if self._heard is None or not self._heard.take():
            ready = await self._database.read(self._database.logs.ready(self._log), snapshot=False)
            due = ready.waiting or (ready.due_in_us is not None and ready.due_in_us <= 0)
            if not due:
                wait = IDLE_S if ready.due_in_us is None else ready.due_in_us / 1_000_000
                return max(0.001, min(IDLE_S, wait, self._leases.rest_s()))
        try:
            claims = self._leases.held()
            moved = list[int]()
            await self._database.transact(lambda: self._sequence(claims, moved.append))
        except LeaseLost:
            self._leases.doubt()
            raise
        # If that was all, consumers go first; what commits meanwhile ends the pause.
        return 0.0 if moved[-1] >= self._batch else PAUSE_S

    async def close(self) -> None:
        await self._leases.close()

    def _sequence(self, claims: list[Claim], moved: Callable[[int], None]) -> Script[None]:
        yield from self._database.claims.guard(lease_kind(self._log), claims)
        partitions = [int(claim.id) for claim in claims]
        events = list[int]()

        def told(count: int) -> None:
            events.append(count)
            moved(count)

        yield from self._database.logs.sequence(self._log, partitions, limit=self._batch, moved=told)
        yield Wake(log_topic(self._log), when=lambda: events != [0])

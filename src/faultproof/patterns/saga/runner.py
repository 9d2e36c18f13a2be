"""The runner: takes up sagas that are due, many at once, and keeps their leases while they are under way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from faultproof import bounds
from faultproof.errors import FaultproofError, LeaseLost, OutcomeUnknown
from faultproof.patterns.saga.definition import Definition
from faultproof.patterns.saga.driver import Active, Driver
from faultproof.patterns.saga.journal import Item, Loaded, Take, Write, claim_kind, work_topic
from faultproof.patterns.saga.outcomes import Waiting
from faultproof.ports.database import Database, News
from faultproof.primitives.group_commit import GroupCommit
from faultproof.signals import LOOP_LAG, LOOP_RESTART, STUCK

IDLE_S = 1.0
"""How often it looks although nobody called: for retries whose time has come, and for what others died of."""
GIVE_BACK_S = 1.0
"""A saga that could not go on because of the database is due again after so long."""


class Runner:
    """A `Loop` that goes on with sagas; run it in any number of processes.

    Promise: a saga that was started ends with all of its steps done, or with every effect of those that happened, or may
    have, undone, or in sight of a person (attention); whatever process dies or stalls meanwhile. A runner that was replaced
    journals nothing any more. Proof: `faultproof.patterns.saga.proof:SAGA`.
    """

    def __init__(
        self,
        database: Database,
        definition: Definition,
        commit: GroupCommit[Item, Any],
        waiting: Waiting,
        *,
        owner: str,
        ttl: float,
        concurrency: int,
    ) -> None:
        bounds.seconds("ttl", ttl, least=0.01)
        bounds.count("concurrency", concurrency)
        self.name = f"{definition.name}:sagas"
        self._database = database
        self._definition = definition
        self._kind = claim_kind(definition.name)
        self._commit = commit
        self._driver = Driver(database, definition, commit)
        self._waiting = waiting
        self._owner = owner
        self._ttl = ttl
        self._concurrency = concurrency
        self._active: dict[str, Active] = {}
        self._renew_at = 0.0

    @property
    def under_way(self) -> int:
        """Sagas that this runner has in memory."""
        return len(self._active)

    async def open(self) -> News:
        self._waiting.held = self._active.__contains__
        return self._database.changed(work_topic(self._definition.name))

    async def step(self) -> float:
        clock = self._database.env.clock
        await self._keep()
        free = self._concurrency - len(self._active)
        if free <= 0:
            tasks = [active.task for active in self._active.values() if active.task is not None]
            await asyncio.wait(tasks, timeout=self._rest(), return_when=asyncio.FIRST_COMPLETED)
            return 0.0
        asked = clock.monotonic()
        taken = await self._take(asked, free)
        return 0.0 if len(taken) == free else self._rest()

    async def close(self) -> None:
        """Let attempts under way end, for half a lease; then give everything back, for others to take at once."""
        tasks = [active.task for active in self._active.values() if active.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._ttl / 2)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)  # unbounded: they have been cancelled
        claims = [active.claim for active in self._active.values()]
        self._active.clear()
        await self._database.transact(lambda: self._database.claims.release(self._kind, claims))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _rest(self) -> float:
        if not self._active:
            return IDLE_S
        return max(0.001, min(IDLE_S, self._renew_at - self._database.env.clock.monotonic()))

    async def _take(self, asked: float, limit: int) -> list[Active]:
        until = asked + self._ttl

        def go_on(loaded: Loaded) -> tuple[Active, Write | None]:
            self._driver.set_clock(loaded.row.now_us)
            return self._driver.go_on(loaded, until)

        taken: list[Active] = await self._commit.submit(Take(self._owner, int(self._ttl * 1_000_000), limit, go_on))
        if stuck := sum(active.claim.attempts > 1 for active in taken):
            self._database.env.signals.emit(STUCK, stuck, kind=self._kind)
        if taken and not self._active:
            self._renew_at = asked + self._ttl / 3
        for active in taken:
            if active.settled:
                self._ended(active)
                continue
            self._active[active.id] = active
            active.task = asyncio.create_task(self._go(active), name=f"{self.name}/{active.id}")
        return taken

    async def _go(self, active: Active) -> None:
        try:
            await self._driver.drive(active)
            self._ended(active)
        except LeaseLost:  # somebody else goes on with it
            pass
        except OutcomeUnknown as error:  # the journal knows how far it came
            await self._give_back(active, error)
        except Exception as error:
            await self._give_back(active, error)
        finally:
            if not self._is_cancelled() and self._active.get(active.id) is active:
                del self._active[active.id]

    def _is_cancelled(self) -> bool:
        """This task: then whoever cancelled it gives the claim back."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def _ended(self, active: Active) -> None:
        if active.run.is_over:
            self._waiting.tell(active.id, active.run)

    async def _give_back(self, active: Active, error: Exception) -> None:
        """What it knows is what is journaled: somebody reads that again, perhaps this runner."""
        self._database.env.signals.emit(LOOP_RESTART, 1, loop=self.name, error=type(error).__name__)
        with suppress(FaultproofError):  # its lease will run out
            await self._database.transact(
                lambda: self._database.claims.release(self._kind, [active.claim], delay_us=int(GIVE_BACK_S * 1_000_000))
            )

    async def _keep(self) -> None:
        """Renew what is under way, three times in a lease."""
        now = self._database.env.clock.monotonic()
        if not self._active or now < self._renew_at:
            return
        asked = now
        wanted = [active for active in self._active.values() if not active.in_transaction and not active.settled]
        lapsed = max((asked - active.until for active in wanted), default=0.0)
        if lapsed > 0:
            self._database.env.signals.emit(LOOP_LAG, lapsed, kind=self._kind)
        claims = [active.claim for active in wanted]
        renewed = await self._database.transact(
            lambda: self._database.claims.renew(self._kind, claims, ttl_us=int(self._ttl * 1_000_000))
        )
        ours = {claim.id: claim.token for claim in renewed}
        for active in wanted:
            if ours.get(active.id) == active.claim.token:
                active.until = asked + self._ttl
            elif self._active.get(active.id) is active and not active.settled and active.task is not None:
                active.task.cancel()
                del self._active[active.id]
        self._renew_at = asked + self._ttl / 3

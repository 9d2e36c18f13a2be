"""The runner: takes up sagas that are due, many at once, and keeps their leases while they are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from faultproof import bounds
from faultproof.errors import FaultproofError, LeaseLost
from faultproof.patterns.saga import operations, sql
from faultproof.patterns.saga.active import Active
from faultproof.patterns.saga.definition import Definition
from faultproof.patterns.saga.driver import Driver
from faultproof.patterns.saga.journal import Item, Loaded, Starter, Take, Write, claim_kind, work_topic
from faultproof.patterns.saga.machine import Entry
from faultproof.patterns.saga.outcomes import Waiting
from faultproof.patterns.saga.planning import Planner
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database, News
from faultproof.ports.script import ByIndexes, Script
from faultproof.primitives.group_commit import GroupCommit
from faultproof.signals import LOOP_LAG, LOOP_RESTART, STUCK

IDLE_S = 1.0
"""How often it looks although nobody called: for retries whose time has come, and for what others died of."""
GIVE_BACK_S = 1.0
"""A saga that could not go on because of the database is due again after so long."""
CLOSING_LOOK_S = 0.01


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
        here: list[Runner],
        *,
        owner: str,
        ttl: float,
        concurrency: int,
    ) -> None:
        """`here`: the runners of this process that are open, to which sagas may be given as they are started."""
        bounds.seconds("ttl", ttl, least=0.01)
        bounds.count("concurrency", concurrency)
        self.name = f"{definition.name}:sagas"
        self._database = database
        self._definition = definition
        self._kind = claim_kind(definition.name)
        self._commit = commit
        self._planner = Planner(definition, database.env)
        self._driver = Driver(database, definition, self._planner, commit, settled=self._settled, failed=self._failed)
        self._waiting = waiting
        self._here = here
        self._owner = owner
        self._ttl = ttl
        self._concurrency = concurrency
        self._active: dict[str, Active] = {}
        self._starting: set[str] = set()
        """Given to this runner by starts that are not committed yet."""
        self._asked_for = 0
        """What there was room for when the last takeover began."""
        self._taking = 0
        """Taken up by a transaction that is not committed yet."""
        self._room = asyncio.Event()
        self._given_back: set[asyncio.Task[None]] = set()
        self._renew_at = 0.0

    @property
    def under_way(self) -> int:
        """Sagas that this runner has in memory."""
        return len(self._active)

    async def open(self) -> News:
        await self._database.read(operations.require(self._database))
        self._planner.set_clock(await self._database.read(sql.now()))
        self._driver.open()
        self._waiting.held = self._active.__contains__
        if self not in self._here:
            self._here.append(self)
        return self._database.changed(work_topic(self._definition.name))

    async def step(self) -> float:
        clock = self._database.env.clock
        await self._keep()
        if self._free <= 0:
            self._room.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rest()):
                    await self._room.wait()
            return 0.0
        taken = await self._take(clock.monotonic())
        return 0.0 if taken and taken == self._asked_for else self._rest()

    async def close(self) -> None:
        """Let attempts under way end, actions for half a lease and undos for as long as they may take; then give everything
        back, for others to take at once."""
        if self in self._here:
            self._here.remove(self)
        self._driver.is_closing = True
        clock, claims = self._database.env.clock, list[Claim]()
        patience = clock.monotonic() + self._ttl / 2
        while True:
            under_way = [active for active in self._active.values() if active.is_under_way]
            is_patient = clock.monotonic() < patience
            if not under_way and not (self._starting and is_patient):
                break
            for active in under_way:
                if not is_patient and not active.is_undoing:
                    active.stop()
                    claims.append(active.claim)
                    del self._active[active.id]
            await clock.sleep(CLOSING_LOOK_S)
            await self._keep()  # undos may need longer
        claims += [active.claim for active in self._active.values()]
        self._active.clear()
        await self._database.transact(lambda: self._database.claims.release(self._kind, claims))

    # -- started here ---------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """For another saga."""
        return self in self._here and self._free > 0 and not self._driver.is_closing

    def hold(self, id: str, input: Any, deadline_us: int | None) -> tuple[Starter, Callable[[object], None]]:
        """For a saga that is being started in this process: what to journal with it, and who is to be told what came of
        that."""
        active = Active(Claim(id, 0, 0), input, 0.0)

        def begin() -> Sequence[Entry] | None:
            if id not in self._starting and self._free <= 0:
                return None
            self._starting.add(id)
            active.until = self._database.env.clock.monotonic() + self._ttl
            return self._planner.begin(active, deadline_us)

        def held(claim: Claim) -> None:
            active.claim = claim

        def told(result: object) -> None:
            self._starting.discard(id)
            if result is True and active.claim.token:
                self._taken([active])

        return Starter(self._owner, int(self._ttl * 1_000_000), begin, held), told

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _free(self) -> int:
        return self._concurrency - len(self._active) - len(self._starting) - self._taking

    def _rest(self) -> float:
        if not self._active:
            return IDLE_S
        return max(0.001, min(IDLE_S, self._renew_at - self._database.env.clock.monotonic()))

    async def _take(self, asked: float) -> int:
        until = asked + self._ttl

        def limit() -> int:
            self._taking = 0  # of an earlier try
            self._asked_for = self._free
            return self._asked_for

        def go_on(loaded: Loaded) -> tuple[Active, Write | None]:
            self._taking += 1
            self._planner.set_clock(loaded.row.now_us)
            return self._planner.go_on(loaded, until)

        try:
            taken: list[Active] = await self._commit.submit(Take(self._owner, int(self._ttl * 1_000_000), limit, go_on))
        finally:
            self._taking = 0
        if stuck := sum(active.claim.attempts > 1 for active in taken):
            self._database.env.signals.emit(STUCK, stuck, kind=self._kind)
        self._taken(taken)
        return len(taken)

    def _taken(self, taken: Sequence[Active]) -> None:
        if taken and not self._active:
            self._renew_at = min(active.until for active in taken) - self._ttl * 2 / 3
        for active in taken:
            if active.is_over:
                self._driver.settle(active)
            else:
                self._active[active.id] = active
                self._driver.go(active)

    def _settled(self, active: Active) -> None:
        self._leave(active)
        if active.run.is_over:
            self._waiting.tell(active.id, active.run)

    def _failed(self, active: Active, error: BaseException) -> None:
        self._leave(active)
        if not isinstance(error, LeaseLost):  # then somebody else goes on with it
            self._database.env.signals.emit(LOOP_RESTART, 1, loop=self.name, error=type(error).__name__)
            task = asyncio.get_running_loop().create_task(self._give_back(active))
            self._given_back.add(task)
            task.add_done_callback(self._given_back.discard)

    def _leave(self, active: Active) -> None:
        if self._active.get(active.id) is active:
            del self._active[active.id]
            self._room.set()

    async def _give_back(self, active: Active) -> None:
        """What is known is what is journaled: somebody reads that again, perhaps this runner."""
        with suppress(FaultproofError):  # its lease will run out
            await self._database.transact(
                lambda: self._database.claims.release(self._kind, [active.claim], delay_us=int(GIVE_BACK_S * 1_000_000))
            )

    def _renew(self, claims: Sequence[Claim]) -> Script[list[Claim]]:
        yield ByIndexes()
        return (yield from self._database.claims.renew(self._kind, claims, ttl_us=int(self._ttl * 1_000_000)))

    async def _keep(self) -> None:
        """Renew what is under way, three times in a lease."""
        now = self._database.env.clock.monotonic()
        if not self._active or now < self._renew_at:
            return
        asked = now
        wanted = [active for active in self._active.values() if not active.in_transaction]
        lapsed = max((asked - active.until for active in wanted), default=0.0)
        if lapsed > 0:
            self._database.env.signals.emit(LOOP_LAG, lapsed, kind=self._kind)
        claims = [active.claim for active in wanted]
        renewed = await self._database.transact(lambda: self._renew(claims))
        ours = {claim.id: claim.token for claim in renewed}
        for active in wanted:
            if ours.get(active.id) == active.claim.token:
                active.until = asked + self._ttl
            elif self._active.get(active.id) is active and not active.is_over:
                active.stop()
                self._leave(active)
        self._renew_at = asked + self._ttl / 3
        self._planner.set_clock(await self._database.read(sql.now()))

"""Keeping a share of leased work: take what is free, renew in time, give up what is more than fair.

Every member of a kind registers as a claim of its own (`<kind>:members`), so that a member which holds nothing yet is
seen by those that hold too much. All of it is one transaction, made three times per lease time and not more often: each
renewal leaves a dead row version on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from faultproof.errors import LeaseLost
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.signals import LOOP_LAG, STUCK

MEMBERS_MAX = 1_000


class Leases:
    """The claims of one kind that one member holds.

    Promise: `held()` names only claims whose lease, counted from *before* it was asked for, has not run out on this
    process's monotonic clock. That is a courtesy to the others; what makes work safe is `ClaimTable.guard` inside the
    transaction that does it.
    """

    def __init__(self, database: Database, kind: str, *, owner: str, ttl: float, share: bool) -> None:
        """`share`: leave the other members their part; otherwise take all there is."""
        self._database = database
        self._kind = kind
        self._owner = owner
        self._ttl = ttl
        self._share = share
        self._claims: list[Claim] = []
        self._doubted: list[Claim] = []
        self._until = 0.0
        self._due = 0.0

    async def tend(self) -> list[Claim]:
        """Renew, take and give up what is due; the claims held now. Call it before each piece of work."""
        clock = self._database.env.clock
        asked = clock.monotonic()
        if self._claims and asked >= self._until:
            # Nobody renewed in time: something blocked this loop. Whoever took over may be at work already.
            self._database.env.signals.emit(LOOP_LAG, asked - self._until, kind=self._kind)
            self._claims = []
        if asked >= self._due:
            self._claims, self._doubted = await self._database.transact(self._tend()), []
            self._until = asked + self._ttl
            jitter = 0.9 + 0.2 * self._database.env.rng.random()
            self._due = asked + self._ttl / 3 * jitter
        return self._claims

    def held(self) -> list[Claim]:
        """The claims whose leases still run. Raises `LeaseLost` if they have run out under way."""
        if self._claims and self._database.env.clock.monotonic() >= self._until:
            raise LeaseLost(
                f"the leases of kind {self._kind!r} ran out under way: a step took longer than {self._ttl} s"
            )
        return self._claims

    def rest_s(self) -> float:
        """Seconds until `tend` has something to do."""
        return max(0.001, self._due - self._database.env.clock.monotonic())

    def doubt(self) -> None:
        """Hold nothing until the next `tend` has asked what is still ours: nobody need wait for a lease of our own to end."""
        self._claims, self._doubted, self._due = [], [*self._claims, *self._doubted], 0.0

    async def absolve(self, id: str) -> None:
        """The work goes well again: forget how many holders failed before, by giving the claim back and taking it anew."""
        guilty = [claim for claim in self._claims if claim.id == id and claim.attempts > 1]
        if guilty:
            self._claims = [claim for claim in self._claims if claim not in guilty]
            self._due = 0.0
            await self._database.transact(self._database.claims.release(self._kind, guilty))

    async def close(self) -> None:
        """Give everything back, for others to take at once."""
        claims, self._claims, self._doubted = [*self._claims, *self._doubted], [], []
        await self._database.transact(self._leave(claims))

    def _tend(self) -> Script[list[Claim]]:
        table, ttl_us = self._database.claims, int(self._ttl * 1_000_000)
        members = yield from self._join(ttl_us)
        claims = yield from table.renew(self._kind, [*self._claims, *self._doubted], ttl_us=ttl_us)
        total = len((yield from table.holders(self._kind)))
        quota = ceil(total / max(1, members)) if self._share else total
        if len(claims) < quota:
            taken = yield from table.take(self._kind, self._owner, ttl_us=ttl_us, limit=quota - len(claims))
            self._report(taken)
            claims = sorted(claims + taken)
        elif len(claims) > quota:
            yield from table.release(self._kind, claims[quota:])
            claims = claims[:quota]
        return claims

    def _join(self, ttl_us: int) -> Script[int]:
        """Be counted, sweep out members that are gone, and count the others."""
        table, kind = self._database.claims, f"{self._kind}:members"
        yield from table.add(kind, [self._owner])
        present = yield from table.holders(kind)
        mine = [Claim(h.id, h.token, h.attempts) for h in present if h.id == self._owner and h.state == "held"]
        if mine:
            yield from table.renew(kind, mine, ttl_us=ttl_us)
        taken = yield from table.take(kind, self._owner, ttl_us=ttl_us, limit=MEMBERS_MAX)
        gone = [claim for claim in taken if claim.id != self._owner]
        if gone:
            yield from table.finish(kind, gone)
        return sum(holder.state == "held" for holder in (yield from table.holders(kind)))

    def _leave(self, claims: Sequence[Claim]) -> Script[None]:
        table, kind = self._database.claims, f"{self._kind}:members"
        yield from table.release(self._kind, claims)
        present = yield from table.holders(kind)
        mine = [Claim(h.id, h.token, h.attempts) for h in present if h.id == self._owner]
        yield from table.finish(kind, mine)

    def _report(self, taken: Sequence[Claim]) -> None:
        stuck = sum(claim.attempts > 1 for claim in taken)
        if stuck:
            self._database.env.signals.emit(STUCK, stuck, kind=self._kind)

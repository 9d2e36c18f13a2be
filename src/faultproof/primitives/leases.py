"""Keeping a share of leased work: take what is free, renew in time, give up what is more than fair.

Every member of a kind registers as a claim of its own (`<kind>:members`), so that a member which holds nothing yet is
seen by those that hold too much. All of it is one transaction, made three times per lease time and not more often: each
renewal leaves a dead row version on PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from faultproof import bounds
from faultproof.errors import FaultproofError, LeaseLost
from faultproof.ports.claims import Claim, Holder
from faultproof.ports.database import Database, Tx
from faultproof.ports.script import Script
from faultproof.signals import LOOP_LAG, STUCK

MEMBERS_MAX = 1_000


def members_kind(kind: str) -> str:
    """The kind of the claims by which members of a kind are counted."""
    return f"{kind}:members"


def fair_share(total: int, members: Collection[str], member: str) -> int:
    """How many of `total` claims are `member`'s part.

    The parts of all members add up to `total`: where it does not divide, the first by name have one more. Rounded up for
    everybody, five members of eight claims would hold two each until none is left for the last.
    """
    share, over = divmod(total, len(members))
    return share + (sorted(members).index(member) < over)


class Leases:
    """The claims of one kind that one member holds.

    Promise: `held()` names only claims whose lease, counted from *before* it was asked for, has not run out on this
    process's monotonic clock. That is a courtesy to the others; what makes work safe is `ClaimTable.guard` inside the
    transaction that does it.
    """

    def __init__(self, database: Database, kind: str, *, owner: str, ttl: float, share: bool) -> None:
        """`share`: leave the other members their part; otherwise take all there is."""
        bounds.seconds("ttl", ttl)
        self._database = database
        self._kind = kind
        self._owner = owner
        # Of its own, because one owner may be several members: two consumers of a group in one process.
        self._member = f"{owner}/{database.env.ids.new()[-6:]}"
        self._ttl = ttl
        self._share = share
        self._total: int | None = None
        self._claims: list[Claim] = []
        self._doubted: list[Claim] = []
        self._until = 0.0
        self._due = 0.0
        self._lost = False
        self._stuck = 0  # claims just taken over from somebody who died, to be reported once that has committed

    async def tend(self) -> list[Claim]:
        """Renew, take and give up what is due; the claims held now. Call it before each piece of work."""
        asked = self._database.env.clock.monotonic()
        self._notice_lapse(asked)
        if asked >= self._due or self._lost:
            self._renewed(asked, await self._database.transact(self._tend))
        return self._claims

    @property
    def gone(self) -> bool:
        """At the last look there was nothing of this kind to be held, by anybody."""
        return self._total == 0

    def held(self) -> list[Claim]:
        """The claims whose leases still run. Raises `LeaseLost` if any has been lost under way."""
        self._notice_lapse(self._database.env.clock.monotonic())
        if self._lost:
            raise LeaseLost(
                f"leases of kind {self._kind!r} ran out under way, or others have taken them over: begin anew"
            )
        return self._claims

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew in time beside work that may take longer than a lease; where that fails, `held` raises."""
        keeper = asyncio.create_task(self._keep(), name=f"faultproof-keep-{self._kind}")
        try:
            yield
        finally:
            keeper.cancel()

    async def extend(self, tx: Tx) -> Callable[[], None]:
        """Renew what is due inside a transaction that has guarded the claims; call the result once it has committed."""
        asked = self._database.env.clock.monotonic()
        if asked < self._due:
            return lambda: None
        claims = await tx.run(self._renew(self._claims))
        return lambda: self._renewed(asked, claims)

    def rest_s(self) -> float:
        """Seconds until `tend` has something to do."""
        return max(0.001, self._due - self._database.env.clock.monotonic())

    def doubt(self) -> None:
        """Hold nothing until the next `tend` has asked what is still ours: nobody need wait for a lease of our own to end."""
        self._claims, self._doubted, self._due, self._lost = [], [*self._claims, *self._doubted], 0.0, False

    async def absolve(self, ids: Collection[str]) -> None:
        """The work goes well again: forget how many holders failed before, by giving claims back and taking them anew."""
        guilty = [claim for claim in self._claims if claim.id in ids and claim.attempts > 1]
        if guilty:
            asked = self._database.env.clock.monotonic()
            self._claims = [claim for claim in self._claims if claim not in guilty]
            self._renewed(asked, await self._database.transact(lambda: self._retake(guilty)))

    async def close(self) -> None:
        """Give everything back, for others to take at once."""
        claims, self._claims, self._doubted = [*self._claims, *self._doubted], [], []
        await self._database.transact(lambda: self._database.claims.release(self._kind, claims))
        if self._share:
            with suppress(LeaseLost):  # somebody has swept this member out already
                await self._database.transact(self._leave)

    def _notice_lapse(self, now: float) -> None:
        if self._claims and now >= self._until:
            # Nobody renewed in time: something blocked this loop. Whoever took over may be at work already.
            self._database.env.signals.emit(LOOP_LAG, now - self._until, kind=self._kind)
            # The rows may be ours still: the next `tend` asks, by the token.
            self._claims, self._doubted, self._lost = [], [*self._claims, *self._doubted], True

    def _renewed(self, asked: float, claims: list[Claim]) -> None:
        self._claims, self._doubted, self._lost = claims, [], False
        self._until = asked + self._ttl
        if self._stuck:
            self._database.env.signals.emit(STUCK, self._stuck, kind=self._kind)
            self._stuck = 0
        jitter = 0.9 + 0.2 * self._database.env.rng.random()
        self._due = asked + self._ttl / 3 * jitter

    async def _keep(self) -> None:
        clock = self._database.env.clock
        while not self._lost:
            await clock.sleep(self.rest_s())
            asked, before = clock.monotonic(), self._claims
            try:
                claims = await self._database.transact(partial(self._renew, before))
            except FaultproofError:  # once more soon; if it goes on like this, the leases run out and `held` says so
                self._due = asked + self._ttl / 10
                continue
            if len(claims) < len(before):
                self._claims, self._doubted, self._lost = [], claims, True
            elif not self._lost:
                self._renewed(asked, claims)

    def _tend(self) -> Script[list[Claim]]:
        table, ttl_us = self._database.claims, int(self._ttl * 1_000_000)
        members = (yield from self._join(ttl_us)) if self._share else {self._member}
        claims = yield from table.renew(self._kind, [*self._claims, *self._doubted], ttl_us=ttl_us)
        if claims and len(claims) == fair_share(self._total or 0, members, self._member):
            return claims  # nearly always
        self._total = len((yield from table.holders(self._kind)))
        quota = fair_share(self._total, members, self._member)
        if len(claims) < quota:
            taken = yield from table.take(self._kind, self._owner, ttl_us=ttl_us, limit=quota - len(claims))
            self._stuck = sum(claim.attempts > 1 for claim in taken)
            claims = sorted(claims + taken)
        elif len(claims) > quota:
            yield from table.release(self._kind, claims[quota:])
            claims = claims[:quota]
        return claims

    def _retake(self, claims: Sequence[Claim]) -> Script[list[Claim]]:
        """In one transaction, so that nobody is at work there in between while this process still thinks it is."""
        yield from self._database.claims.release(self._kind, claims)
        return (yield from self._tend())

    def _renew(self, claims: Sequence[Claim]) -> Script[list[Claim]]:
        ttl_us = int(self._ttl * 1_000_000)
        if self._share:
            yield from self._present(ttl_us)
        return (yield from self._database.claims.renew(self._kind, claims, ttl_us=ttl_us))

    def _present(self, ttl_us: int) -> Script[list[Holder]]:
        """Be counted among the members; the members, as they were before."""
        table, kind = self._database.claims, members_kind(self._kind)
        members = yield from table.holders(kind)
        if mine := self._registered(members):
            yield from table.renew(kind, mine, ttl_us=ttl_us)
        else:
            yield from table.add(kind, [self._member])
        return members

    def _join(self, ttl_us: int) -> Script[set[str]]:
        """Be counted, and sweep out members that are gone; those that are here."""
        table, kind = self._database.claims, members_kind(self._kind)
        members = yield from self._present(ttl_us)
        if self._registered(members) and all(holder.state == "held" for holder in members):
            return {holder.id for holder in members}
        taken = yield from table.take(kind, self._owner, ttl_us=ttl_us, limit=MEMBERS_MAX)
        gone = [claim for claim in taken if claim.id != self._member]
        if gone:
            yield from table.finish(kind, gone)
        return {self._member, *(holder.id for holder in members if holder.state == "held")}

    def _leave(self) -> Script[None]:
        table, kind = self._database.claims, members_kind(self._kind)
        yield from table.finish(kind, self._registered((yield from table.holders(kind))))

    def _registered(self, members: Sequence[Holder]) -> list[Claim]:
        return [Claim(h.id, h.token, h.attempts) for h in members if h.id == self._member]

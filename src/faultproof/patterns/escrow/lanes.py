"""Two lanes: one in which nothing is waited for long, and one for what must wait.

A call shares a transaction with whatever is asked at the same time. If one of them had to wait long for an item that
somebody else has locked, all would wait; so the quick lane waits for as long as other processes' batches take, and from
then on for a while skips what is locked. What needs that goes to a slow lane, whose transactions wait for the lock. Slow
lanes are chosen by a stable hash of the item, so that one item which is locked for long holds up few others. An item that
was found locked a moment ago will be so again: its calls go there directly.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

from faultproof.errors import Busy, ConstraintViolated
from faultproof.patterns.escrow.books import Contended, Decision
from faultproof.patterns.escrow.operations import OnExpired, apply
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.requests import Hold, Request, Reserve, Restock
from faultproof.patterns.escrow.straight import reserved, wanted
from faultproof.ports.database import Database
from faultproof.ports.script import Patience, Script
from faultproof.primitives.batcher import BatchLimits
from faultproof.primitives.group_commit import GroupCommit
from faultproof.signals import LOCK_WAIT

QUICK_S = 0.05
"""How long the quick lane waits for a lock: a hot item is free again after each of the other processes' batches."""
HURRIED_S = 1.0
"""For how long it does not wait at all after that was not enough."""
LOOKING_S = 0.25
"""For how long it looks before it reserves after something had to be refused."""
CONTENDED_S = 0.1
"""How long an item that was found locked is taken for one that is."""
CONTENDED_MAX = 1_000
"""How many such items are kept in mind."""
ATTEMPTS = 3
"""A hold that is made while it is asked for has items which nobody knew to lock: then once more."""

Lane = GroupCommit[Request, Any]


class _LockedForLong(Busy):
    """An item of somebody's in the quick lane is locked for longer than the others should wait."""


class Lanes:
    """Where calls outside transactions go."""

    def __init__(self, database: Database, escrow: str, options: EscrowOptions, on_expired: OnExpired | None) -> None:
        self._database = database
        self._clock = database.env.clock
        self._signals = database.env.signals
        self._escrow = escrow
        self._options = options
        self._on_expired = on_expired
        self._quick_s = min(QUICK_S, options.lock_timeout)
        self._hurried_until = self._looking_until = 0.0
        self._contended: OrderedDict[str, float] = OrderedDict()  # bounded: CONTENDED_MAX
        limits = BatchLimits(
            items=options.batch, pending=options.pending, shed_after=options.shed_after, overlap=options.overlap
        )
        self._quick: Lane = GroupCommit(
            database, self._quickly, first=self._straight, limits=limits, name=f"{escrow}-escrow"
        )
        self._slow: list[Lane] = [
            GroupCommit(database, self._waiting, limits=limits, name=f"{escrow}-escrow-locked-{number}")
            for number in range(options.shards)
        ]

    async def submit(self, request: Request) -> Any:
        """Have it decided and committed; its answer."""
        item = self._found_locked(request) if self._contended else None
        if item is None:
            try:
                answer = await self._quick.submit(request)
            except (_LockedForLong, ConstraintViolated):
                # Again, and what is locked is skipped now. Or two came at the same time with one key and different items, and
                # have no lock in common: the second found the key taken when it wrote. Now it can be seen.
                answer = await self._quick.submit(request)
            if type(answer) is not Contended:
                return answer
            item = answer.item
        return await self._patiently(request, item)

    async def _patiently(self, request: Request, item: str) -> Any:
        for _ in range(ATTEMPTS):
            self._remember(item)
            lane = self._slow[shard_of(item, self._options.shards)]
            try:
                answer = await lane.submit(request)
            except ConstraintViolated:  # as above
                answer = await lane.submit(request)
            except Busy as busy:
                raise Busy(
                    f"{item!r}, or another item of this call, was locked for {self._options.lock_timeout} s: nothing was "
                    "done; try again, or keep the transaction that has locked it shorter",
                    retry_after=self._options.lock_timeout,
                ) from busy
            if type(answer) is not Contended:
                return answer
            item = answer.item
        raise Busy(f"the hold {request.key!r} is being made by another call: try again", retry_after=CONTENDED_S)

    async def close(self) -> None:
        """Commit what was accepted, and refuse the rest."""
        for lane in (self._quick, *self._slow):
            await lane.close()

    async def _straight(self, requests: Sequence[Request]) -> list[Hold] | None:
        sums = wanted(requests)
        if sums is None or self._clock.monotonic() < max(self._hurried_until, self._looking_until):
            return None
        reserves = cast(Sequence[Reserve], requests)
        try:
            done = await self._database.transact(lambda: reserved(self._escrow, reserves, sums, self._quick_s))
        except ConstraintViolated:
            self._looking_until = self._clock.monotonic() + LOOKING_S
            return None
        except Busy:
            self._locked(self._quick_s)
            self._hurried_until = self._clock.monotonic() + HURRIED_S
            return None
        self._locked(done.waited_s)
        return done.holds(reserves)

    def _quickly(self, requests: Sequence[Request], wait: bool) -> Script[list[Decision]]:
        if self._clock.monotonic() < self._hurried_until:
            return (yield from apply(self._escrow, requests, waits=False, on_expired=self._on_expired))
        try:
            return (yield from self._locking(requests, self._quick_s))
        except Busy as busy:
            self._hurried_until = self._clock.monotonic() + HURRIED_S
            raise _LockedForLong(*busy.args) from busy

    def _waiting(self, requests: Sequence[Request], wait: bool) -> Script[list[Decision]]:
        return self._locking(requests, self._options.lock_timeout)

    def _locking(self, requests: Sequence[Request], patience: float) -> Script[list[Decision]]:
        began = self._clock.monotonic()

        def waited() -> None:
            self._locked(self._clock.monotonic() - began)

        yield Patience(patience)
        try:
            return (yield from apply(self._escrow, requests, waits=True, on_expired=self._on_expired, locked=waited))
        except Busy:
            waited()
            raise

    def _locked(self, seconds: float) -> None:
        """Tell how long locks took."""
        self._signals.emit(LOCK_WAIT, seconds, escrow=self._escrow)

    def _found_locked(self, request: Request) -> str | None:
        if isinstance(request, (Reserve, Restock)):
            for item, _ in request.lines:
                until = self._contended.get(item)
                if until is not None:
                    if until > self._clock.monotonic():
                        return item
                    del self._contended[item]
        return None

    def _remember(self, item: str) -> None:
        self._contended[item] = self._clock.monotonic() + CONTENDED_S
        self._contended.move_to_end(item)
        if len(self._contended) > CONTENDED_MAX:
            self._contended.popitem(last=False)


def shard_of(item: str, shards: int) -> int:
    """Of an item; the same in every process and release."""
    return zlib.crc32(item.encode()) % shards

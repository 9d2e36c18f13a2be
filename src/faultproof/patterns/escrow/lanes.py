"""Two lanes: one in which nothing is waited for, and one for what must wait.

A call shares a transaction with whatever is asked at the same time. If one of them had to wait for an item that somebody
else has locked, all would wait; so the quick lane skips locked items, and what needs them goes to a slow lane, whose
transactions wait for the lock. Slow lanes are chosen by a stable hash of the item, so that one item which is locked for
long holds up few others. An item that was found locked a moment ago will be so again: its calls go there directly.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from faultproof.errors import Busy
from faultproof.patterns.escrow.books import Contended, Decision
from faultproof.patterns.escrow.operations import OnExpired, apply
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.requests import Request, Reserve, Restock
from faultproof.ports.database import Database
from faultproof.ports.script import Patience, Script
from faultproof.primitives.batcher import BatchLimits
from faultproof.primitives.group_commit import GroupCommit
from faultproof.signals import LOCK_WAIT

CONTENDED_S = 0.1
"""How long an item that was found locked is taken for one that is."""
CONTENDED_MAX = 1_000
"""How many such items are kept in mind."""
ATTEMPTS = 3
"""A hold that is made while it is asked for has items which nobody knew to lock: then once more."""

Lane = GroupCommit[Request, Any]


class Lanes:
    """Where calls outside transactions go."""

    def __init__(self, database: Database, escrow: str, options: EscrowOptions, on_expired: OnExpired | None) -> None:
        self._clock = database.env.clock
        self._signals = database.env.signals
        self._escrow = escrow
        self._options = options
        self._on_expired = on_expired
        self._contended: OrderedDict[str, float] = OrderedDict()  # bounded: CONTENDED_MAX
        limits = BatchLimits(items=options.batch, pending=options.pending, shed_after=options.shed_after)
        self._quick: Lane = GroupCommit(database, self._without_waiting, limits=limits, name=f"{escrow}-escrow")
        self._slow: list[Lane] = [
            GroupCommit(database, self._waiting, limits=limits, name=f"{escrow}-escrow-locked-{number}")
            for number in range(options.shards)
        ]

    async def submit(self, request: Request) -> Any:
        """Have it decided and committed; its answer."""
        item = self._found_locked(request) if self._contended else None
        if item is None:
            answer = await self._quick.submit(request)
            if type(answer) is not Contended:
                return answer
            item = answer.item
        for _ in range(ATTEMPTS):
            self._remember(item)
            try:
                answer = await self._slow[shard_of(item, self._options.shards)].submit(request)
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

    def _without_waiting(self, requests: Sequence[Request], wait: bool) -> Script[list[Decision]]:
        return apply(self._escrow, requests, waits=False, on_expired=self._on_expired)

    def _waiting(self, requests: Sequence[Request], wait: bool) -> Script[list[Decision]]:
        began = self._clock.monotonic()

        def locked() -> None:
            self._signals.emit(LOCK_WAIT, self._clock.monotonic() - began, escrow=self._escrow)

        yield Patience(self._options.lock_timeout)
        return (yield from apply(self._escrow, requests, waits=True, on_expired=self._on_expired, locked=locked))

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

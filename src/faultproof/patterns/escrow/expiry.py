"""Expiry: the loop that returns the stock of holds whose time is up, and forgets what has been over for long."""

from __future__ import annotations

from contextlib import suppress

from faultproof import bounds
from faultproof.errors import TryAgain
from faultproof.patterns.escrow import sql
from faultproof.patterns.escrow.books import Contended, Decision
from faultproof.patterns.escrow.operations import OnExpired, apply
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.requests import Expire
from faultproof.ports.database import Database, News
from faultproof.ports.script import Patience, Script
from faultproof.primitives.install import check
from faultproof.signals import HOLDS_EXPIRED

REST_MIN_S = 0.01


class Expiry:
    """A `Loop`, for a `Worker` in any number of processes: it needs no lease, because who expires a hold has its items
    locked and has seen that it is still held.

    Promise: "expired" and "stock returned" are one commit, once for each hold; a hold is returned within `every` seconds of
    its end while the loop runs and nobody keeps its items locked; no transaction is about more than `batch` holds.
    Proof: `faultproof.patterns.escrow.proof:ESCROW`.
    """

    def __init__(
        self,
        database: Database,
        escrow: str,
        options: EscrowOptions,
        on_expired: OnExpired | None,
        *,
        every: float,
        keep: float,
        batch: int,
    ) -> None:
        bounds.seconds("every", every, least=REST_MIN_S)
        bounds.seconds("keep", keep)
        bounds.count("batch", batch, most=10_000)
        self.name = f"{escrow}:expiry"
        self._database = database
        self._escrow = escrow
        self._options = options
        self._on_expired = on_expired
        self._every = every
        self._keep_us = int(keep * 1_000_000)
        self._batch = batch

    async def open(self) -> News:
        await self._database.read(check(sql.SCHEMA))
        return self._database.changed(f"escrow.{self._escrow}")

    async def step(self) -> float:
        look = await self._database.read(sql.look(self._escrow), snapshot=False)
        done = 0
        if look.due_in_us is not None and look.due_in_us <= 0:
            done += await self._expired()
        if look.over_for_us is not None and look.over_for_us >= self._keep_us:
            done += await self._database.transact(self._forget)
        if done:
            return 0.0
        if look.due_in_us is None or look.due_in_us <= 0:  # what is due and still there is locked by somebody
            return self._every
        return min(max(look.due_in_us / 1_000_000, REST_MIN_S), self._every)

    async def close(self) -> None:
        pass

    def _forget(self) -> Script[int]:
        keys = yield from sql.over(self._escrow, self._keep_us, self._batch)
        return (yield from sql.forget(self._escrow, list(dict.fromkeys(keys)), self._keep_us))

    async def _expired(self) -> int:
        """Return what is due; how many holds were."""
        keys = list(dict.fromkeys(await self._database.read(sql.due(self._escrow, self._batch), snapshot=False)))
        if not keys:
            return 0
        left = await self._attempt(keys, waits=False)
        if left:  # skipped, because others had locked them; and of an item that is always wanted that is so every time
            with suppress(TryAgain):
                left = await self._attempt(left, waits=True)
        if done := len(keys) - len(left):
            self._database.env.signals.emit(HOLDS_EXPIRED, done, escrow=self._escrow)
        return done

    async def _attempt(self, keys: list[str], *, waits: bool) -> list[str]:
        """Those that are left."""
        decisions = await self._database.transact(lambda: self._expire(keys, waits))
        return [
            key
            for key, decision in zip(keys, decisions, strict=True)
            if isinstance(getattr(decision, "value", None), Contended)
        ]

    def _expire(self, keys: list[str], waits: bool) -> Script[list[Decision]]:
        if waits:
            yield Patience(self._options.lock_timeout)
        requests = [Expire(key) for key in keys]
        return (yield from apply(self._escrow, requests, waits=waits, on_expired=self._on_expired))

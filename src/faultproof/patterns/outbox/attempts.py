"""Attempts at events that have failed: they are parked, tried again when they are due, and given up at last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from faultproof import bounds
from faultproof.errors import InvalidInput, OutcomeUnknown, Repair, TryAgain
from faultproof.patterns.outbox.handling import Handed, Poisoned, Stopped
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.poison import Parking, Verdict, error_text, verdict
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.log import Record
from faultproof.ports.script import Script
from faultproof.signals import DEAD_LETTER, RETRY

Attempt: TypeAlias = Callable[[Parked, int], Awaitable[None]]
"""`attempt(parked, n)`: handle a parked event for the n-th time, and settle it."""
Delivery: TypeAlias = Callable[[Sequence[Parked]], Awaitable[Handed]]
"""Handle parked events for the first time, up to the first that fails, and settle those before it."""


class Attempts:
    """What one consumer does with the events that its handler fails on."""

    def __init__(
        self, database: Database, log: str, group: str, *, membership: Membership, options: ConsumerOptions
    ) -> None:
        self._env = database.env
        self._log = log
        self._group = group
        self._membership = membership
        self._parking = Parking(log, group)
        self._options = options

    async def park(self, done: Sequence[Record], poisoned: Sequence[Poisoned], blocked: frozenset[str]) -> None:
        """One transaction: the cursors past what is done, and past what has failed and is parked."""
        decisions = [self._verdict(attempts=1) for _ in poisoned]

        def parking() -> Script[None]:
            yield from self._parking.behind(done, blocked)
            for one, decision in zip(poisoned, decisions, strict=True):
                yield from self._parking.failed(one.record, decision, error_text(one.why))

        records = sorted([*done, *(one.record for one in poisoned)])
        if records:
            await self._membership.transact(lambda: self._membership.past(records, parking()))
        for decision in decisions:
            self._report(decision)

    async def set_aside(self, record: Record, *, error: str) -> None:
        """Park an event before it is attempted: from now on each attempt is counted before it is made."""
        member, parking = self._membership, self._parking
        await member.transact(lambda: member.past([record], parking.aside([record], error=error)))

    async def retry(self, parked: Parked, attempt: Attempt) -> None:
        """Another attempt at a parked event. It is counted before it is made: a crash under way counts too."""
        member, attempts = self._membership, parked.attempts + 1
        decision = self._verdict(attempts=attempts)
        # If nothing settles it, because this process dies, it is due again when the attempt would have timed out.
        self._env.signals.emit(RETRY, 1, log=self._log, group=self._group)
        again_us = max(decision.retry_in_us or 0, int(self._options.timeout * 1_000_000))
        if not await member.transact(lambda: self._parking.begin(parked, again_in_us=again_us)):
            return
        if attempts > self._options.attempts:  # the last attempt was cut off by a crash
            died = parked.error or "its process died"
            await member.transact(lambda: self._parking.failed_again(parked, decision, died))
            self._report(decision)
            return
        try:
            await attempt(parked, attempts)
        except (Poisoned, TryAgain, OutcomeUnknown, Repair) as error:
            if isinstance(error, Poisoned):
                await member.regain(parked.partition)
            await member.transact(partial(self._unsuccessful, parked, decision, error))
            self._tell(decision, error)

    async def together(self, heads: Sequence[Parked], deliver: Delivery) -> None:
        """First attempts at parked events that only waited for others, and at those behind them.

        Thousands may wait behind one of a busy key. Each costs two transactions when it is attempted alone, so that it
        can be counted before; these share two, and are alone only when one of them did not come back.
        """
        member, parking = self._membership, self._parking
        taken = await member.transact(lambda: parking.take(heads, self._options.batch))
        try:
            handed = await deliver(taken)
        except TryAgain:  # of the transaction, and no one event's: the next step takes each alone
            return
        left = taken[len(handed.done) :]
        if handed.stopped is not None:
            await self._first_failed(left[0], left[1:], handed.stopped)
        elif left:  # there was no time for them
            await member.transact(lambda: parking.put_back(left))

    async def _first_failed(self, parked: Parked, behind: Sequence[Parked], stopped: Exception) -> None:
        error = stopped.why if isinstance(stopped, Stopped) and not isinstance(stopped, Poisoned) else stopped
        if not isinstance(error, (Poisoned, TryAgain, OutcomeUnknown, Repair)):
            raise error
        decision = self._verdict(attempts=1)

        def write_down() -> Script[None]:
            yield from self._parking.put_back(behind)
            if (yield from self._parking.begin(parked, again_in_us=0)):
                yield from self._unsuccessful(parked, decision, error)

        await self._membership.transact(write_down)
        self._tell(decision, error)

    def _unsuccessful(self, parked: Parked, decision: Verdict, error: Exception) -> Script[None]:
        """What is written down about an attempt that was begun."""
        if isinstance(error, Poisoned):
            yield from self._parking.failed_again(parked, decision, error_text(error.why))
        else:
            pause_s = _when(error, otherwise=self._options.backoff)
            yield from self._parking.not_counted(parked, again_in_us=int(pause_s * 1_000_000))

    def _tell(self, decision: Verdict, error: Exception) -> None:
        if isinstance(error, Poisoned):
            self._report(decision)
        elif not isinstance(error, TryAgain):  # the database's own trouble, as in a first delivery: seen in the health
            raise error

    def _verdict(self, *, attempts: int) -> Verdict:
        options = self._options
        return verdict(
            attempts=attempts,
            attempts_max=options.attempts,
            base_s=options.backoff,
            cap_s=options.backoff_max,
            random=self._env.rng.random(),
        )

    def _report(self, decision: Verdict) -> None:
        if decision.dead:
            self._env.signals.emit(DEAD_LETTER, 1, log=self._log, group=self._group)


def _when(error: Exception, *, otherwise: float) -> float:
    """Seconds that a handler asks for, who may say anything: `retry_after` is often what some server has sent."""
    if not isinstance(error, TryAgain) or error.retry_after is None:
        return otherwise
    try:
        bounds.seconds("retry_after", error.retry_after, least=0)
    except InvalidInput:
        return otherwise
    return error.retry_after

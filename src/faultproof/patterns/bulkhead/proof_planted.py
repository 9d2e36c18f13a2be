"""Permits with one guard missing each, for the proofs to catch."""

from __future__ import annotations

from faultproof.primitives.fair_queue import Queued
from faultproof.primitives.permits import Permits, State, Waiter

FORGETS_DEADLINES = "forgets deadlines"
_NEVER_S = 3_600.0


class _Loses(Permits):
    def _gave_up(self, waiter: Waiter) -> None:
        if waiter.state is not State.GRANTED:
            super()._gave_up(waiter)


class _GivesBackTwice(Permits):
    def _gave_up(self, waiter: Waiter) -> None:
        if waiter.state is State.WAITING and waiter.tenant.in_flight:
            self._take_back(waiter.tenant)
        super()._gave_up(waiter)


class _ForgetsDeadlines(Permits):
    def _came(self, waiter: Waiter) -> None:
        waiter.expires += _NEVER_S
        super()._came(waiter)


class _Unbounded(Permits):
    def _came(self, waiter: Waiter) -> None:
        self._queue.add(waiter)


class _ShedsTheLatest(Permits):
    def _came(self, waiter: Waiter) -> None:
        self._queue.last = _latest  # type: ignore[method-assign]
        super()._came(waiter)


def _latest(call: Queued, *, of_tenant: bool) -> Queued:
    return call


PERMITS_PLANTED: dict[str, type[Permits]] = {
    "loses what it gave": _Loses,
    "gives back twice": _GivesBackTwice,
    FORGETS_DEADLINES: _ForgetsDeadlines,
    "waits without a bound": _Unbounded,
    "sheds the latest": _ShedsTheLatest,
}

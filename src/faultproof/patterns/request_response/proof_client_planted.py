"""Clients with one guard missing each, for the proof to catch."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, TypeVar

from faultproof.errors import OutcomeUnknown, TryAgain
from faultproof.patterns.request_response.client import Client, Result, Send, translated
from faultproof.primitives.breaker import Breaker, Outcome
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.fair_queue import Tenant
from faultproof.primitives.permits import Permits
from faultproof.primitives.retry import RetryBudget
from faultproof.primitives.timeouts import Cut, Timeouts

T = TypeVar("T")


class _Forgetful(Client):
    def _known(self, call: Any, error: TryAgain | OutcomeUnknown) -> TryAgain | OutcomeUnknown:
        return error


class _RepeatsAnything(Client):
    def _before_next(
        self, call: Any, error: TryAgain | OutcomeUnknown, is_idempotent: bool, is_repeated_above: bool
    ) -> float:
        return super()._before_next(call, error, True, is_repeated_above)


def _too_sure(error: Exception) -> Exception:
    return TryAgain("it failed") if isinstance(error, ConnectionError) else translated(error)


class _TooSure(Client):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, translate=_too_sure)


class _Endless(Timeouts):
    def cut(self, now: float, by: float = inf) -> Cut:
        return super().cut(now)


class _NeverCutsOff(Client):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timeouts = _Endless(self._env.clock, 50.0)


class _Spendthrift(Client):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, budget=RetryBudget(ratio=1.0, burst=1_000))


class _Stubborn(Client):
    def _pick(self, call: Any, now: float) -> tuple[Endpoint, Breaker | None, int]:
        breaker = self._breakers[call.tried[0]] if call.tried else None
        token = breaker.try_enter(now) if breaker is not None else None
        return super()._pick(call, now) if token is None else (call.tried[0], breaker, token)


class _Wide(Breaker):
    __slots__ = ()

    def _knock(self, now: float) -> int | None:
        token = super()._knock(now)
        return self._phase.token if token is None and self._phase.state == "half-open" else token


class _KeepingProbes(Breaker):
    __slots__ = ()

    def leave(self, token: int, outcome: Outcome, took_s: float, now: float) -> None:
        if outcome is not Outcome.SAYS_NOTHING:
            super().leave(token, outcome, took_s, now)


class _NeverLeft(Breaker):
    __slots__ = ()

    def leave(self, token: int, outcome: Outcome, took_s: float, now: float) -> None:
        if self.state == "closed":
            super().leave(token, outcome, took_s, now)


def _with(breakers: type[Breaker]) -> type[Client]:
    class Broken(Client):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            for breaker in self._breakers.values():
                breaker.__class__ = breakers

    return Broken


class _KeepingPermits(Permits):
    def leave(self, tenant: Tenant) -> None:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            super().leave(tenant)


class _KeepsThePermit(Client):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self._bulkhead is not None:
            self._bulkhead.permits.__class__ = _KeepingPermits


class _CountsForEver(Client):
    async def call(self, send: Send[T], **options: Any) -> Result[T]:
        try:
            return await super().call(send, **options)
        except asyncio.CancelledError:
            self._calls += 1
            raise


CLIENTS_PLANTED: dict[str, type[Client]] = {
    "knows only the last attempt": _Forgetful,
    "repeats anything": _RepeatsAnything,
    "takes silence for a refusal": _TooSure,
    "never cuts off": _NeverCutsOff,
    "spendthrift": _Spendthrift,
    "stubborn": _Stubborn,
    "admits everybody": _with(_Wide),
    "keeps the probe": _with(_KeepingProbes),
    "forgets to leave": _with(_NeverLeft),
    "keeps the permit": _KeepsThePermit,
    "counts for ever": _CountsForEver,
}

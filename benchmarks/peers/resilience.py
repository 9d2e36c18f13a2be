"""What stands between a call and its dependency, as each of these libraries has it: configured alike, as far as they can be.

- ours: `Client` with one endpoint and nothing to compare it with (no outliers); the budget is in it, and a deadline.
- nopanic 0.3: its README, "Composition" and "Retry budgets": outermost first retry, breaker, bulkhead, timeout.
- pyresilience 0.4: its README, "All Seven Patterns": one decorator.
- hyx 0.0.2: its documentation of `retry`, `consecutive_breaker`, `bulkhead` and `timeout`, stacked in the same order.
- purgatory 3.0: its README: a breaker alone, entered with `async with`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

Function = Callable[[], Coroutine[Any, Any, Any]]

ATTEMPTS, BACKOFF_S, TIMEOUT_S = 3, 0.05, 10.0
PERMITS, ROOM, WAIT_S = 64, 128, 1.0
FAILURES, PROBES = 5, 3
HEDGE_AFTER_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the comparisons differ."""

    permits: int = PERMITS
    room: int = ROOM
    open_s: float = 2.0
    is_hedged: bool = False
    attempts: int = ATTEMPTS


def bare(function: Function, settings: Settings) -> Function:
    """Nothing."""
    return function


def ours(function: Function, settings: Settings) -> Function:
    """`Client.call`, as a call without arguments."""
    import faultproof as fp
    from faultproof.patterns.request_response import Client, Policy
    from faultproof.primitives.breaker import BreakerPolicy
    from faultproof.primitives.hedging import HedgePolicy
    from faultproof.primitives.retry import Backoff

    policy = Policy(
        deadline=TIMEOUT_S,
        calls=100_000,
        idempotent=settings.is_hedged,
        retry=Backoff(attempts=settings.attempts, base=BACKOFF_S) if settings.attempts > 1 else None,
        hedge=HedgePolicy(at_first=HEDGE_AFTER_S, least=HEDGE_AFTER_S) if settings.is_hedged else None,
        breaker=BreakerPolicy(
            minimum_calls=FAILURES, probes=PROBES, open_for=settings.open_s, open_most=max(settings.open_s, 10.0)
        ),
        outliers=None,
        bulkhead=fp.BulkheadPolicy(concurrency=settings.permits, queue=settings.room, wait=WAIT_S),
    )
    client = Client([fp.Endpoint("one")], policy)

    def send(endpoint: fp.Endpoint, attempt: int) -> Coroutine[Any, Any, Any]:
        return function()

    return partial(client.call, send)


def nopanic(function: Function, settings: Settings) -> Function:
    """Its policies, composed."""
    from nopanic import RetryBudget, backoff, bulkhead, circuit_breaker, compose, hedge, retry, timeout

    repeated = [
        retry(
            attempts=settings.attempts,
            on=(ConnectionError, TimeoutError),
            backoff=backoff.full_jitter(base=BACKOFF_S, cap=2.0),
            budget=RetryBudget(ratio=0.1),
        )
    ]
    hedged = [hedge(delay=HEDGE_AFTER_S, max_hedges=1)]
    return compose(
        *(repeated if settings.attempts > 1 else []),
        *(hedged if settings.is_hedged else []),
        circuit_breaker(
            failure_threshold=0.5,
            min_calls=FAILURES,
            window=10.0,
            reset_timeout=settings.open_s,
            half_open_max_calls=PROBES,
        ),
        bulkhead(settings.permits, max_wait=WAIT_S if settings.room else 0.0),
        timeout(TIMEOUT_S),
    )(_plain(function))


def pyresilience(function: Function, settings: Settings) -> Function:
    """Its decorator."""
    import pyresilience as it

    decorated: Function = it.resilient(
        retry=it.RetryConfig(max_attempts=settings.attempts, delay=BACKOFF_S, max_delay=2.0)
        if settings.attempts > 1
        else None,
        timeout=it.TimeoutConfig(seconds=TIMEOUT_S),
        circuit_breaker=it.CircuitBreakerConfig(
            failure_threshold=FAILURES, recovery_timeout=settings.open_s, success_threshold=PROBES
        ),
        bulkhead=it.BulkheadConfig(max_concurrent=settings.permits, max_wait=WAIT_S if settings.room else 0.0),
    )(_plain(function))
    return decorated


def hyx(function: Function, settings: Settings) -> Function:
    """Its decorators, and its breaker as the context manager that it is."""
    from hyx.bulkhead import bulkhead
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.retry import retry
    from hyx.timeout import timeout

    breaker = consecutive_breaker(
        exceptions=Exception,
        failure_threshold=FAILURES,
        recovery_time_secs=settings.open_s,
        recovery_threshold=PROBES,
    )
    inner = breaker(
        bulkhead(max_concurrency=settings.permits, max_capacity=settings.permits + settings.room)(
            timeout(TIMEOUT_S)(_plain(function))
        )
    )
    if settings.attempts == 1:
        return inner
    return retry(on=(ConnectionError, TimeoutError), attempts=settings.attempts, backoff=BACKOFF_S)(inner)


def purgatory(function: Function, settings: Settings) -> Function:
    """A breaker and nothing else: it cannot be told how many probes it may make."""
    from purgatory import AsyncCircuitBreakerFactory

    breakers = AsyncCircuitBreakerFactory(default_threshold=FAILURES, default_ttl=settings.open_s)

    async def call() -> Any:
        async with await breakers.get_breaker("one"):
            return await function()

    return call


def _plain(function: Function) -> Function:
    """Decorators look whether it is a coroutine function."""
    if iscoroutinefunction(function):
        return function

    async def call() -> Any:
        return await function()

    return call

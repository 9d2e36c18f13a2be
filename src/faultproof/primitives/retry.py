"""Retry with backoff, full jitter, an absolute deadline and a shared budget: the one that every pattern uses.

Full jitter: before attempt n+1 wait `uniform(0, min(cap, base * 2**n))` seconds (Brooker, "Exponential Backoff And
Jitter", AWS 2015). The budget is a token bucket filled by *first* attempts: with `ratio` 0.1 a service may add at most
10 % to the traffic it was given, however many callers fail at once (Google SRE, ch. 21). One budget is shared by all
that calls the same dependency. Where somebody above repeats (`attempts.py`), there is one attempt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from faultproof import bounds
from faultproof.clock import Env, Rng
from faultproof.errors import DeadlineExceeded, InvalidInput, OutcomeUnknown, RetriesExhausted, TryAgain
from faultproof.primitives.attempts import is_repeated_above, numbered
from faultproof.signals import BUDGET_SPENT, RETRY, Signals

T = TypeVar("T")


def full_jitter(tries: int, *, base: float, cap: float, rng: Rng) -> float:
    """Seconds to wait after `tries` failed retries: uniform in [0, min(cap, base * 2**tries))."""
    return rng.random() * min(cap, base * 2.0 ** min(tries, 62))


class RetryBudget:
    """A token bucket shared by all callers of one dependency.

    Each first attempt adds `ratio` tokens, at most `burst` are kept, each retry takes one. It starts full, so that a
    service that just began may retry at all.
    """

    def __init__(self, *, ratio: float = 0.1, burst: float = 10.0) -> None:
        bounds.number("ratio", ratio, least=0, most=1)
        bounds.number("burst", burst, least=1, most=bounds.COUNT_MAX)
        self._ratio = ratio
        self._burst = burst
        self._tokens = burst

    @property
    def ratio(self) -> float:
        """What each first attempt adds."""
        return self._ratio

    @property
    def tokens(self) -> float:
        """Retries that may be made right now."""
        return self._tokens

    def first_attempt(self) -> None:
        """Traffic arrived: earn a fraction of a retry."""
        self._tokens = min(self._burst, self._tokens + self._ratio)

    def try_spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How often to try, and how long to wait in between. All times in seconds."""

    attempts: int = 5
    """At most this many, the first included."""
    base: float = 0.05
    """After n failed attempts wait up to this times 2**(n-1), with full jitter …"""
    cap: float = 2.0
    """… and never more than this."""

    def __post_init__(self) -> None:
        bounds.count("attempts", self.attempts)
        bounds.seconds("base", self.base, least=0)
        bounds.seconds("cap", self.cap, least=0)
        if self.cap < self.base:
            raise InvalidInput(f"`cap` must be at least `base`, got {self.cap} and {self.base}")

    def wait(self, tries: int, error: Exception, rng: Rng) -> float:
        """Seconds until the next attempt, after `tries` failed retries: with jitter, and not before the error says."""
        wait = full_jitter(tries, base=self.base, cap=self.cap, rng=rng)
        if isinstance(error, TryAgain) and error.retry_after is not None:
            return max(wait, error.retry_after)
        return wait


@dataclass(frozen=True, kw_only=True)
class RetryPolicy(Backoff):
    """When to try again. All times in seconds."""

    deadline: float = 30.0
    """From the first attempt; no attempt is begun after it, and the running one is not cut short."""
    repeat_unknown: bool = False
    """Also repeat after `OutcomeUnknown`. Only for calls that carry an idempotency key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds.seconds("deadline", self.deadline)


class Retry:
    """Repeats calls that raise `TryAgain`, as the policy and the budget allow."""

    def __init__(self, env: Env, policy: RetryPolicy | None = None, budget: RetryBudget | None = None) -> None:
        self._env = env
        self._policy = policy or RetryPolicy()
        self._budget = budget or RetryBudget()

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The first result that `attempt` returns.

        Raises what `attempt` raised if that cannot be helped by repeating, `RetriesExhausted` when the attempts or the
        budget are used up, and `DeadlineExceeded` when the deadline would pass before the next one. Where somebody above
        repeats, what the one attempt raised.
        """
        policy, clock = self._policy, self._env.clock
        deadline = clock.monotonic() + policy.deadline
        self._budget.first_attempt()
        if is_repeated_above():
            return await attempt()
        for tries in range(policy.attempts):
            try:
                with numbered(tries + 1, policy.attempts):
                    return await attempt()
            except (TryAgain, OutcomeUnknown) as error:
                if isinstance(error, OutcomeUnknown) and not policy.repeat_unknown:
                    raise
                wait = policy.wait(tries, error, self._env.rng)
                overrun = clock.monotonic() + wait - deadline
                spend_or_raise(error, tries + 1, overrun, policy=policy, budget=self._budget, signals=self._env.signals)
            self._env.signals.emit(RETRY, 1)
            await clock.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")


def spend_or_raise(
    error: Exception, attempts: int, overrun: float, *, policy: Backoff, budget: RetryBudget, signals: Signals
) -> None:
    """Take the price of one more attempt, after so many; raises what the call comes to if there is to be none.

    `overrun`: by how many seconds the next attempt would begin too late; below zero, it would not.
    """
    unknown = isinstance(error, OutcomeUnknown)
    if attempts >= policy.attempts:
        raise (
            error if unknown else RetriesExhausted(f"gave up after {attempts} attempts: {error}", attempts=attempts)
        ) from error
    if overrun > 0:
        raise error if unknown else DeadlineExceeded(f"no time is left to repeat: {error}") from error
    if not budget.try_spend():
        signals.emit(BUDGET_SPENT, 1)
        raise (
            error if unknown else RetriesExhausted(f"the retry budget is spent: {error}", attempts=attempts)
        ) from error

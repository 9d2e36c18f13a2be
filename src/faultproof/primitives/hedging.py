"""Hedged requests: a second attempt where the first takes longer than nearly all do, and the first acceptable answer.

- When: at a quantile of the latencies, learnt with the losers in it (`quantile.py`).
- How often: from the budget that retries are paid from as well, and never while there is no room.
- Who wins: the first *acceptable* answer. A hedge that fails at once does not beat a primary that would succeed.
- The winner waits for nobody: losers are cancelled, and owned by a reaper until they have ended.

Only for calls that may be made twice.

Source: Dean and Barroso, "The Tail at Scale", Communications of the ACM 56 (2013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import InvalidInput
from faultproof.primitives.apart import Escaped
from faultproof.primitives.quantile import LearntQuantile
from faultproof.primitives.reaper import Reaper
from faultproof.primitives.retry import RetryBudget
from faultproof.primitives.timeouts import Alarms

T = TypeVar("T")

Attempt = Callable[[int], Coroutine[Any, Any, T]]
"""`attempt(n)` makes the n-th attempt, from 1."""


class Raced(NamedTuple, Generic[T]):
    """The answer, and what it took."""

    value: T
    attempts: int
    winner: int
    """Which attempt's answer it is."""


@dataclass(frozen=True, kw_only=True)
class HedgePolicy:
    """When a second attempt is made beside the first. Times in seconds."""

    quantile: float = 0.95
    """Of the latencies of late: whoever takes longer is hedged."""
    at_first: float | None = None
    """The delay until enough was seen to tell; None: no hedges until then."""
    least: float = 0.001
    """The delay is never shorter."""
    attempts: int = 2
    """At most, the first included; each after another such delay."""

    def __post_init__(self) -> None:
        bounds.number("quantile", self.quantile, least=0.5, most=0.9999)
        bounds.seconds("least", self.least)
        bounds.count("attempts", self.attempts, least=2, most=10)
        if self.at_first is not None:
            bounds.seconds("at_first", self.at_first)
            if self.at_first < self.least:
                raise InvalidInput(f"`at_first` must be at least `least`, got {self.at_first} and {self.least}")


class Hedging:
    """Races attempts of calls to one dependency.

    `budget`: each hedge takes one from it; whoever calls adds to it with each call. `has_room`: whether the dependency could
    do with more, asked before each hedge. `policy` None: no second attempts, and all else the same.
    """

    __slots__ = ("_alarms", "_attempts", "_budget", "_env", "_has_room", "_latency", "_policy", "_reaper")

    def __init__(
        self,
        env: Env,
        policy: HedgePolicy | None,
        budget: RetryBudget,
        *,
        has_room: Callable[[], bool] = lambda: True,
        reaper: Reaper | None = None,
    ) -> None:
        self._env = env
        self._policy = policy or HedgePolicy()
        self._attempts = policy.attempts if policy else 1
        self._budget = budget
        self._has_room = has_room
        self._latency = LearntQuantile(self._policy.quantile)
        self._alarms = Alarms(env.clock)
        self._reaper = reaper or Reaper()

    @property
    def delay(self) -> float | None:
        """Seconds after which a hedge is due; None while nobody knows."""
        learnt = self._latency.value
        return self._policy.at_first if learnt is None else max(learnt, self._policy.least)

    def begin(self, attempt: Attempt[T], *, is_acceptable: Callable[[T], bool] = lambda value: True) -> Race[T]:
        """Race for the first acceptable answer: await or watch its `decided`, then call its `end`, in any case.

        If every attempt that was made has failed, or given what is not acceptable, it is decided by what became of the first.
        Nothing is hedged that has failed already; repeating it is for a retry. `end` cancels what is still under way.
        """
        race = Race(self, attempt, is_acceptable)
        now = self._env.clock.monotonic()
        race._start(now)
        race._expect(now)
        return race

    async def close(self) -> int:
        """Wait for the losers, for up to 10 s; how many had not ended then."""
        return await self._reaper.close(self._env.clock)

    def _may_hedge(self) -> bool:
        return not self._reaper.is_full and self._has_room() and self._budget.try_spend()


class Race(Generic[T]):
    """One call's attempts."""

    __slots__ = (
        "_attempt",
        "_context",
        "_first",
        "_hedging",
        "_is_acceptable",
        "_loop",
        "_running",
        "_started",
        "at",
        "decided",
    )

    def __init__(self, hedging: Hedging, attempt: Attempt[T], is_acceptable: Callable[[T], bool]) -> None:
        self._hedging = hedging
        self._attempt = attempt
        self._is_acceptable = is_acceptable
        self._loop = asyncio.get_running_loop()
        self.decided: asyncio.Future[Raced[T]] = self._loop.create_future()
        self._running: dict[int, tuple[asyncio.Task[None], float]] = {}
        self._started = 0
        self._context = copy_context()  # the alarm rings in whosever it was set in
        self._first: Raced[T] | Exception | None = None
        """What became of the first attempt, where that was nothing acceptable."""
        self.at = 0.0

    def end(self) -> None:
        """Nobody waits for any of them any more."""
        hedging, running = self._hedging, self._running
        hedging._alarms.unset(self)
        if running:
            self._running = {}
            now = hedging._env.clock.monotonic()
            for task, began in running.values():
                hedging._latency.cut_off(now - began)
                hedging._reaper.take(task)

    def ring(self) -> None:
        """The last one takes longer than nearly all do."""
        if not self.decided.done() and self._hedging._may_hedge():
            now = self._hedging._env.clock.monotonic()
            self._start(now)
            self._expect(now)

    def _expect(self, now: float) -> None:
        delay = self._hedging.delay
        if delay is not None and self._started < self._hedging._attempts:
            self.at = now + delay
            self._hedging._alarms.set(self, now)

    def _start(self, now: float) -> None:
        self._started += 1
        number = self._started
        task = self._loop.create_task(self._make(number, now), context=self._context.copy())
        self._running[number] = task, now

    async def _make(self, number: int, began: float) -> None:
        try:
            value = await self._attempt(number)
        except Exception as error:
            self._failed(number, error)
        except BaseException as error:
            self._failed(number, Escaped(type(error).__name__))  # it has cancelled itself, unless it is over
            raise
        else:
            self._answered(number, value, began)

    def _answered(self, number: int, value: T, began: float) -> None:
        if self._running.pop(number, None) is None:
            return  # a loser, who has been told to stop
        self._hedging._latency.ended(self._hedging._env.clock.monotonic() - began)
        raced = Raced(value, self._started, number)
        if not self._is_acceptable(value):
            self._in_vain(number, raced)
        elif not self.decided.done():
            self.decided.set_result(raced)

    def _failed(self, number: int, error: Exception) -> None:
        if self._running.pop(number, None) is not None:
            self._in_vain(number, error)

    def _in_vain(self, number: int, outcome: Raced[T] | Exception) -> None:
        """The others may do better, if there are any; else the first one's outcome counts."""
        if number == 1:
            self._first = outcome
        if self._running or self.decided.done():
            return
        first = self._first
        assert first is not None  # all have ended, it too
        if isinstance(first, Exception):
            self.decided.set_exception(first)
        else:
            self.decided.set_result(first._replace(attempts=self._started))

"""`HedgedRequest`: a second request, to another endpoint, where the first takes longer than nearly all do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from faultproof import bounds
from faultproof.clock import Env, system
from faultproof.errors import InvalidInput, OutcomeUnknown, Overloaded
from faultproof.primitives.balance import LeastLoaded
from faultproof.primitives.deadline import by
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.primitives.hedging import HedgePolicy, Hedging, Raced
from faultproof.primitives.retry import RetryBudget
from faultproof.primitives.timeouts import Timeouts
from faultproof.signals import HEDGE, HEDGE_WON

T = TypeVar("T")

Send = Callable[[Endpoint, int], Coroutine[Any, Any, T]]
"""`send(endpoint, n)` makes the n-th attempt of a request, there."""


class Hedged(NamedTuple, Generic[T]):
    """The answer, whose it is, and what it took."""

    value: T
    endpoint: Endpoint
    attempts: int
    took_s: float

    @property
    def was_hedged(self) -> bool:
        """Whether more than one request was made."""
        return self.attempts > 1


class Worth:
    """Whether hedges are worth their price: of those of late, half at least have won.

    A dependency that is saturated makes requests wait, the second ones behind the first, so that they lose. Then one in
    twenty is made, to find out when that has changed.
    """

    __slots__ = ("_env", "_won")

    def __init__(self, env: Env) -> None:
        self._env = env
        self._won = 1.0

    def tell(self, won: bool) -> None:
        """How the last one fared."""
        self._won += (won - self._won) / 16

    def __bool__(self) -> bool:
        return self._won >= 0.5 or self._env.rng.random() < 0.05


class HedgedRequest:
    """Requests that may be made twice, to endpoints that all do the same.

    ::

        replicas = fp.HedgedRequest([fp.Endpoint("a", "http://10.0.0.1"), fp.Endpoint("b", "http://10.0.0.2")])
        answer = await replicas.call(fetch)     # async def fetch(endpoint, attempt): …
        answer.value, answer.endpoint, answer.attempts

    `timeout`: seconds for a request, hedges included, or less where the caller's own deadline is earlier. `room`: requests that
    all endpoints together serve at once without making them wait: beyond, none is hedged; None: it is judged by how hedges
    fare (`Worth`). `budget`: hedges are paid from it; share it with whoever else calls these endpoints. Belongs to one event
    loop. Proof: `faultproof.patterns.hedged_request.proof:HEDGED`.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        policy: HedgePolicy | None = None,
        *,
        timeout: float = 10.0,
        room: int | None = None,
        env: Env | None = None,
        budget: RetryBudget | None = None,
        name: str = "hedged",
    ) -> None:
        self._env = env or system()
        self._policy = policy or HedgePolicy()
        self._budget = budget or RetryBudget()
        if self._budget.ratio <= 1 - self._policy.quantile:
            raise InvalidInput(
                f"a budget of {self._budget.ratio:g} is not more than the share that takes longer than the `quantile` "
                f"{self._policy.quantile:g}: hedges would starve, and retries with them"
            )
        if room is not None:
            bounds.count("room", room)
        self._room = room
        self._worth = Worth(self._env)
        self._endpoints = Endpoints(self._env, endpoints, name=name)
        self._balancer = LeastLoaded(self._env, self._endpoints)
        self._hedging = Hedging(self._env, self._policy, self._budget, has_room=self._has_room)
        self._timeout = timeout
        self._timeouts = Timeouts(self._env.clock, timeout)

    @property
    def delay(self) -> float | None:
        """Seconds after which a request is hedged; None while too little was seen."""
        return self._hedging.delay

    async def call(self, send: Send[T], *, is_acceptable: Callable[[T], bool] = lambda value: True) -> Hedged[T]:
        """The first acceptable answer; where there is none, what became of the first request.

        Raises what `send` raised, `OutcomeUnknown` when the time is over (requests may have arrived), `DeadlineExceeded` if
        none is left to begin with, and `Overloaded` if every endpoint is draining.
        """
        began = self._env.clock.monotonic()
        tried: list[Endpoint] = []
        with self._timeouts.cut(began, by(self._env.clock, self._timeout)) as limit:
            self._budget.first_attempt()
            race = self._hedging.begin(lambda n: self._attempt(send, n, tried), is_acceptable=is_acceptable)
            try:
                await race.decided  # unbounded: the limit cuts it off
            finally:
                race.end()
        if race.decided.cancelled():
            raise OutcomeUnknown(
                f"no answer after {limit.at - began:g} s, of {len(tried)} requests that may have arrived"
            )
        raced = race.decided.result()  # also where it came in the very moment in which the time was over
        self._tell(raced)
        return Hedged(raced.value, tried[raced.winner - 1], raced.attempts, self._env.clock.monotonic() - began)

    async def close(self) -> int:
        """Wait for losers that still clean up, for up to 10 s; how many had not ended then."""
        return await self._hedging.close()

    async def _attempt(self, send: Send[T], number: int, tried: list[Endpoint]) -> T:
        clock = self._env.clock
        began = clock.monotonic()
        endpoint = self._balancer.pick(began, tried) or self._balancer.pick(began)
        if endpoint is None:
            raise Overloaded("every endpoint is draining: there is nobody to ask")
        tried.append(endpoint)
        if number > 1:
            self._env.signals.emit(HEDGE, 1, endpoint=endpoint.name)
        endpoint.begin()
        is_ok = False
        try:
            value = await send(endpoint, number)
            is_ok = True
            return value
        finally:
            now = clock.monotonic()
            endpoint.end(now - began, is_ok, now)

    def _tell(self, raced: Raced[T]) -> None:
        if raced.attempts > 1:
            has_won = raced.winner > 1
            self._worth.tell(has_won)
            if has_won:
                self._env.signals.emit(HEDGE_WON, 1)

    def _has_room(self) -> bool:
        return bool(self._worth) if self._room is None else self._endpoints.in_flight <= self._room

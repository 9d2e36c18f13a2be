"""`Client`: everything that belongs between a call and the endpoints that could answer it, in the one order that is safe."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from faultproof import bounds
from faultproof.clock import Clock, Env, system
from faultproof.errors import (
    DeadlineExceeded,
    Failed,
    Misuse,
    OutcomeUnknown,
    Overloaded,
    Repair,
    TryAgain,
)
from faultproof.patterns.bulkhead import Bulkhead
from faultproof.patterns.hedged_request import Worth
from faultproof.patterns.request_response.explained import explained
from faultproof.patterns.request_response.policy import Policy
from faultproof.primitives import attempts
from faultproof.primitives.balance import Balancer, LeastLoaded, RoundRobin
from faultproof.primitives.breaker import Breaker, Outcome
from faultproof.primitives.deadline import AMBIENT, Deadline, by
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.primitives.fair_queue import Tenant
from faultproof.primitives.health import Check, HealthChecks
from faultproof.primitives.hedging import Hedging
from faultproof.primitives.outliers import Outliers
from faultproof.primitives.retry import RetryBudget, spend_or_raise
from faultproof.primitives.ring import HashRing
from faultproof.primitives.timeouts import Timeouts
from faultproof.signals import CALLS_SHED, HEDGE, HEDGE_WON, RETRY

T = TypeVar("T")

Send = Callable[[Endpoint, int], Coroutine[Any, Any, T]]
"""`send(endpoint, n)` makes the n-th attempt of a call, there."""

_OK, _FAILED, _SAYS_NOTHING = Outcome.OK, Outcome.FAILED, Outcome.SAYS_NOTHING
_ANSWERS = (Failed, Misuse, Repair)
"""Errors by which an endpoint answers."""
_SHED_RETRY_AFTER_S = 0.1


class Result(NamedTuple, Generic[T]):
    """The answer, and what it took."""

    value: T
    attempts: int
    """That were made, hedges included."""
    hedged: bool
    """Whether two of them were under way at a time."""
    endpoint: Endpoint
    """Whose answer it is."""
    took_s: float
    coverage: float = 1.0
    """The part of those asked who are in the answer: of one call, all."""


def translated(error: Exception) -> Exception:
    """What an error of anybody's says about the call, in errors of ours; itself where it says nothing more.

    A refused connection: nothing happened. Any other trouble with the network, or a time that is over: unknown.
    """
    if isinstance(error, ConnectionRefusedError):
        return TryAgain(f"nobody listens there: {error}")
    if isinstance(error, TimeoutError | OSError):
        return OutcomeUnknown(f"no answer: {type(error).__name__} {error}")
    return error


class _Call(Generic[T]):
    """One call, until it has its result."""

    __slots__ = ("deadline", "is_hedged", "is_unknown", "key", "priority", "refusal", "send", "tenant", "tried")

    def __init__(self, send: Send[T], deadline: Deadline, key: str, tenant: str, priority: int) -> None:
        self.send = send
        self.deadline = deadline
        self.key = key
        self.tenant = tenant
        self.priority = priority
        self.tried: list[Endpoint] = []
        """In the order of the attempts."""
        self.is_hedged = False
        self.is_unknown = False
        """Whether an attempt may have happened of which nobody knows."""
        self.refusal: Exception | None = None
        """This client's own: it is not repeated."""


class Client:
    """Calls to endpoints that all do the same, by a policy.

    ::

        payments = fp.Client([fp.Endpoint("a", "https://10.0.0.1"), fp.Endpoint("b", "https://10.0.0.2")],
                             fp.Policy(deadline=2.0, attempt_timeout=0.5))
        result = await payments.call(charge)        # async def charge(endpoint, attempt): …
        result.value, result.attempts, result.endpoint
        print(payments.explain())

    Promise: a call ends by its deadline (if what it awaits heeds a cancel), and is sent again only if that is safe: always when
    nothing happened, else only if it is idempotent. Whatever ends as "nothing happened" has not happened in any attempt: where
    one of them may have, the error is `OutcomeUnknown`. What retries and hedges add stays within the budget at any load.
    `translate` says what foreign errors mean, `check` asks an endpoint for its health (with `policy.health`: use the client as
    a context manager, or run `health` in a `Worker`). `budget`: share one among the clients that call the same. Belongs to one
    event loop; from synchronous code through `Blocking`. Proof: `faultproof.patterns.request_response.proof_client:CLIENT`.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        policy: Policy | None = None,
        *,
        env: Env | None = None,
        budget: RetryBudget | None = None,
        translate: Callable[[Exception], Exception] = translated,
        check: Check | None = None,
        name: str = "client",
    ) -> None:
        self._env = env = env or system()
        self._policy = policy = policy or Policy()
        self._name = bounds.name("a client", name)
        self._translate = translate
        self._budget = budget or policy.budget.made()
        self.endpoints = Endpoints(env, endpoints, name=name)
        """For draining: `client.endpoints.all[0].is_draining = True`."""
        self._balancer = _balancer(env, policy, self.endpoints)
        self._breakers: dict[Endpoint, Breaker] = {}
        if policy.breaker is not None:
            self._breakers = {e: Breaker(env, policy.breaker, name=f"{name}.{e.name}") for e in self.endpoints.all}
        self._outliers = Outliers(env, self.endpoints, policy.outliers) if policy.outliers is not None else None
        self._bulkhead = Bulkhead(env, policy.bulkhead, name=name) if policy.bulkhead is not None else None
        self._longest = policy.attempt_timeout or policy.deadline
        self._timeouts = Timeouts(env.clock, self._longest)
        self._worth = Worth(env)
        self._hedging = Hedging(env, policy.hedge, self._budget, has_room=self._has_room)
        most = policy.retry.attempts if policy.retry is not None else 1
        self._numbers = [attempts.Attempt(n + 1, most) for n in range(most)]
        """As they are sent on, in the order of the tries; a hedge is the same try."""
        self._calls = 0
        self.health = _health(env, policy, self.endpoints, check)
        """A loop for a `Worker`, if there are health checks."""

    async def call(
        self,
        send: Send[T],
        *,
        timeout: float | None = None,
        idempotent: bool | None = None,
        key: str = "",
        tenant: str = "",
        priority: int = 0,
        is_acceptable: Callable[[T], bool] = lambda value: True,
    ) -> Result[T]:
        """The answer of one endpoint.

        `timeout`: seconds, if fewer than the policy's `deadline`. `idempotent`: whether this call may be made twice, if that is
        not what the policy says. `key`: what a ring picks by. `tenant`, `priority`: the bulkhead's. `is_acceptable`: which
        answers win against a hedge that is still under way.

        Raises what `send` raised, where that is an answer; `Overloaded` when this client sheds it, has no permit, or every
        breaker is open; `DeadlineExceeded` when no time is left, and nothing happened; `RetriesExhausted` when attempts or
        budget are used up, and nothing happened; `OutcomeUnknown` when it may have happened.
        """
        clock, policy = self._env.clock, self._policy
        at = by(clock, policy.deadline if timeout is None else min(timeout, policy.deadline))
        if self._calls >= policy.calls:
            self._env.signals.emit(CALLS_SHED, 1, client=self._name)
            raise Overloaded(f"{self._calls} calls of {self._name!r} are under way", retry_after=_SHED_RETRY_AFTER_S)
        began = clock.monotonic()
        call = _Call(send, Deadline(at, clock), key, tenant, priority)
        self._calls += 1
        token = AMBIENT.set(call.deadline)
        try:
            is_idempotent = policy.idempotent if idempotent is None else idempotent
            value, endpoint = await self._tries(call, is_idempotent, is_acceptable)
        finally:
            AMBIENT.reset(token)
            self._calls -= 1
        return Result(value, len(call.tried), call.is_hedged, endpoint, clock.monotonic() - began)

    @property
    def clock(self) -> Clock:
        """By which its calls are timed."""
        return self._env.clock

    def explain(self) -> str:
        """What happens to a call, in order, and with which numbers."""
        return explained(self._name, self._policy, self.endpoints.all)

    async def close(self) -> int:
        """Wait for hedges that lost and still clean up, for up to 10 s; how many had not ended then."""
        return await self._hedging.close()

    # -- from the outside in ------------------------------------------------------------------------------------------

    async def _tries(
        self, call: _Call[T], is_idempotent: bool, is_acceptable: Callable[[T], bool]
    ) -> tuple[T, Endpoint]:
        self._budget.first_attempt()
        is_repeated_above = attempts.is_repeated_above()
        tries = 0
        while True:
            token = None if is_repeated_above else attempts.AMBIENT.set(self._numbers[tries])
            try:
                if is_idempotent and self._policy.hedge is not None:
                    return await self._hedged(call, is_acceptable)
                return await self._attempt(call)
            except (TryAgain, OutcomeUnknown) as error:
                known = self._known(call, error)
                if is_repeated_above:
                    raise known from error.__cause__
                wait = self._before_next(call, known, tries, is_idempotent)
            finally:
                if token is not None:
                    attempts.AMBIENT.reset(token)
            tries += 1
            self._env.signals.emit(RETRY, 1)
            await self._env.clock.sleep(wait)

    async def _hedged(self, call: _Call[T], is_acceptable: Callable[[T], bool]) -> tuple[T, Endpoint]:
        before = len(call.tried)
        race = self._hedging.begin(lambda n: self._hedge(call, n), is_acceptable=lambda pair: is_acceptable(pair[0]))
        try:
            raced = await race.decided  # unbounded: as long as its attempts, each of which is cut off
        finally:
            race.end()
            call.is_hedged |= len(call.tried) > before + 1
        if raced.attempts > 1:
            self._worth.tell(raced.winner > 1)
            if raced.winner > 1:
                self._env.signals.emit(HEDGE_WON, 1)
        return raced.value

    async def _hedge(self, call: _Call[T], number: int) -> tuple[T, Endpoint]:
        if number > 1:
            self._env.signals.emit(HEDGE, 1, endpoint=self._name)
        return await self._attempt(call)

    async def _attempt(self, call: _Call[T]) -> tuple[T, Endpoint]:
        clock, bulkhead = self._env.clock, self._bulkhead
        began = clock.monotonic()
        endpoint, token = self._pick(call, began)
        held: Tenant | None = None
        outcome = _SAYS_NOTHING
        failure: BaseException | None = None
        endpoint.begin()
        try:
            if bulkhead is not None:
                held = None if call.priority else bulkhead.permits.try_enter(call.tenant)
                if held is None:
                    held = await self._permit(bulkhead, call)
                    began = clock.monotonic()
            call.tried.append(endpoint)
            with self._timeouts.cut(began, call.deadline.at) as cut:
                value = await call.send(endpoint, len(call.tried))
                outcome = _OK
                return value, endpoint
            raise OutcomeUnknown(f"no answer from {endpoint.name!r} in {cut.at - began:.3g} s")
        except Exception as error:
            failure = error
            if call.refusal is error:
                raise
            meant = self._translate(error)
            if isinstance(meant, _ANSWERS):
                outcome = _OK
            elif clock.monotonic() < call.deadline.at or call.deadline.at >= began + self._longest:
                outcome = (
                    _FAILED  # or a caller with little time left would open the breaker of an endpoint that is well
                )
            call.is_unknown |= isinstance(meant, OutcomeUnknown)
            if meant is error:
                raise
            raise meant from error
        except BaseException as error:
            failure = error
            call.is_unknown |= held is not None or bulkhead is None
            raise
        finally:
            now = clock.monotonic()
            if bulkhead is not None and held is not None:
                bulkhead.adapt(began, failure)
                bulkhead.permits.leave(held)
            self._ended(endpoint, token, outcome, began, now)

    def _ended(self, endpoint: Endpoint, token: int | None, outcome: Outcome, began: float, now: float) -> None:
        is_ok = outcome is _OK
        endpoint.end(now - began, is_ok, now)
        if token is not None:
            self._breakers[endpoint].leave(token, outcome, now - began, now)
        if self._outliers is not None and outcome is not _SAYS_NOTHING:
            self._outliers.ended(endpoint, is_ok, began, now)

    async def _permit(self, bulkhead: Bulkhead, call: _Call[T]) -> Tenant:
        try:
            return await bulkhead.permits.enter(call.tenant, priority=call.priority, deadline=call.deadline)
        except Exception as error:
            call.refusal = error
            raise

    # -- decisions ------------------------------------------------------------------------------------------------------

    def _pick(self, call: _Call[T], now: float) -> tuple[Endpoint, int | None]:
        """An endpoint whose breaker lets the call in, one that was not tried if there is any; and the breaker's token."""
        refused: list[Endpoint] = []
        pick, key = self._balancer.pick, call.key
        while True:
            endpoint = pick(now, [*call.tried, *refused] if refused else call.tried, key)
            if endpoint is None:
                endpoint = pick(now, refused, key)
            if endpoint is None:
                raise self._nobody(call, refused, now)
            breaker = self._breakers.get(endpoint)
            if breaker is None:
                return endpoint, None
            token = breaker.try_enter(now)
            if token is not None:
                return endpoint, token
            refused.append(endpoint)

    def _nobody(self, call: _Call[T], refused: Sequence[Endpoint], now: float) -> Exception:
        if not refused:
            call.refusal = Overloaded(f"every endpoint of {self._name!r} is draining: there is nobody to ask")
        else:
            soonest = min(self._breakers[endpoint].retry_after(now) for endpoint in refused)
            call.refusal = Overloaded(
                f"the breakers of all endpoints of {self._name!r} are open: nothing was sent", retry_after=soonest
            )
        return call.refusal

    def _known(self, call: _Call[T], error: TryAgain | OutcomeUnknown) -> TryAgain | OutcomeUnknown:
        """What is known of the whole call: an attempt to which nothing happened says nothing of those before it."""
        if not call.is_unknown or isinstance(error, OutcomeUnknown):
            return error
        unknown = OutcomeUnknown(f"an attempt of this call may have happened; of the last one: {error}")
        unknown.__cause__ = error
        if error is call.refusal:
            call.refusal = unknown
        return unknown

    def _before_next(self, call: _Call[T], error: TryAgain | OutcomeUnknown, tries: int, is_idempotent: bool) -> float:
        """Seconds to wait before the next attempt, which has been paid for; raises the error if there is to be none."""
        retry = self._policy.retry
        is_final = error is call.refusal or isinstance(error, DeadlineExceeded)
        if retry is None or is_final or (isinstance(error, OutcomeUnknown) and not is_idempotent):
            raise error
        cause = error.__cause__ if isinstance(error.__cause__, TryAgain) else error
        wait = retry.wait(tries, cause, self._env.rng)
        spend_or_raise(
            error, tries + 1, wait - call.deadline.left(), policy=retry, budget=self._budget, signals=self._env.signals
        )
        return wait

    def _has_room(self) -> bool:
        permits = self._bulkhead.permits if self._bulkhead is not None else None
        return (permits is None or permits.in_flight < permits.limit) and bool(self._worth)


def _balancer(env: Env, policy: Policy, endpoints: Endpoints) -> Balancer:
    if policy.balance == "ring":
        return HashRing(endpoints, bound=policy.ring_bound)
    return RoundRobin(env, endpoints) if policy.balance == "round-robin" else LeastLoaded(env, endpoints)


def _health(env: Env, policy: Policy, endpoints: Endpoints, check: Check | None) -> HealthChecks | None:
    if policy.health is None and check is None:
        return None
    if policy.health is None or check is None:
        raise Misuse("health checks need both: `check`, and `health` in the policy")
    return HealthChecks(env, endpoints, check, policy.health)

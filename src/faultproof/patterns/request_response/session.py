"""`ClientSession`: one client's requests, in order, each with one effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from faultproof import bounds
from faultproof.clock import Env, system
from faultproof.errors import (
    DeadlineExceeded,
    FaultproofError,
    InvalidInput,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    Superseded,
    TryAgain,
)
from faultproof.patterns.request_response.headers import KEY_BYTES_MAX, Envelope, written
from faultproof.patterns.request_response.judging import Understood
from faultproof.patterns.request_response.judging import judge as by_status
from faultproof.primitives.deadline import by, within
from faultproof.primitives.retry import Retry, RetryBudget, RetryPolicy
from faultproof.primitives.timeouts import Cut, Timeouts
from faultproof.signals import SESSION_UNKNOWN

R = TypeVar("R")

Send = Callable[[Envelope], Awaitable[R]]
"""Sends one attempt of a request, with the envelope's headers on it. The content must be the same each time."""


_RETRY = RetryPolicy(attempts=10, base=0.1, repeat_unknown=True)


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How long, how often and how many. Times in seconds."""

    timeout: float = 30.0
    """For a call, with waiting for its turn and all attempts; or less where the caller's own deadline is earlier."""
    attempt_timeout: float = 12.0
    """For one attempt: more than a server lets a repeated request wait for the first answer."""
    queue: int = 64
    """Calls that may wait for their turn."""
    retry: RetryPolicy = _RETRY

    def __post_init__(self) -> None:
        bounds.seconds("timeout", self.timeout)
        bounds.seconds("attempt_timeout", self.attempt_timeout)
        bounds.count("queue", self.queue, least=0)
        if not self.retry.repeat_unknown:
            raise InvalidInput(
                "a session repeats what is unknown, with the same key: `retry` needs `repeat_unknown=True`"
            )


class _Request(Generic[R]):
    """What was asked for, and what is known of it."""

    def __init__(self, number: int, key: str, send: Send[R]) -> None:
        self.number = number
        self.key = key
        self.send = send
        self.attempts = 0
        self.is_in_doubt = False
        """Whether an attempt of it may have arrived, or may still."""


class ClientSession(Generic[R]):
    """One client's requests to a service with `Idempotent` in it: in the order of the calls, each with one effect.

    ::

        session = fp.ClientSession()
        response = await session.call(lambda sent: http.post(url, json=order, headers=sent.headers))

    A request is sent when all before it are settled: answered, certainly not carried out, or given up. What is unknown (no
    answer, or one that says nothing) is sent again with the same key, while time, attempts and `budget` last; then the call
    raises `OutcomeUnknown`, and the *next* one settles it first, by sending the same again. So does the one after a caller that
    was cancelled while its request was out. `settle` does it for its own sake, `give_up` lets it be.

    `judge`: what a response means; without, by status and headers. `budget`: share it with whoever else calls this service.
    Belongs to one event loop. Proof: `faultproof.patterns.request_response.proof:REQUEST_RESPONSE`.
    """

    def __init__(
        self,
        options: SessionOptions | None = None,
        *,
        judge: Callable[[R], Understood] | None = None,
        env: Env | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self._options = options or SessionOptions()
        self._judge: Callable[[R], Understood] = judge or by_status
        self._env = env or system()
        self._budget = budget or RetryBudget()
        self._calls = Timeouts(self._env.clock, self._options.timeout)
        self._attempts = Timeouts(self._env.clock, self._options.attempt_timeout)
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._last = 0
        self._unsettled: _Request[R] | None = None
        self._found: R | None = None
        """The answer to the last request that was settled for others."""
        self.id = self._env.ids.new()

    @property
    def unsettled(self) -> int | None:
        """The number of the request of which nobody knows whether it happened, if there is one."""
        return None if self._unsettled is None else self._unsettled.number

    async def call(self, send: Send[R], *, key: str | None = None) -> R:
        """The answer to one request, which is sent as often as it takes.

        `key`: one of your own, where the request must have one effect even if this process dies and another one asks again.
        Raises `OutcomeUnknown` if it may have happened, or still will; and where it certainly did not and will not: `TryAgain`
        (an earlier one could not be settled, or nothing could be sent), `Overloaded` if too many wait, `DeadlineExceeded` if
        its turn did not come, `Superseded` if the server has gone on, `RetriesExhausted`, and what `send` raises of these
        errors. `KeyReused` says that `send` sent something else than before. Other errors of `send` count as unknown.
        """
        if key is not None and not 1 <= len(key.encode()) <= KEY_BYTES_MAX:
            raise InvalidInput(f"an idempotency key has 1 to {KEY_BYTES_MAX} bytes, got {bounds.short(key)}")
        request: _Request[R] | None = None
        async with self._in_turn() as cut:
            await self._settled(cut)
            self._last += 1
            request = _Request(self._last, key or f"{self.id}-{self._last}", send)
            return await self._answered(request, cut)
        raise self._out_of_time(request)

    async def settle(self) -> R | None:
        """The answer to the request that was unknown, sent again if it still is; None if none was, or it was given up.

        Raises what `call` raises of it.
        """
        request: _Request[R] | None = None
        async with self._in_turn() as cut:
            request = self._unsettled
            if request is not None:
                self._found = await self._answered(request, cut)
            return self._found
        raise self._out_of_time(request)

    def give_up(self) -> int | None:
        """Do not ask any more what became of the unknown request; its number, if there was one.

        It may have happened, or still will, until the server has taken the next one of this session: then never any more.
        """
        number = self.unsettled
        self._unsettled, self._found = None, None
        return number

    # -- inside -------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[Cut]:
        """First come, first served. What is in it is cut off when the call's time is over, and then the block just ends."""
        clock = self._env.clock
        now = clock.monotonic()
        at = by(clock, self._options.timeout)
        if self._turn.locked() and self._waiting >= self._options.queue:
            raise Overloaded(f"{self._waiting} calls wait for their turn in this session already: nothing was sent")
        has_come = False
        with self._calls.cut(now, at) as cut:
            self._waiting += 1
            try:
                await self._turn.acquire()  # unbounded: the cut ends it
            finally:
                self._waiting -= 1
            has_come = True
            try:
                with within(max(0.0, cut.at - clock.monotonic()), clock):
                    yield cut
            finally:
                self._turn.release()
        if not has_come:
            raise self._out_of_time(None)

    def _out_of_time(self, request: _Request[R] | None) -> FaultproofError:
        if request is None or not request.is_in_doubt:
            return DeadlineExceeded("no time is left for this request, whose turn has not come: nothing of it was sent")
        return self._unknown(request)

    def _unknown(self, request: _Request[R]) -> OutcomeUnknown:
        self._env.signals.emit(SESSION_UNKNOWN, 1)
        return OutcomeUnknown(
            f"nobody knows whether number {request.number} of this session happened, after {request.attempts} attempts: "
            "`settle` asks again, as the next call does first"
        )

    async def _settled(self, cut: Cut) -> None:
        """Nothing is sent before that which was sent before is known."""
        if (earlier := self._unsettled) is None:
            return
        try:
            self._found = await self._answered(earlier, cut)
        except KeyReused:
            self._found = None
        except OutcomeUnknown as error:
            self._found = None
            if self._unsettled is not None:
                raise TryAgain(
                    f"nobody knows yet what became of number {earlier.number} of this session: nothing of this one was sent"
                ) from error

    async def _answered(self, request: _Request[R], cut: Cut) -> R:
        policy, left = self._options.retry, cut.at - self._env.clock.monotonic()
        lasting = replace(policy, deadline=max(bounds.MICROSECOND_S, min(policy.deadline, left)))
        try:
            return await Retry(self._env, lasting, self._budget).call(lambda: self._attempt(request))
        except KeyReused:
            raise
        except FaultproofError as error:
            if not request.is_in_doubt:
                raise
            raise self._unknown(request) from error

    async def _attempt(self, request: _Request[R]) -> R:
        was_in_doubt = request.is_in_doubt
        request.is_in_doubt, self._unsettled = True, request  # from now on, until there is an answer
        request.attempts += 1
        headers = written(request.key, self.id, request.number)
        envelope = Envelope(headers, request.key, self.id, request.number, request.attempts)
        with self._attempts.cut(self._env.clock.monotonic()) as cut:
            try:
                response = await request.send(envelope)
            except OutcomeUnknown:
                raise
            except FaultproofError:  # this attempt certainly did nothing
                self._end(request, was_in_doubt)
                raise
            except Exception as error:
                raise OutcomeUnknown(f"no answer to number {request.number}: {type(error).__name__} {error}") from error
        if cut.is_due:
            raise OutcomeUnknown(f"no answer to number {request.number} in {self._options.attempt_timeout:g} s")
        return self._understood(request, response, was_in_doubt)

    def _understood(self, request: _Request[R], response: R, was_in_doubt: bool) -> R:
        judged = self._judge(response)
        match judged.meaning:
            case "answer":
                self._end(request, False)
                return response
            case "other content":
                self._end(request, False)
                raise KeyReused(f"number {request.number} of this session was sent before with other content")
            case "superseded":
                self._end(request, was_in_doubt, is_over=True)
                raise Superseded(f"the server has gone on behind number {request.number} of this session")
            case _:
                raise TryAgain(
                    f"the server says nothing yet about number {request.number}", retry_after=judged.retry_after
                )

    def _end(self, request: _Request[R], is_in_doubt: bool, *, is_over: bool = False) -> None:
        """Of an attempt; and of the request, if nothing is unknown about it, or never can be known."""
        request.is_in_doubt = is_in_doubt
        if is_over or not is_in_doubt:
            self._unsettled = None

"""Active health checks: each endpoint is asked now and then whether it is well, calls or no calls.

For what the calls do not tell: that an endpoint is back before one is spent on it, or is gone while nobody calls. A loop for
`Worker`, which nobody needs who has `outliers.py` and breakers; it knows nothing of calls.

Promise:

- Down after `fall` checks in a row that failed (raised, said False, or took longer than `timeout`), up again after `rise` that
  did not. Until the first answers an endpoint counts as it did.
- A check that hangs, ignores its cancel or raises whatever it likes holds up no other and not the loop; of each endpoint at
  most one check is under way, and while that does not end the endpoint's checks count as failed.

Bounds: one task for each endpoint. Times in seconds, of `env.clock`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from faultproof import bounds
from faultproof.clock import Alarm, Clock, Env
from faultproof.errors import InvalidInput
from faultproof.ports.database import News
from faultproof.primitives.callables import check_arity, check_async
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.signals import ENDPOINT_DOWN

Check = Callable[[Endpoint], Awaitable[object]]
"""Returns anything but False if the endpoint is well."""


@dataclass(frozen=True, kw_only=True)
class HealthPolicy:
    """How often, and what it takes to change one's mind. All times in seconds."""

    interval: float = 5.0
    """From one check of an endpoint to its next, up to …"""
    jitter: float = 0.2
    """… this share less, at random, lest all processes ask at once."""
    timeout: float = 2.0
    """A check that takes longer has failed."""
    rise: int = 2
    """What is down is up after so many that succeed in a row …"""
    fall: int = 3
    """… and what is up is down after so many that fail."""

    def __post_init__(self) -> None:
        bounds.seconds("interval", self.interval, least=0.001)
        bounds.number("jitter", self.jitter, least=0, most=0.9)
        bounds.seconds("timeout", self.timeout)
        bounds.count("rise", self.rise)
        bounds.count("fall", self.fall)
        shortest = self.interval * (1 - self.jitter)
        if self.timeout > shortest:
            raise InvalidInput(
                f"`timeout` must be at most the shortest interval between two checks, {shortest:g} s, got {self.timeout}"
            )


class _Patient:
    """What is known of one endpoint."""

    __slots__ = ("alarm", "due", "endpoint", "streak", "task")

    def __init__(self, endpoint: Endpoint, due: float) -> None:
        self.endpoint = endpoint
        self.due = due
        self.streak = 0
        """Checks in a row that spoke against what the endpoint counts as."""
        self.task: asyncio.Task[object] | None = None
        """The check that has begun and not ended."""
        self.alarm: Alarm | None = None
        """Of a check that nobody has given up yet."""


class _Quiet:
    """No news: a rest lasts until its end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def wait(self, timeout: float) -> bool:
        await self._clock.sleep(timeout)
        return False

    def close(self) -> None: ...


class HealthChecks:
    """A loop that keeps `is_healthy` of a group's endpoints true.

    `check`: an `async def` that takes an endpoint, and raises or returns False if it is not well.
    """

    def __init__(self, env: Env, endpoints: Endpoints, check: Check, policy: HealthPolicy | None = None) -> None:
        check_async(check, "a health check")
        check_arity(check, 1, "a health check is called with an endpoint")
        self._env = env
        self._endpoints = endpoints
        self._check = check
        self._policy = policy or HealthPolicy()
        now = env.clock.monotonic()
        # The first ones are spread over an interval, too.
        self._patients = [_Patient(e, now + self._policy.interval * env.rng.random()) for e in endpoints.all]

    @property
    def name(self) -> str:
        return f"{self._endpoints.name}-health"

    async def open(self) -> News:
        return _Quiet(self._env.clock)

    async def step(self) -> float:
        """Begin the checks that are due, and wait for none; how many seconds until the next is."""
        now = self._env.clock.monotonic()
        for patient in self._patients:
            if patient.due <= now:
                patient.due = now + self._policy.interval * (1 - self._policy.jitter * self._env.rng.random())
                self._begin(patient)
        return max(0.0, min(patient.due for patient in self._patients) - self._env.clock.monotonic())

    async def close(self) -> None:
        """Cancel what is under way. Whatever it would say, the endpoints stay as they are."""
        for patient in self._patients:
            if patient.alarm is not None:
                patient.alarm.cancel()
                patient.alarm = None
            if patient.task is not None:
                patient.task.cancel()

    def _begin(self, patient: _Patient) -> None:
        if patient.task is not None:
            if patient.alarm is None:  # given up, and it has not ended since
                self._count(patient, False)
            return
        task: asyncio.Task[object] = asyncio.create_task(self._ask(patient.endpoint), name=self.name)
        patient.task = task
        patient.alarm = self._env.clock.alarm(self._policy.timeout, partial(self._give_up, patient))
        task.add_done_callback(partial(self._ended, patient))

    async def _ask(self, endpoint: Endpoint) -> object:
        return await self._check(endpoint)

    def _give_up(self, patient: _Patient) -> None:
        patient.alarm = None
        if patient.task is not None:
            patient.task.cancel()
        self._count(patient, False)

    def _ended(self, patient: _Patient, task: asyncio.Task[object]) -> None:
        patient.task = None
        is_well = not task.cancelled() and task.exception() is None and task.result() is not False
        if patient.alarm is not None:  # or it has been counted
            patient.alarm.cancel()
            patient.alarm = None
            self._count(patient, is_well)

    def _count(self, patient: _Patient, is_well: bool) -> None:
        endpoint, policy = patient.endpoint, self._policy
        if is_well is endpoint.is_healthy:
            patient.streak = 0
            return
        patient.streak += 1
        if patient.streak < (policy.rise if is_well else policy.fall):
            return
        patient.streak = 0
        endpoint.is_healthy = is_well
        if not is_well:
            self._env.signals.emit(ENDPOINT_DOWN, 1, group=self._endpoints.name, endpoint=endpoint.name)

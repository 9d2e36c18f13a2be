"""A circuit breaker for one endpoint: calls to what is known to fail are refused at once, and it is probed now and then.

::

              the window's error rate or slow-call rate is reached
    closed ─────────────────────────────────────────────────────────▶ open
       ▲                                                               │ its jittered time is over,
       │ all probes have ended,                                        ▼ and a call comes
       └──────────────────────────────────────────────────────────  half-open ──▶ open, for twice as long
         few enough of them failed or were slow                          too many of them failed, were slow or hang

Promise:

- Half-open admits exactly `probes` calls, however many come at once. A probe that is cancelled gives its permit to another
  call; one that hangs has failed after `probe_timeout`, so that nothing stays half-open for want of an answer.
- A call counts in the phase that admitted it and in no other: one that began before a change of state neither opens nor
  closes anything after it.
- Recovery: an endpoint that is well again, and is called, has its breaker closed within `open_most` and twice
  `probe_timeout`; a policy with which that could take a minute is refused.

Bounds: three integers for each of `buckets`, and a permit for each of `probes`. For one event loop; nothing is awaited.

Source: Nygard, "Release It!", ch. 5 (2007); slow calls and permits as in resilience4j, whose issues 544, 935 and 1568 show
what becomes of permits that neither expire nor are given back.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, NamedTuple

from faultproof import bounds
from faultproof.clock import Env, Rng
from faultproof.errors import InvalidInput
from faultproof.primitives.rolling import RollingCounts
from faultproof.signals import BREAKER_OPENED, BREAKER_STATE

RECOVERY_MAX_S = 60.0
"""The specification's P9."""

State = Literal["closed", "half-open", "open"]
_LEVEL: dict[State, int] = {"closed": 0, "half-open": 1, "open": 2}


class Outcome(enum.Enum):
    """What a call says about the endpoint."""

    OK = "ok"
    """It answered: an error that is the caller's fault is an answer, too."""
    FAILED = "failed"
    """It did not answer, or not as an endpoint does that is well."""
    SAYS_NOTHING = "says nothing"
    """The caller gave up for reasons of its own."""


_FAILED = Outcome.FAILED
_SAYS_NOTHING = Outcome.SAYS_NOTHING


@dataclass(frozen=True, kw_only=True)
class BreakerPolicy:
    """When to open, for how long, and what closes again. All times in seconds, all rates from 0 to 1."""

    window: float = 10.0
    """The calls that ended within so long decide …"""
    buckets: int = 10
    """… forgotten in so many steps …"""
    minimum_calls: int = 20
    """… and only when they are at least so many."""
    error_rate: float = 0.5
    """Open when this share of them failed …"""
    slow_rate: float = 0.8
    """… or this share was slow …"""
    slow_after: float = 5.0
    """… which is what takes so long, however it ends."""
    open_for: float = 2.0
    """The first time up to so long, twice that after each probing that fails …"""
    open_most: float = 30.0
    """… and never longer than this."""
    jitter: float = 0.5
    """Up to this share is taken off, at random, lest all callers probe at once."""
    probes: int = 3
    """Calls that are admitted half-open; the same rates judge them."""
    probe_timeout: float = 10.0
    """A probe that has not ended by then has failed."""

    def __post_init__(self) -> None:
        bounds.seconds("window", self.window, least=0.001)
        bounds.count("buckets", self.buckets, most=1_000)
        bounds.count("minimum_calls", self.minimum_calls)
        bounds.number("error_rate", self.error_rate, least=0.001, most=1)
        bounds.number("slow_rate", self.slow_rate, least=0.001, most=1)
        bounds.seconds("slow_after", self.slow_after)
        bounds.seconds("open_for", self.open_for)
        bounds.seconds("open_most", self.open_most)
        bounds.number("jitter", self.jitter, least=0, most=1)
        bounds.count("probes", self.probes, most=1_000)
        bounds.seconds("probe_timeout", self.probe_timeout)
        if self.open_most < self.open_for:
            raise InvalidInput(f"`open_most` must be at least `open_for`, got {self.open_most} and {self.open_for}")
        if self.open_most + 2 * self.probe_timeout >= RECOVERY_MAX_S:
            raise InvalidInput(
                f"`open_most` must be less than {RECOVERY_MAX_S:g} s with twice `probe_timeout` added, or what is well "
                f"again may be refused for a minute; got {self.open_most} and {self.probe_timeout}"
            )


class Permit(NamedTuple):
    """A probe that is under way."""

    token: int
    expires: float


class Phase(NamedTuple):
    """Where a breaker stands. A new one for each change; the functions below say which."""

    state: State = "closed"
    token: int = 1
    """The last one given: calls of a closed phase share it, each probe has its own, and none comes twice."""
    failed_probings: int = 0
    """Since it was closed."""
    until: float = 0.0
    """When an open one may be probed."""
    permits: tuple[Permit, ...] = ()
    """Of a half-open one, in the order in which they expire."""
    ended: int = 0
    """Probes that have ended or expired; of those `failed`, and `slow`."""
    failed: int = 0
    slow: int = 0


def tripped(policy: BreakerPolicy, phase: Phase, now: float, rng: Rng, *, failed_probings: int = 0) -> Phase:
    """Opened, for `min(open_most, open_for * 2**failed_probings)` seconds less the jitter."""
    longest = min(policy.open_most, policy.open_for * 2.0 ** min(failed_probings, 62))
    until = now + longest * (1 - policy.jitter * rng.random())
    return Phase("open", phase.token, failed_probings, until)


def aged(policy: BreakerPolicy, phase: Phase, now: float, rng: Rng) -> Phase:
    """What time alone does next: a probe that hangs fails when its permit expires, and what is open may be probed.

    To be asked until nothing changes any more.
    """
    if phase.permits and phase.permits[0].expires <= now:
        token, expired = phase.permits[0]
        return probed(policy, phase, token, _FAILED, False, expired, rng)
    if phase.state == "open" and now >= phase.until:
        return Phase("half-open", phase.token, phase.failed_probings)
    return phase


def knocked(policy: BreakerPolicy, phase: Phase, now: float) -> Phase:
    """A call comes to an aged phase that is not closed: it is admitted if a permit is left."""
    if phase.state != "half-open" or len(phase.permits) + phase.ended >= policy.probes:
        return phase
    token = phase.token + 1
    return phase._replace(token=token, permits=(*phase.permits, Permit(token, now + policy.probe_timeout)))


def probed(
    policy: BreakerPolicy, phase: Phase, token: int, outcome: Outcome, is_slow: bool, now: float, rng: Rng
) -> Phase:
    """A probe has ended, or expired; who has no permit changes nothing."""
    permits = tuple(permit for permit in phase.permits if permit.token != token)
    if len(permits) == len(phase.permits):
        return phase
    if outcome is _SAYS_NOTHING:
        return phase._replace(permits=permits)
    ended = phase.ended + 1
    failed, slow = phase.failed + (outcome is _FAILED), phase.slow + is_slow
    if failed / policy.probes >= policy.error_rate or slow / policy.probes >= policy.slow_rate:
        return tripped(policy, phase, now, rng, failed_probings=phase.failed_probings + 1)
    if ended == policy.probes:
        return Phase("closed", phase.token + 1)
    return phase._replace(permits=permits, ended=ended, failed=failed, slow=slow)


class Breaker:
    """Ask `try_enter` before each call, and tell `leave` how it ended, whatever happened.

    `name`: the endpoint's, in signals. `now` is always `env.clock.monotonic()`, for which the caller has mostly just asked.
    """

    __slots__ = ("_closed_token", "_counts", "_env", "_name", "_phase", "_policy")

    def __init__(self, env: Env, policy: BreakerPolicy | None = None, *, name: str) -> None:
        self._env = env
        self._policy = policy or BreakerPolicy()
        self._name = bounds.name("a breaker", name)
        self._counts = RollingCounts(self._policy.window, self._policy.buckets)
        self._phase = Phase()
        self._closed_token: int | None = self._phase.token
        """Says that it is closed as well: what is nearly always asked needs one look."""

    @property
    def state(self) -> State:
        """As of the last call that came or ended, or was asked about: it moves with them, and needs no timer."""
        return self._phase.state

    def retry_after(self, now: float) -> float:
        """Seconds after which a call may be admitted: 0 if one would be now. For the refusal, and for a look in advance."""
        self._age(now)  # a probe that hung may have opened it again since
        phase = self._phase
        if phase.state == "open":
            return max(0.0, phase.until - now)
        if phase.state == "half-open" and knocked(self._policy, phase, now) is phase:
            # The probes will most likely have ended by then; their permits have, at the latest.
            return max(0.0, min(self._policy.open_for, phase.permits[0].expires - now))
        return 0.0

    def try_enter(self, now: float) -> int | None:
        """A token for `leave`; None if the call is refused: it must not be made, and there is nothing to leave."""
        token = self._closed_token
        return token if token is not None else self._knock(now)

    def leave(self, token: int, outcome: Outcome, took_s: float, now: float) -> None:
        """The call with this token has ended. Once for each token of a probe; a second time changes nothing."""
        policy = self._policy
        if token == self._closed_token:
            if outcome is _SAYS_NOTHING:
                return
            counts = self._counts
            counts.add(outcome is _FAILED, took_s >= policy.slow_after, now)
            if (counts.failed or counts.slow) and counts.calls >= policy.minimum_calls and self._is_bad():
                self._change(tripped(policy, self._phase, now, self._env.rng))
        elif any(permit.token == token for permit in self._phase.permits):
            self._age(now)
            is_slow = took_s >= policy.slow_after
            self._change(probed(policy, self._phase, token, outcome, is_slow, now, self._env.rng))

    def _is_bad(self) -> bool:
        counts, policy = self._counts, self._policy
        return counts.failed / counts.calls >= policy.error_rate or counts.slow / counts.calls >= policy.slow_rate

    def _knock(self, now: float) -> int | None:
        phase = self._phase
        if phase.state == "open" and now < phase.until:
            return None
        self._age(now)
        if self._closed_token is not None:  # the last probe has expired, and the others were well
            return self._closed_token
        phase = self._phase
        self._phase = knocked(self._policy, phase, now)
        return None if self._phase is phase else self._phase.token

    def _age(self, now: float) -> None:
        while (phase := aged(self._policy, self._phase, now, self._env.rng)) is not self._phase:
            self._change(phase)

    def _change(self, phase: Phase) -> None:
        before, self._phase = self._phase, phase
        if phase.state == before.state:
            return
        self._closed_token = phase.token if phase.state == "closed" else None
        self._counts.clear()
        if phase.state == "open":
            self._env.signals.emit(BREAKER_OPENED, 1, breaker=self._name)
        self._env.signals.emit(BREAKER_STATE, _LEVEL[phase.state], breaker=self._name)

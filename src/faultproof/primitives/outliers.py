"""Outlier ejection: an endpoint that does far worse than the others gets no calls for a while. Judged by the calls alone.

An endpoint is ejected when so many calls to it failed one after the other, or when, looked at once in each interval, a far
larger share of its calls failed than of all others' together. (Envoy compares with mean and standard deviation, which one bad
endpoint of a few distorts so much that it never is an outlier: of five, none can be two deviations away.)

Promise:

- At most `share` of those that are not draining are ejected at a time, and never the last one that is usable: where most
  fail, it is not the endpoints, and those that are left must not be given the calls of all.
- An ejection ends by itself, without a probe: it lasts `eject_for` seconds, twice that each further time, up to `eject_most`,
  less a jitter; each interval without one takes one time back.
- Calls that began before an ejection ended say nothing afterwards.

A breaker knows one endpoint and protects it; this knows all, and protects the callers. Both may be in use.

Bounds: four numbers for each endpoint. For one event loop; nothing is awaited. Times are `Clock.monotonic`'s.

Source: Envoy's "Outlier detection" (architecture overview).
"""

from __future__ import annotations

from dataclasses import dataclass

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import InvalidInput
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.signals import ENDPOINT_EJECTED


@dataclass(frozen=True, kw_only=True)
class OutlierPolicy:
    """Who is ejected, and for how long. All times in seconds, all shares from 0 to 1."""

    in_a_row: int = 5
    """Eject whose last so many calls all failed …"""
    gap: float = 0.3
    """… or of whose calls this much more fail than of the others', 0.3 being 35 % beside 5 % …"""
    interval: float = 10.0
    """… within this time …"""
    minimum_calls: int = 20
    """… if there were so many; the others are those that had so many, too."""
    share: float = 0.5
    """At most this share of the endpoints, rounded down, is ejected at a time."""
    eject_for: float = 5.0
    """The first time up to so long, twice that each further time …"""
    eject_most: float = 60.0
    """… and never longer than this."""
    jitter: float = 0.2
    """Up to this share is taken off, at random, lest those that were ejected together come back together."""

    def __post_init__(self) -> None:
        bounds.count("in_a_row", self.in_a_row)
        bounds.number("gap", self.gap, least=0.01, most=1)
        bounds.seconds("interval", self.interval, least=0.001)
        bounds.count("minimum_calls", self.minimum_calls)
        bounds.number("share", self.share, least=0, most=1)
        bounds.seconds("eject_for", self.eject_for)
        bounds.seconds("eject_most", self.eject_most)
        bounds.number("jitter", self.jitter, least=0, most=1)
        if self.eject_most < self.eject_for:
            raise InvalidInput(f"`eject_most` must be at least `eject_for`, got {self.eject_most} and {self.eject_for}")


class _Record:
    """What is known of one endpoint."""

    __slots__ = ("failed", "in_a_row", "ok", "times")

    def __init__(self) -> None:
        self.ok = 0
        """In this interval, as `failed`."""
        self.failed = 0
        self.in_a_row = 0
        """Failures since the last success."""
        self.times = 0
        """Ejections, less the intervals since that were without."""

    def forget(self) -> None:
        self.ok = self.failed = self.in_a_row = 0


class Outliers:
    """Judges the endpoints of a group by how their calls end."""

    __slots__ = ("_endpoints", "_env", "_judged_at", "_policy", "_records")

    def __init__(self, env: Env, endpoints: Endpoints, policy: OutlierPolicy | None = None) -> None:
        self._env = env
        self._endpoints = endpoints
        self._policy = policy or OutlierPolicy()
        self._records = {endpoint: _Record() for endpoint in endpoints.all}
        self._judged_at = env.clock.monotonic()

    def ended(self, endpoint: Endpoint, is_ok: bool, began: float, now: float) -> None:
        """A call to it has ended. Not for those that say nothing about the endpoint, such as cancelled ones."""
        if began < endpoint.ejected_until:
            return
        record = self._records[endpoint]
        if is_ok:
            record.ok += 1
            record.in_a_row = 0
        else:
            record.failed += 1
            record.in_a_row += 1
            if record.in_a_row >= self._policy.in_a_row:
                record.in_a_row = 0  # where it may not be ejected, it is tried again after as many more
                self._eject(endpoint, now, "in a row")
        if now - self._judged_at >= self._policy.interval:
            self._judge(now)

    def _judge(self, now: float) -> None:
        """The interval is over: the worst of those that are far behind the others first."""
        for endpoint in far_behind(self._policy, {e: (r.ok, r.failed) for e, r in self._records.items()}):
            self._eject(endpoint, now, "rate")
        for endpoint, record in self._records.items():
            record.ok = record.failed = 0
            at_peace = now - max(self._judged_at, endpoint.ejected_until)
            record.times = max(0, record.times - max(0, int(at_peace / self._policy.interval)))
        self._judged_at = now

    def _eject(self, endpoint: Endpoint, now: float, why: str) -> None:
        if not self._may_eject(endpoint, now):
            return
        policy, record = self._policy, self._records[endpoint]
        longest = min(policy.eject_most, policy.eject_for * 2.0 ** min(record.times, 62))
        record.times += 1
        record.forget()
        endpoint.eject(now + longest * (1 - policy.jitter * self._env.rng.random()))
        self._env.signals.emit(ENDPOINT_EJECTED, 1, group=self._endpoints.name, endpoint=endpoint.name, why=why)

    def _may_eject(self, endpoint: Endpoint, now: float) -> bool:
        staying = [one for one in self._endpoints.all if not one.is_draining]
        ejected = sum(one.ejected_until > now for one in staying)
        is_last = not any(one.is_usable(now) for one in staying if one is not endpoint)
        return not is_last and ejected < int(self._policy.share * len(staying))


def far_behind(policy: OutlierPolicy, seen: dict[Endpoint, tuple[int, int]]) -> list[Endpoint]:
    """Of how many calls were ok and failed: who fails by `gap` more often than all others together, the worst first."""
    enough = {endpoint: counts for endpoint, counts in seen.items() if sum(counts) >= policy.minimum_calls}
    if len(enough) < 2:
        return []
    all_failed = sum(failed for _, failed in enough.values())
    all_calls = sum(ok + failed for ok, failed in enough.values())
    gaps = {
        endpoint: failed / (ok + failed) - (all_failed - failed) / (all_calls - ok - failed)
        for endpoint, (ok, failed) in enough.items()
    }
    return sorted((e for e, gap in gaps.items() if gap >= policy.gap), key=lambda e: -gaps[e])

"""How many calls at once a dependency bears, found out: one more while it is quick, a part fewer when it is not.

Additive increase, multiplicative decrease (Chiu and Jain 1989), by rounds as TCP does it (Jacobson 1988): as many calls as
there are permits are a round. After a good one there is a permit more, but only if at least half of them were in use, because
what was not tried says nothing; after a bad one a part of them is taken away, and what had begun before that says nothing
about the new limit. A round is bad when too many of its calls failed as things do under overload (timed out, were refused),
or took longer than `latency`.

That bound is absolute on purpose. Limiters that compare latency with what it was a while ago take a dependency which has
been timing out for long for one that is as it always was, and climb to their maximum
(`Netflix/concurrency-limits#137`): here constant timeouts end at `least`.

A pure function of what it is told; it reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from faultproof import bounds
from faultproof.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class AdaptivePolicy:
    """When there are more permits, and when fewer."""

    latency: float = 1.0
    """Seconds; a call that took longer counts against the limit, however it ended."""
    tolerance: float = 0.1
    """The part of a round's calls that may count against it …"""
    decrease: float = 0.7
    """… or so much of the limit is left."""
    least: int = 1
    """Never fewer permits than this."""
    round: int = 10
    """Calls that a round has at least, so that a small limit does not depend on one of them."""

    def __post_init__(self) -> None:
        bounds.seconds("latency", self.latency)
        bounds.number("tolerance", self.tolerance, least=0, most=0.99)
        bounds.number("decrease", self.decrease, least=0.1, most=0.99)
        bounds.count("least", self.least)
        bounds.count("round", self.round)


class AdaptiveLimit:
    """The limit of one compartment, between `policy.least` and `most`; it begins with `most`."""

    __slots__ = ("_bad", "_calls", "_since", "_used", "limit", "most", "policy")

    def __init__(self, policy: AdaptivePolicy, *, most: int) -> None:
        bounds.count("most", most)
        if policy.least > most:
            raise InvalidInput(f"`least` is {policy.least}, and there are at most {most} permits")
        self.policy = policy
        self.most = most
        self.limit = most
        self._since = float("-inf")
        """When the limit was lowered last."""
        self._calls = self._bad = self._used = 0

    def ended(self, *, now: float, took_s: float, in_flight: int, overload: bool = False) -> int:
        """A call has ended; `in_flight` with itself counted. Gives the limit from now on.

        `overload`: it timed out, or was refused or dropped because of too much work. Do not tell of calls that were given up
        for reasons of the caller's before `latency` was over: they say nothing.
        """
        policy = self.policy
        if now - took_s < self._since:
            return self.limit
        self._calls += 1
        self._bad += overload or took_s > policy.latency
        self._used = max(self._used, in_flight)
        if self._calls >= max(self.limit, policy.round):
            self._judge(now)
        return self.limit

    def _judge(self, now: float) -> None:
        """The round is over."""
        if self._bad > self.policy.tolerance * self._calls:
            self.limit = max(self.policy.least, int(self.limit * self.policy.decrease))
            self._since = now
        elif self._used * 2 >= self.limit:
            self.limit = min(self.most, self.limit + 1)
        self._calls = self._bad = self._used = 0

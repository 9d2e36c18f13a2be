"""Balancers: which endpoint of a group gets a call.

- `LeastLoaded`, the default: of two drawn at random the less busy one, by calls in flight and latency.
- `RoundRobin`: in turn, by weight, without runs of the same one.
- `HashRing` (`ring.py`): the same endpoint for the same key, within a bound on how much busier than the others it may be.

Each leaves out what was tried already, so that a hedge or a retry goes to another endpoint, and picks nothing that is
draining. What they do when nothing is usable, `endpoints.py` says: panic.

Sources: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001); nginx's smooth weighted round robin.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import gcd
from typing import Protocol

from faultproof.clock import Env
from faultproof.primitives.endpoints import Endpoint, Endpoints

_SCALE = 2.0**53
"""One drawn number has so many values."""
_SPARE_BITS = 10
"""Never used of a number: without them, the last pick out of it would prefer some pairs by more than one in a thousand."""


class Balancer(Protocol):
    """Picks endpoints."""

    def pick(self, now: float, tried: Collection[Endpoint] = (), key: str = "") -> Endpoint | None:
        """One that may get a call and is not among `tried`; None if there is none. `now` is `Clock.monotonic()`."""
        ...


class LeastLoaded:
    """Of two endpoints drawn at random the one with the lower `load`: power of two choices.

    Two are enough to keep the busiest close to the mean, and unlike the best of all they do not send everybody to the same
    one. Weights count twice: in the drawing, and as the share of the calls in flight.
    """

    __slots__ = ("_drawn", "_endpoints", "_rng", "_slots", "_usable")

    def __init__(self, env: Env, endpoints: Endpoints) -> None:
        self._rng = env.rng
        self._endpoints = endpoints
        self._drawn = 0
        """What is left of the last drawn number: from the operating system one costs more than all the rest of a pick."""
        self._usable: Sequence[Endpoint] = ()
        self._slots: Sequence[Endpoint] = ()

    def pick(self, now: float, tried: Collection[Endpoint] = (), key: str = "") -> Endpoint | None:
        usable = self._endpoints.usable(now)
        if usable is not self._usable:
            self._usable, self._slots = usable, _weighted(usable)
        slots = self._slots
        if tried:
            slots = [endpoint for endpoint in slots if endpoint not in tried]
        count = len(slots)
        if count < 2:
            return slots[0] if slots else None
        pairs = count * (count - 1)
        drawn = self._drawn
        if drawn < pairs << _SPARE_BITS:
            drawn = int(self._rng.random() * _SCALE)
        self._drawn, pair = divmod(drawn, pairs)
        first, second = divmod(pair, count - 1)
        one, other = slots[first], slots[second + 1 if second >= first else second]
        return one if one.load(now) <= other.load(now) else other


class RoundRobin:
    """Each in its turn, as often as its weight says and evenly spread: of weights 2 and 1 comes a, b, a and not a, a, b.

    For calls that are all alike. A pick looks at all endpoints: take another balancer where there are hundreds.
    """

    __slots__ = ("_behind", "_endpoints")

    def __init__(self, env: Env, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._behind: dict[Endpoint, int] = dict.fromkeys(endpoints.all, 0)
        """How far behind its share each is."""
        for _ in range(int(env.rng.random() * len(endpoints.all))):  # not all processes begin with the same one
            self._next(endpoints.all, ())

    def pick(self, now: float, tried: Collection[Endpoint] = (), key: str = "") -> Endpoint | None:
        return self._next(self._endpoints.usable(now), tried)

    def _next(self, usable: Sequence[Endpoint], tried: Collection[Endpoint]) -> Endpoint | None:
        behind, best, total = self._behind, None, 0
        for endpoint in usable:
            if endpoint not in tried:
                total += endpoint.weight
                behind[endpoint] += endpoint.weight
                if best is None or behind[endpoint] > behind[best]:
                    best = endpoint
        if best is not None:
            behind[best] -= total
        return best


def _weighted(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Each as often as its weight says."""
    unit = gcd(*(endpoint.weight for endpoint in endpoints))
    return [endpoint for endpoint in endpoints for _ in range(endpoint.weight // unit)]

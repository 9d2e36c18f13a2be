"""Consistent hashing with bounded loads: the same endpoint for the same key, unless it has more than its share in flight.

Every endpoint stands at many points of a ring, by its name; a key belongs to the next one. So when an endpoint goes, only its
keys move, and they move to all others. A popular key would still bury one endpoint: so nobody gets a call while it has
`bound` times its share of the calls in flight, and the next one on the ring does (a key has two or three endpoints then).

Promise: no endpoint has more than `ceil(bound * calls in flight * its share of the weights)` calls in flight, the new one
counted, as long as all calls are picked here and none leaves out what was tried. Of keys that are all alike, none of up to
fifty endpoints of the same weight owns twice as many as another.

Bounds: `POINTS` on the ring for each endpoint. A pick costs a hash and a search in them.

Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2017).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from hashlib import blake2b
from math import ceil

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.primitives.endpoints import Endpoint, Endpoints

POINTS = 256
"""Of the endpoint with the largest weight: what each owns deviates by about one in sixteen."""
_POINTS_A_DIGEST = 8


class HashRing:
    """A balancer for calls that have a key. Raises `InvalidInput` for a call without one.

    `bound`: how many times its share of what is in flight an endpoint may have; lower is more even, higher keeps more keys
    where they belong.
    """

    __slots__ = ("_bound", "_endpoints", "_owners", "_points", "_set", "_usable", "_weights")

    def __init__(self, endpoints: Endpoints, *, bound: float = 1.25) -> None:
        bounds.number("bound", bound, least=1.01, most=100)
        self._bound = bound
        self._endpoints = endpoints
        largest = max(endpoint.weight for endpoint in endpoints.all)
        ring = sorted(
            (point, number)
            for number, endpoint in enumerate(endpoints.all)
            for point in _points(endpoint.name, ceil(POINTS * endpoint.weight / largest))
        )
        self._points = [point for point, _ in ring]
        self._owners = [endpoints.all[number] for _, number in ring]
        self._usable: Sequence[Endpoint] = ()
        self._set: frozenset[Endpoint] = frozenset()
        self._weights = 0

    def pick(self, now: float, tried: Collection[Endpoint] = (), key: str = "") -> Endpoint | None:
        """The key's endpoint, or the next on the ring that is usable, was not tried and has room.

        If those that were not tried have no room, the first of them: the bound gives way before the call does.
        """
        if not key:
            raise InvalidInput("a consistent hash needs a key to pick by: name one, or take another balancer")
        usable = self._endpoints.usable(now)
        if usable is not self._usable:
            self._usable, self._set = usable, frozenset(usable)
            self._weights = sum(endpoint.weight for endpoint in usable)
        wanted = sum(endpoint not in tried for endpoint in usable) if tried else len(usable)
        most = self._bound * (self._endpoints.in_flight + 1)
        full: dict[Endpoint, None] = {}
        at, owners = bisect_right(self._points, _hash(key)), self._owners
        while len(full) < wanted:
            owner = owners[at % len(owners)]
            at += 1
            if owner in full or owner not in self._set or owner in tried:
                continue
            if owner.in_flight < ceil(most * owner.weight / self._weights):
                return owner
            full[owner] = None
        return next(iter(full), None)


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest())


def _points(name: str, count: int) -> list[int]:
    """The first so many points of a name: the same in every process, and those of a smaller weight are among them."""
    digests = (blake2b(f"{name}#{part}".encode()).digest() for part in range(-(-count // _POINTS_A_DIGEST)))
    points = [int.from_bytes(digest[at : at + 8]) for digest in digests for at in range(0, 64, 8)]
    return points[:count]

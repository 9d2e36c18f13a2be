"""A group of endpoints that do the same: who of them may get a call, and how busy each is.

An endpoint is left out while it drains, while it is ejected (`outliers.py`), and while it fails its health checks
(`health.py`). **Panic**: where that leaves nobody, calls go to all that are not draining, as if all were well. Either they
are, and what judges them is not; or they are not, and a few calls more say at once when that has changed. Breakers and
budgets bound what it costs.

Latency is a peak-EWMA: it follows a call that takes longer at once, forgets within seconds, and is not lowered by failures,
or what fails quickest would get the most calls. Source: Finagle's "Peak EWMA" (Twitter, 2014).

For one event loop; nothing is awaited. Times are `Clock.monotonic`'s, in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf
from urllib.parse import urlsplit

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import InvalidInput
from faultproof.signals import ENDPOINTS_USABLE

DECAY_S = 5.0
"""A latency that nothing confirms has fallen to 37 % after this."""
LEAST_S = 0.000_1
"""Added to every latency: of two that are faster than this, the one with fewer calls in flight is the less busy."""
WEIGHT_MAX = 100
ENDPOINTS_MAX = 10_000


class Endpoint:
    """One of several that do the same.

    `name`: short and plain, for signals and hashing; it keeps its keys under this name. `url`: where it is, if it is somewhere.
    `weight`: its share of the calls, beside the others'.
    """

    __slots__ = (
        "_capacity",
        "_group",
        "_is_draining",
        "_is_healthy",
        "_seen",
        "ejected_until",
        "in_flight",
        "latency",
        "name",
        "url",
        "weight",
    )

    def __init__(self, name: str, url: str = "", *, weight: int = 1) -> None:
        self.name = bounds.name("an endpoint", name)
        self.url = _address(url) if url else ""
        bounds.count("weight", weight, most=WEIGHT_MAX)
        self.weight = weight
        self._capacity = 1.0
        self.in_flight = 0
        """Calls that have begun and not ended."""
        self.latency = 0.0
        """Seconds: the peak-EWMA when a call last ended."""
        self._seen = 0.0
        self.ejected_until = -inf
        self._is_draining = False
        self._is_healthy = True
        self._group: Endpoints | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r})"

    @property
    def is_draining(self) -> bool:
        """It ends what it has, and gets nothing new. May be set."""
        return self._is_draining

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._is_draining = value
        self._changed()

    @property
    def is_healthy(self) -> bool:
        """What health checks say, if there are any. May be set."""
        return self._is_healthy

    @is_healthy.setter
    def is_healthy(self, value: bool) -> None:
        self._is_healthy = value
        self._changed()

    def eject(self, until: float) -> None:
        """It gets nothing new until then, or longer if that was said before."""
        self.ejected_until = max(self.ejected_until, until)
        self._changed()

    def is_usable(self, now: float) -> bool:
        """Nothing speaks against it."""
        return self._is_healthy and not self._is_draining and self.ejected_until <= now

    def load(self, now: float) -> float:
        """What one more call would have to wait for, by and large: in seconds, for comparisons."""
        latency = self.latency * exp((self._seen - now) / DECAY_S) + LEAST_S
        return (self.in_flight / self._capacity + 1) * latency

    def begin(self) -> None:
        """A call to it begins; `end` must follow, however the call ends."""
        self.in_flight += 1
        if self._group is not None:
            self._group.in_flight += 1

    def end(self, took_s: float, is_ok: bool, now: float) -> None:
        """A call has ended. What failed or was cut off took at least so long: that may raise the latency, never lower it."""
        self.in_flight -= 1
        if self._group is not None:
            self._group.in_flight -= 1
        if took_s >= self.latency:
            self.latency = took_s
        elif is_ok:
            kept = exp((self._seen - now) / DECAY_S)
            self.latency = self.latency * kept + took_s * (1 - kept)
        self._seen = now

    def latency_at(self, now: float) -> float:
        """Seconds, as far as they are not forgotten."""
        return self.latency * exp((self._seen - now) / DECAY_S)

    def warm(self, latency: float, now: float) -> None:
        """It gets calls again: believe that it is no faster than this until it has shown it."""
        self.latency = max(self.latency_at(now), latency)
        self._seen = now

    def join(self, group: Endpoints, mean_weight: float) -> None:
        """It belongs to one group, and carries as many of the calls in flight as its weight says beside the others'."""
        if self._group is not None:
            raise InvalidInput(f"the endpoint {self.name!r} is in a group already: make one for each")
        self._group = group
        self._capacity = self.weight / mean_weight

    def _changed(self) -> None:
        if self._group is not None:
            self._group.look_again()


class Endpoints:
    """A group. `name`: as signals call it.

    Raises `InvalidInput` if there are none, or two of one name.
    """

    __slots__ = ("_count", "_env", "_name", "_until", "_usable", "all", "in_flight")

    def __init__(self, env: Env, endpoints: Sequence[Endpoint], *, name: str) -> None:
        self._env = env
        self._name = bounds.name("a group of endpoints", name)
        self.all = tuple(endpoints)
        bounds.count("endpoints", len(self.all), most=ENDPOINTS_MAX)
        names = [endpoint.name for endpoint in self.all]
        if len(set(names)) < len(names):
            twice = next(one for one in names if names.count(one) > 1)
            raise InvalidInput(f"`endpoints` must be named differently, {twice!r} is there twice")
        mean_weight = sum(endpoint.weight for endpoint in self.all) / len(self.all)
        for endpoint in self.all:
            endpoint.join(self, mean_weight)
        self.in_flight = 0
        """Calls to all of them."""
        self._usable = list(self.all)
        self._count = len(self.all)
        """Of those that nothing speaks against."""
        self._until = -inf

    @property
    def name(self) -> str:
        return self._name

    def usable(self, now: float) -> Sequence[Endpoint]:
        """Who may get a call; in panic all that are not draining; nobody if all are. Another list when that has changed."""
        return self._usable if now < self._until else self._look(now)

    def is_panicking(self, now: float) -> bool:
        """Whether something speaks against each of them."""
        self.usable(now)
        return self._count == 0

    def look_again(self) -> None:
        """Something has changed."""
        self._until = -inf

    def _look(self, now: float) -> Sequence[Endpoint]:
        usable = [endpoint for endpoint in self.all if endpoint.is_usable(now)]
        # Until the next of them comes back; everything else calls `look_again`.
        self._until = min((e.ejected_until for e in self.all if e.ejected_until > now), default=inf)
        chosen = usable or [endpoint for endpoint in self.all if not endpoint.is_draining]
        before, self._count = self._count, len(usable)
        if chosen != self._usable:
            _warm(chosen, self._usable, now)
            self._usable = chosen
        if self._count != before:
            self._env.signals.emit(ENDPOINTS_USABLE, self._count, group=self._name)
        return self._usable


def _warm(chosen: list[Endpoint], before: list[Endpoint], now: float) -> None:
    """What comes back has forgotten its latency, and would get all calls until the first of them has ended."""
    known = set(before)
    stayed = [endpoint.latency_at(now) for endpoint in chosen if endpoint in known]
    if stayed:
        for endpoint in chosen:
            if endpoint not in known:
                endpoint.warm(sum(stayed) / len(stayed), now)


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address or any(c.isspace() for c in url):
        raise InvalidInput(f"`url` must be an address like https://host:443/path, got {bounds.short(url)}")
    return url

"""The network of one run: a proxy before the server for each process, where the order asks for one."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from faultproof.prove.live.address import changed, places
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.orders import BY_PROXY, Order
from faultproof.prove.live.proxy import Proxy

T = TypeVar("T")

LATENCY_S = 0.005
OUTAGE_S = 1.0
"""How long a half-open connection or a blackhole lasts."""
ORPHAN_S = 1.0
"""How long the server's side of a dead client's connection stays open."""
_CALL_S = 20.0
_FIRED = {
    "orphan": "orphan",
    "dropped answer": "drop",
    "reset": "reset",
    "half-open": "half-open",
    "blackhole to the server": "lost-requests",
    "blackhole to the client": "lost-answers",
    "latency": "latency",
}


class Network:
    """Between a run's processes and their server. Without an order for it there is nothing between them."""

    def __init__(self, url: str, names: Sequence[str], order: Order, options: LiveOptions) -> None:
        self._url = url
        self._names = names
        self._order = order
        self._proxies: dict[str, Proxy] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fired: Counter[str] = Counter()

    def __enter__(self) -> Self:
        if self._order.kind in BY_PROXY:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="faultproof-proxies", daemon=True)
            self._thread.start()
            ((host, port),) = places(self._url)
            for name in self._names:
                self._proxies[name] = Proxy(host, port)
                self._await(self._proxies[name].start())
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is None:
            return
        self._fired = self.fired
        for proxy in self._proxies.values():
            self._await(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()
        self._loop = None

    @property
    def fired(self) -> Counter[str]:
        """Which faults of the network have met a connection, by the name of their order."""
        found = Counter(self._fired)
        for proxy in self._proxies.values() if self._loop is not None else ():
            for what, times in list(proxy.fired.items()):
                if _FIRED[what] == self._order.kind:
                    found[_FIRED[what]] += times
        return found

    def url(self, name: str) -> str:
        """Where a process reaches the database."""
        proxy = self._proxies.get(name)
        return self._url if proxy is None else changed(self._url, host="127.0.0.1", hostaddr=None, port=proxy.port)

    def heal(self) -> None:
        """No more faults."""
        for proxy in self._proxies.values():
            self._call(proxy.heal)

    def strikes(self, rng: random.Random) -> list[tuple[float, Callable[[], None]]]:
        """What strikes when, in seconds from the beginning."""
        faults: dict[str, Callable[[Proxy], object]] = {
            "reset": lambda proxy: proxy.reset(),
            "half-open": lambda proxy: proxy.half_open(OUTAGE_S),
            "lost-requests": lambda proxy: proxy.blackhole("server", OUTAGE_S),
            "lost-answers": lambda proxy: proxy.blackhole("client", OUTAGE_S),
        }
        fault = faults.get(self._order.kind)
        if fault is None:
            return []
        found: list[tuple[float, Callable[[], None]]] = []
        at = 0.0
        for _ in range(2):
            at += rng.uniform(0.05, 0.4)
            order = rng.sample(self._names, k=len(self._names))
            found.append((at, lambda order=order: self._call(lambda: self._strike(order, fault))))  # type: ignore[misc]
        return found

    def _strike(self, order: Sequence[str], fault: Callable[[Proxy], object]) -> None:
        """The first of them that has a connection to be struck."""
        for name in order:
            if self._proxies[name].connections:
                fault(self._proxies[name])
                return

    def _begin(self) -> None:
        """Faults that wait for their moment, or last all the time."""
        kind, proxies = self._order.kind, self._proxies
        if kind == "drop":
            self._call(lambda: proxies[self._order.process].drop_commit_answer(self._order.number))
        elif kind == "orphan":
            proxies[self._order.process].keep_s = ORPHAN_S
        elif kind == "latency":
            for proxy in proxies.values():
                proxy.delay(LATENCY_S)

    def _call(self, what: Callable[[], object]) -> None:
        async def called() -> None:
            what()

        self._await(called())

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_S)

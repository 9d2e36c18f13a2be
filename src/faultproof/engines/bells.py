"""Who waits in this process, by topic: what an engine rings when it has heard of a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Bell:
    """One listener: rung by news from outside, by a poll, or by this process itself."""

    def __init__(self, topic: str, bells: dict[str, list[Bell]]) -> None:
        self._topic = topic
        self._bells = bells
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None
        bells.setdefault(topic, []).append(self)

    def ring(self) -> None:
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout: float) -> bool:
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = loop.call_later(timeout, _expire, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        rung, self._rung = self._rung, False
        return rung

    def close(self) -> None:
        listening = self._bells.get(self._topic, [])
        if self in listening:
            listening.remove(self)
        if not listening:
            self._bells.pop(self._topic, None)


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Bells:
    """The listeners of one process, by topic."""

    def __init__(self) -> None:
        self._bells: dict[str, list[Bell]] = {}

    def listen(self, topic: str) -> Bell:
        return Bell(topic, self._bells)

    def ring(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for bell in self._bells.get(topic, ()):
                bell.ring()

    def has(self, topic: str) -> bool:
        """Whether anybody listens."""
        return bool(self._bells.get(topic))

    @property
    def topics(self) -> list[str]:
        """What anybody listens to."""
        return list(self._bells)

    def ring_all(self) -> None:
        self.ring(tuple(self._bells))

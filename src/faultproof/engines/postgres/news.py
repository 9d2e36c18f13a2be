"""News of commits: NOTIFY after the commit and outside of it, and one connection in each process that tells and hears.

A NOTIFY inside users' transactions would take a lock on the whole server at each of their commits. So whoever has
committed tells of it afterwards, in a transaction of its own: one at a time is under way, and topics that come meanwhile
go with the next. A notification may be lost, and a raw connection sends none: `line.py` looks for itself besides, and
every `News.wait` has a timeout.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from faultproof.clock import Env
from faultproof.engines.bells import Bells
from faultproof.engines.postgres.floor import Floors
from faultproof.engines.postgres.line import Line
from faultproof.ports.database import News

_TOPIC_BYTES_MAX = 4_000  # the server takes 8,000


class Wakeups:
    """Carries topics from commits to listeners. Its loop is the one that it is made in."""

    def __init__(self, env: Env, conninfo: str, floors: Floors, *, poll_s: float, hears: bool) -> None:
        """See `Line`."""
        self._env = env
        self._loop = asyncio.get_running_loop()
        self._conninfo = conninfo
        self._floors = floors
        self._poll_s = poll_s
        self._hears = hears
        self._me = env.ids.new()[:12]
        self._bells = Bells()
        self._opening = threading.Lock()
        self._line: Line | None = None
        self._closed = False

    def listen(self, topic: str) -> News:
        """Hear of commits under `topic`."""
        bell = self._bells.listen(topic)
        if (line := self._opened()) is not None:
            line.listen()
        return bell

    def send(self, topics: Iterable[str]) -> None:
        """Tell every listener in every process. Never waits and never fails."""
        carried = _carried(topics)
        self._bells.ring(carried)
        if carried and (line := self._opened()) is not None:
            line.tell(carried)

    def send_from_anywhere(self, topics: Iterable[str], after: Callable[[], bool] | None) -> None:
        """The same from any thread; with `after`, when that says so."""
        carried = _carried(topics)
        line = self._opened() if carried else None
        if line is None:
            return
        if after is not None:
            line.tell_after(carried, after)
            return
        self._ring(carried)
        line.tell(carried)

    def close(self) -> None:
        """Stop hearing and telling; what is to be told is told before."""
        with self._opening:
            self._closed = True
        if self._line is not None:
            self._line.close()
            self._line = None
        self._bells.ring_all()

    def _opened(self) -> Line | None:
        with self._opening:
            if self._line is None and not self._closed:
                self._line = Line(
                    self._conninfo,
                    self._me,
                    self._heard,
                    lambda: self._bells.topics,
                    self._ring,
                    self._floors,
                    poll_s=self._poll_s,
                    rng=self._env.rng,
                    hears=self._hears,
                )
            return self._line

    def _heard(self, message: str) -> None:
        sender, _, topic = message.partition(" ")
        if sender != self._me:  # those were rung for at the commit
            self._ring([topic])

    def _ring(self, topics: Sequence[str]) -> None:
        topics = [topic for topic in topics if self._bells.has(topic)]
        if topics:  # or the loop need not wake up
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._bells.ring, topics)


def _carried(topics: Iterable[str]) -> list[str]:
    """Those that the server takes."""
    return [topic for topic in topics if _fits(topic)]


def _fits(topic: str) -> bool:
    try:
        return "\0" not in topic and len(topic.encode()) <= _TOPIC_BYTES_MAX
    except UnicodeEncodeError:  # a lone surrogate
        return False

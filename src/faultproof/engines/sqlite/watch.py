"""A look at the write-ahead log, many times a second, for commits that tell nobody."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable

from faultproof.clock import Rng

POLL_S = 0.05
"""At the latest this long after a commit that sent no datagram, listeners hear of it."""
_TICK_NS = 20_000_000
"""File systems stamp with a coarse clock: two commits less than this apart can look like one."""


class WalWatch:
    """Calls `moved` in the loop when the size or the time of the file `wal` has moved.

    A thread, because that is nearly all that an idle process does: a look costs half as much there as a turn of the
    event loop. `stat` only, never `open`: closing any descriptor of a file would drop the locks that SQLite holds on it
    in this process.
    """

    def __init__(self, wal: str, moved: Callable[[], None], *, poll_s: float, rng: Rng) -> None:
        self._wal = wal
        self._moved = moved
        self._poll_s = poll_s
        self._rng = rng
        self._closed = threading.Event()
        self._loop = asyncio.get_running_loop()
        seen = self._state()
        threading.Thread(target=self._look, args=(seen,), name="faultproof-watch", daemon=True).start()

    def close(self) -> None:
        """Look no more. Does not wait for the thread, which touches nothing afterwards."""
        self._closed.set()

    def _look(self, seen: tuple[int, int]) -> None:
        while not self._closed.wait(self._poll_s * (0.9 + 0.1 * self._rng.random())):
            state = self._state()
            if state == seen:
                continue
            fresh = time.time_ns() - state[1] < _TICK_NS  # another commit may get the same stamp: look once more
            seen = (-1, -1) if fresh else state
            try:
                self._loop.call_soon_threadsafe(self._moved)
            except RuntimeError:  # the loop was closed: nobody listens
                return

    def _state(self) -> tuple[int, int]:
        try:
            status = os.stat(self._wal)
        except OSError:
            return (0, 0)
        return (status.st_size, status.st_mtime_ns)

"""Counts of the calls of late: a window that moves in steps, in bounded memory however many calls there are."""

from __future__ import annotations


class RollingCounts:
    """How many calls ended within the last `window` seconds, how many of them failed, and how many were slow.

    The window is cut into `buckets`, and forgets one at a time: what is counted goes back at most `window` seconds, and at
    least that less one bucket. Memory: three integers for each bucket. Time that jumps ahead, however far, costs no more
    than forgetting all of them; a `now` from a little earlier counts as the latest.
    """

    __slots__ = ("_at", "_calls", "_ends", "_failed", "_slow", "_width", "calls", "failed", "slow")

    def __init__(self, window: float, buckets: int) -> None:
        self._width = window / buckets
        self._calls = [0] * buckets
        self._failed = [0] * buckets
        self._slow = [0] * buckets
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        for counts in (self._calls, self._failed, self._slow):
            counts[:] = [0] * len(counts)
        self.calls = self.failed = self.slow = 0
        self._at = 0
        self._ends = float("-inf")

    def add(self, is_failed: bool, is_slow: bool, now: float) -> None:
        """One call has ended."""
        if now >= self._ends:
            self._move(now)
        at = self._at
        self.calls += 1
        self._calls[at] += 1
        if is_failed:
            self.failed += 1
            self._failed[at] += 1
        if is_slow:
            self.slow += 1
            self._slow[at] += 1

    def _move(self, now: float) -> None:
        buckets = len(self._calls)
        if now - self._ends >= self._width * (buckets - 1):  # all that was counted is older than the window
            self.clear()
            self._ends = now + self._width
            return
        while now >= self._ends:
            self._ends += self._width
            self._at = at = (self._at + 1) % buckets
            self.calls -= self._calls[at]
            self.failed -= self._failed[at]
            self.slow -= self._slow[at]
            self._calls[at] = self._failed[at] = self._slow[at] = 0

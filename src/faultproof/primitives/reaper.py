"""Cancelled tasks that somebody has to own until they have ended, without anybody waiting for them."""

from __future__ import annotations

import asyncio
from typing import Any

from faultproof import bounds
from faultproof.clock import Clock
from faultproof.primitives.timeouts import Timeouts


class Reaper:
    """Cancels tasks and keeps them until they have ended: their clean-up takes as long as it takes, behind the caller's back.

    `most`: at once. When it `is_full`, whoever makes such tasks is to stop making them.
    """

    __slots__ = ("_most", "_tasks")

    def __init__(self, most: int = 1_000) -> None:
        bounds.count("most", most)
        self._most = most
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def is_full(self) -> bool:
        """Whether no more tasks should be made that may end here."""
        return len(self._tasks) >= self._most

    def take(self, task: asyncio.Task[Any]) -> None:
        """Cancel it, and own it. Its result or error is of no interest any more."""
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            task.cancel()

    async def close(self, clock: Clock, timeout: float = 10.0) -> int:
        """Wait for those that are left, and cancel them once more when the time is over. How many had not ended then."""
        if self._tasks:
            with Timeouts(clock, timeout).cut(clock.monotonic()):
                await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.cancel()
        return len(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # has been looked at, or the event loop complains

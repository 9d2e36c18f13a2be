"""Telling of commits that happened elsewhere: on a connection of the user's, in whatever thread that is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

LOOK_S = 0.001
LOOKS_MAX = 5_000
"""After so many the commit is taken for lost, or so slow that the poll will see it."""


class Telling:
    """Carries topics from any thread into the event loop of the database that sends them."""

    def __init__(self, send: Callable[[tuple[str, ...]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._send = send

    def __call__(self, topics: Iterable[str], after: Callable[[], bool] | None) -> None:
        """See `Database.wake`."""
        with suppress(RuntimeError):  # that loop is closed, and with it everybody who would have told
            self._loop.call_soon_threadsafe(self._look, tuple(topics), after, LOOKS_MAX)

    def _look(self, topics: tuple[str, ...], after: Callable[[], bool] | None, looks: int) -> None:
        if after is None or after():
            self._send(topics)
        elif looks:
            self._loop.call_later(LOOK_S, self._look, topics, after, looks - 1)

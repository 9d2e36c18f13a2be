"""The poll's question to the server: is there news that nobody told of?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from faultproof.engines.postgres.connection import Connection
from faultproof.ports.log import intake_topic, logs_among
from faultproof.ports.script import sql

Lend = Callable[[], AbstractAsyncContextManager[Connection]]


@sql(
    """SELECT value FROM {logs}
       WHERE EXISTS (SELECT 1 FROM faultproof_intake WHERE log = value AND due_us = 0)"""
)
def _waiting(logs: Sequence[str]) -> list[str]: ...


# Any commit that wrote anything, in any database of the server, changes it.
@sql("SELECT pg_current_snapshot()::text")
def _commits() -> str: ...


class Look:
    """Where wake-ups are heard, only the intakes: a joined connection of the user's tells nobody what it wrote there."""

    def __init__(self, lend: Lend) -> None:
        self._lend = lend

    async def __call__(self, topics: Sequence[str]) -> list[str]:
        """Those of the topics that may have news."""
        logs = logs_among(topics)
        if not logs:
            return []
        async with self._lend() as connection:
            return [intake_topic(log) for log in await connection.drive(_waiting(logs))]


class LookForAnything:
    """Where no wake-up can be heard: whether anything was committed since."""

    def __init__(self, lend: Lend) -> None:
        self._lend = lend
        self._seen = ""

    async def __call__(self, topics: Sequence[str]) -> list[str]:
        """All of the topics, or none."""
        async with self._lend() as connection:
            seen, self._seen = self._seen, await connection.drive(_commits())
        return [] if seen == self._seen else list(topics)

"""News of commits: NOTIFY after the commit and outside of it, and an ear in each process that listens.

A NOTIFY inside users' transactions would take a lock on the whole server at each of their commits. So whoever has
committed tells of it afterwards, on a connection of its own: one notification at a time is under way, and topics that
come meanwhile go with the next. A notification may be lost, and a raw connection sends none: `ear.py` looks for itself
besides, and every `News.wait` has a timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import psycopg

from faultproof.clock import Env
from faultproof.engines.bells import Bells
from faultproof.engines.postgres.ear import Ear
from faultproof.engines.postgres.floor import Floors
from faultproof.engines.postgres.wire import Raw
from faultproof.errors import FaultproofError
from faultproof.ports.database import News

SPACING_S = 0.005
"""Between two notifications of one process: under load they would be as many as commits, and each is a transaction."""
SEND_S = 5.0
"""After this long a notification is given up; the looking makes up for it."""

# Without waiting for the disk: lost with the server's memory, it would be news of what everybody has to look for anyway.
_NOTIFY = b"""SELECT set_config('synchronous_commit', 'off', true), pg_notify('faultproof', message)
              FROM unnest(%s::text[]) AS message"""
_TOPIC_BYTES_MAX = 4_000  # the server takes 8,000

Connect = Callable[[], Awaitable[Raw]]


class Wakeups:
    """Carries topics from commits to listeners."""

    def __init__(
        self, env: Env, connect: Connect, conninfo: str, floors: Floors, *, poll_s: float, hears: bool
    ) -> None:
        """`connect`: to speak on. The others: see `Ear`."""
        self._env = env
        self._connect = connect
        self._conninfo = conninfo
        self._floors = floors
        self._poll_s = poll_s
        self._hears = hears
        self._me = env.ids.new()[:12]
        self._bells = Bells()
        self._pending: dict[str, None] = {}  # bounded: by the topics there are
        self._speaker: Raw | None = None
        self._sending: asyncio.Task[None] | None = None
        self._ear: Ear | None = None

    def listen(self, topic: str) -> News:
        """Hear of commits under `topic`."""
        bell = self._bells.listen(topic)
        if self._ear is None:
            loop = asyncio.get_running_loop()

            def ring(topics: Sequence[str]) -> None:
                if topics:
                    with suppress(RuntimeError):  # the loop is closed
                        loop.call_soon_threadsafe(self._bells.ring, topics)

            def heard(message: str) -> None:
                sender, _, heard_topic = message.partition(" ")
                if sender != self._me:  # those were rung for at the commit
                    ring([heard_topic])

            self._ear = Ear(
                self._conninfo,
                heard,
                lambda: self._bells.topics,
                ring,
                self._floors,
                poll_s=self._poll_s,
                rng=self._env.rng,
                hears=self._hears,
            )
        return bell

    def send(self, topics: Iterable[str]) -> None:
        """Tell every listener in every process. Never waits and never fails."""
        topics = [topic for topic in topics if len(topic.encode()) <= _TOPIC_BYTES_MAX]
        self._bells.ring(topics)
        self._pending.update(dict.fromkeys(topics))
        if self._pending and (self._sending is None or self._sending.done()):
            self._sending = asyncio.get_running_loop().create_task(self._send(), name="faultproof-notify")

    async def close(self) -> None:
        """Stop hearing and sending; what is under way is sent."""
        if self._ear is not None:
            self._ear.close()
            self._ear = None
        # From a loop that was closed there is nothing to wait for.
        if self._sending is not None and self._sending.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._sending], timeout=SEND_S)
            self._sending.cancel()
        await self._hang_up()
        self._bells.ring_all()

    async def _send(self) -> None:
        while self._pending:
            messages = [f"{self._me} {topic}" for topic in self._pending]
            self._pending.clear()
            try:
                async with asyncio.timeout(SEND_S):
                    if self._speaker is None:
                        self._speaker = await self._connect()
                    await self._speaker.execute(_NOTIFY, (messages,))
            except (psycopg.Error, FaultproofError, TimeoutError):
                await self._hang_up()
            await self._env.clock.sleep(SPACING_S)

    async def _hang_up(self) -> None:
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            await speaker.close()

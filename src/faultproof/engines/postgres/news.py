"""News of commits: NOTIFY after the commit and outside of it, one LISTEN for each `Database`, a poll behind both.

A NOTIFY inside users' transactions would take a lock on the whole server at each of their commits. So whoever has
committed tells of it afterwards, on a connection of its own: one notification at a time is under way, and topics that
come meanwhile go with the next. A notification may be lost, and a raw connection sends none: every `poll` seconds one
cheap query asks whether anything waits in the intakes that somebody here listens to. Nothing else is written by
connections that are not ours, and every `News.wait` has a timeout besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import psycopg
from psycopg.pq import ConnStatus

from faultproof.clock import Env
from faultproof.engines.bells import Bells
from faultproof.engines.postgres.wire import Raw
from faultproof.errors import FaultproofError
from faultproof.ports.database import News
from faultproof.primitives.retry import full_jitter

SPACING_S = 0.002
"""Between two notifications of one process: under load they would be as many as commits, and each is a transaction."""
SEND_S = 5.0
"""After this long a notification is given up; the poll makes up for it."""
RECONNECT_BASE_S = 0.05
RECONNECT_CAP_S = 5.0

# Without waiting for the disk: lost with the server's memory, it would be news of what everybody has to look for anyway.
_NOTIFY = b"""SELECT set_config('synchronous_commit', 'off', true), pg_notify('faultproof', message)
              FROM unnest(%s::text[]) AS message"""
_TOPIC_BYTES_MAX = 4_000  # the server takes 8,000

Connect = Callable[[], Awaitable[Raw]]
Look = Callable[[Sequence[str]], Awaitable[list[str]]]


class Wakeups:
    """Carries topics from commits to listeners."""

    def __init__(self, env: Env, connect: Connect, look: Look, *, poll_s: float, hears: bool) -> None:
        """`look`: which of these topics may have news that nobody told of. `hears`: LISTEN does not work through a pooler."""
        self._env = env
        self._connect = connect
        self._look = look
        self._poll_s = poll_s
        self._hears = hears
        self._me = env.ids.new()[:12]
        self._bells = Bells()
        self._pending: dict[str, None] = {}  # bounded: by the topics there are
        self._speaker: Raw | None = None
        self._sending: asyncio.Task[None] | None = None
        self._listening: list[asyncio.Task[None]] = []

    def listen(self, topic: str) -> News:
        """Hear of commits under `topic`."""
        if not self._listening:
            loop = asyncio.get_running_loop()
            self._listening = [loop.create_task(self._poll(), name="faultproof-poll")]
            if self._hears:
                self._listening.append(loop.create_task(self._hear(), name="faultproof-listen"))
        return self._bells.listen(topic)

    def send(self, topics: Iterable[str]) -> None:
        """Tell every listener in every process. Never waits and never fails."""
        topics = [topic for topic in topics if len(topic.encode()) <= _TOPIC_BYTES_MAX]
        self._bells.ring(topics)
        self._pending.update(dict.fromkeys(topics))
        if self._pending and (self._sending is None or self._sending.done()):
            self._sending = asyncio.get_running_loop().create_task(self._send(), name="faultproof-notify")

    async def close(self) -> None:
        """Stop hearing and sending; what is under way is sent."""
        for task in self._listening:
            task.cancel()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=SEND_S)
            self._sending.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
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

    async def _hear(self) -> None:
        tries = 0
        while True:
            try:
                raw = await self._connect()
                try:
                    await raw.execute(b"LISTEN faultproof")
                    tries = 0
                    self._bells.ring_all()  # of what was committed before, nobody has told us
                    await self._until_lost(raw)
                finally:
                    await raw.close()
            except (psycopg.Error, FaultproofError):  # the poll goes on meanwhile
                pass
            await self._env.clock.sleep(
                full_jitter(tries, base=RECONNECT_BASE_S, cap=RECONNECT_CAP_S, rng=self._env.rng)
            )
            tries += 1

    async def _until_lost(self, raw: Raw) -> None:
        """Ring for what is heard. Between notifications nothing runs: the loop watches the socket."""
        loop = asyncio.get_running_loop()
        lost = loop.create_future()

        def readable() -> None:
            try:
                raw.pgconn.consume_input()
                while (message := raw.pgconn.notifies()) is not None:
                    self._heard(message.extra.decode(errors="replace"))
            except psycopg.Error:
                pass
            if raw.pgconn.status != ConnStatus.OK and not lost.done():
                lost.set_result(None)

        socket = raw.pgconn.socket
        loop.add_reader(socket, readable)
        try:
            readable()
            await lost  # unbounded: the server ends it, or the kernel when it finds nobody there (keepalives)
        finally:
            loop.remove_reader(socket)

    def _heard(self, message: str) -> None:
        sender, _, topic = message.partition(" ")
        if sender != self._me:  # rung at the commit already
            self._bells.ring([topic])

    async def _poll(self) -> None:
        clock, rng = self._env.clock, self._env.rng
        while True:
            await clock.sleep(self._poll_s * (0.9 + 0.1 * rng.random()))
            with suppress(FaultproofError):
                self._bells.ring(await self._look(self._bells.topics))

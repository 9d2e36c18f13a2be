"""Telling and hearing of commits: one thread with one connection, which also looks for itself where nobody tells.

A thread, and libpq's own blocking calls: through the event loop and a cursor a look took five times as much of the
processor, and a notification kept the loop, and whoever waited for the interpreter's lock, from the next transaction.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg import pq

from faultproof.clock import Rng
from faultproof.engines.postgres.floor import Floors
from faultproof.engines.postgres.looking import UNPREPARED_S, Commits, Intakes, Looking, column
from faultproof.primitives.retry import full_jitter

SPACING_S = 0.005
"""Between two notifications of one process: under load they would be as many as commits, and each is a transaction."""
RECONNECT_BASE_S = 0.05
RECONNECT_CAP_S = 5.0
JOIN_S = 1.0
_ASK_S = 0.001
"""How often to ask whether a commit that is under way has ended."""
_COMMIT_S = 5.0
"""After so long it is taken for lost, or so slow that the looking will see it."""
_UNENDED_MAX = 1_000
_NEVER = float("inf")

# Without waiting for the disk: lost with the server's memory, it would be news of what everybody has to look for anyway.
_NOTIFY = b"""SELECT set_config('synchronous_commit', 'off', true), pg_notify('faultproof', message)
              FROM jsonb_array_elements_text($1::jsonb) AS message"""


class _Unended(NamedTuple):
    """News of a commit that is still under way."""

    topics: Sequence[str]
    has_ended: Callable[[], bool]
    until: float


class Line:
    """Connects when it is first needed, and again whenever the connection is lost, until it is closed."""

    def __init__(
        self,
        conninfo: str,
        me: str,
        heard: Callable[[str], None],
        topics: Callable[[], Sequence[str]],
        ring: Callable[[Sequence[str]], None],
        floors: Floors,
        *,
        poll_s: float,
        rng: Rng,
        hears: bool,
    ) -> None:
        """`me`: what stands before each topic that is told. `heard`, `topics` and `ring` are called in the thread. `floors`: of
        the logs that this process sequences; a process that stands by does not look. `hears`: LISTEN works, as it does not
        through a pooler."""
        self._conninfo = conninfo
        self._me = me
        self._heard = heard
        self._topics = topics
        self._ring = ring
        self._rng = rng
        self._pause_s = poll_s * (0.9 + 0.1 * rng.random())  # of its own in each process, so that they drift apart
        self._hears = hears
        self._looking: Looking = Intakes(topics, floors) if hears else Commits(topics)
        self._lock = threading.Lock()
        self._untold: dict[str, None] = {}  # bounded: by the topics there are
        self._unended: deque[_Unended] = deque(maxlen=_UNENDED_MAX)
        self._listens = False
        self._called = False
        """The thread has been called, and has not looked since for what there is to do."""
        self._closed = False
        self._calls, self._call = os.pipe()
        self._thread = threading.Thread(target=self._run, name="faultproof-line", daemon=True)
        self._thread.start()

    # -- in any thread ----------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """From now on hear, and look."""
        if not self._listens:
            self._listens = True
            self._wake()

    def tell(self, topics: Sequence[str]) -> None:
        """Tell every other process that listens. Never waits and never fails."""
        with self._lock:
            self._untold.update(dict.fromkeys(topics))
        self._wake()

    def tell_after(self, topics: Sequence[str], has_ended: Callable[[], bool]) -> None:
        """The same, and ring in this process, when `has_ended` says so; after some seconds it is forgotten."""
        self._unended.append(_Unended(topics, has_ended, time.monotonic() + _COMMIT_S))
        self._wake()

    def close(self) -> None:
        """Tell what is left, and stop; a thread that is connecting finds out when that has ended."""
        with self._lock:
            if not self._closed:
                os.close(self._call)
            self._closed = True
        self._thread.join(JOIN_S)

    def _wake(self) -> None:
        with self._lock:
            if not self._called and not self._closed:
                self._called = True
                os.write(self._call, b".")

    # -- in its own -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        tries, delay = 0, 0.0
        try:
            # Whoever commits and closes at once has something to tell before there was a connection.
            while not self._closes_within(delay) or (self._untold and not tries):
                tries += 1
                with suppress(psycopg.Error), psycopg.connect(self._conninfo, autocommit=True) as raw:
                    tries = 0
                    self._attend(raw)
                    return
                delay = full_jitter(tries, base=RECONNECT_BASE_S, cap=RECONNECT_CAP_S, rng=self._rng)
        finally:
            os.close(self._calls)

    def _attend(self, raw: psycopg.Connection[Any]) -> None:
        """Returns when it is closed."""
        pgconn, look_at, tell_at = raw.pgconn, _NEVER, 0.0
        ready = select.poll()  # not `select`, which takes no descriptor above a thousand
        ready.register(pgconn.socket, select.POLLIN)
        ready.register(self._calls, select.POLLIN)
        prepared = self._hears and column(pgconn.prepare(b"tell", _NOTIFY), pgconn) is not None
        self._looking.begin()
        listening = closed = False
        while True:
            now = time.monotonic()
            if self._listens and not listening:
                listening, look_at = True, now
                if self._hears:
                    raw.execute(b"LISTEN faultproof", prepare=False)
                self._ring(self._topics())  # of what was committed before, nobody has told us
            if closed or now >= tell_at:
                tell_at = now + SPACING_S if self._tell(pgconn, prepared=prepared) else 0.0
            if closed:
                return
            if now >= look_at:
                look_at = now + self._look(pgconn)
            while (message := pgconn.notifies()) is not None:
                self._heard(message.extra.decode(errors="replace"))
            for source, _ in ready.poll(self._rest_ms(look_at, tell_at)):
                if source == self._calls:
                    closed = not os.read(self._calls, 1)
                else:
                    pgconn.consume_input()  # raises where the server has ended the connection

    def _rest_ms(self, look_at: float, tell_at: float) -> float | None:
        """Until somebody calls, or something is heard, or there is something to do."""
        until = min(look_at, tell_at if self._called else _NEVER)
        if self._unended:
            until = min(until, max(tell_at, time.monotonic() + _ASK_S))
        return None if until == _NEVER else max(0.0, (until - time.monotonic()) * 1_000)

    def _tell(self, pgconn: pq.abc.PGconn, *, prepared: bool) -> bool:
        """Send what there is to send; False if that was nothing."""
        with self._lock:
            self._called = False
            topics, self._untold = self._untold, {}
        for _ in range(len(self._unended)):
            news = self._unended.popleft()
            if _says_yes(news.has_ended):
                self._ring(news.topics)
                topics.update(dict.fromkeys(news.topics))
            elif time.monotonic() < news.until:
                self._unended.append(news)
        if topics:
            try:
                self._notify(pgconn, [f"{self._me} {topic}" for topic in topics], prepared=prepared)
            except psycopg.Error:
                with self._lock:  # on the next connection
                    self._untold = topics | self._untold
                raise
        return bool(topics)

    def _notify(self, pgconn: pq.abc.PGconn, messages: list[str], *, prepared: bool) -> None:
        values = [msgspec.json.encode(messages)]
        column(pgconn.exec_prepared(b"tell", values) if prepared else pgconn.exec_params(_NOTIFY, values), pgconn)

    def _look(self, pgconn: pq.abc.PGconn) -> float:
        """Ring for news that nobody told of; how many seconds until the next look."""
        news = self._looking.look(pgconn)
        if news is None:
            return UNPREPARED_S
        if news:
            self._ring(news)
        return self._pause_s

    def _closes_within(self, seconds: float) -> bool:
        """Whether it is closed, after waiting for that so long."""
        ready, until = select.poll(), time.monotonic() + seconds
        ready.register(self._calls, select.POLLIN)
        while ready.poll(max(0.0, (until - time.monotonic()) * 1_000)):
            if not os.read(self._calls, 1):
                return True
        return False


def _says_yes(question: Callable[[], bool]) -> bool:
    """A question of whoever committed, who may have closed what it asks: then nothing is waited for."""
    try:
        return question()
    except Exception:
        return True

"""Hearing of commits: one thread with one connection that listens, and looks for itself where nobody tells.

A thread, and libpq's own blocking calls, because the look comes twenty times a second in a process that otherwise
rests: through the event loop and a cursor it took five times as much of the processor.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import pq

from faultproof.clock import Rng
from faultproof.engines.postgres.floor import Floors
from faultproof.engines.values import encode_set
from faultproof.ports.log import intake_topic, logs_among
from faultproof.primitives.retry import full_jitter

RECONNECT_BASE_S = 0.05
RECONNECT_CAP_S = 5.0
UNPREPARED_S = 1.0
"""How long not to look after a look has failed: the tables are not installed yet, or not for this role."""
JOIN_S = 1.0
_SAME_QUESTIONS = 16
"""So often the same is asked before it is looked at which logs there are to ask for."""

# A raw connection of the user's tells nobody what it wrote into an intake; all else is written by who tells.
_WAITING = b"""SELECT asked ->> 0 FROM jsonb_array_elements($1::jsonb) AS asked
               WHERE (SELECT min(id) FROM faultproof_intake
                      WHERE log = asked ->> 0 AND due_us = 0 AND id > (asked ->> 1)::bigint) IS NOT NULL"""
# Where nothing can be heard: any commit that wrote something, in any database of the server, changes it.
_COMMITS = b"SELECT pg_current_snapshot()::text"

Raw = psycopg.Connection[tuple[Any, ...]]


class Ear:
    """Listens and looks until it is closed; whatever goes wrong, it goes on by connecting again."""

    def __init__(
        self,
        conninfo: str,
        heard: Callable[[str], None],
        topics: Callable[[], Sequence[str]],
        ring: Callable[[Sequence[str]], None],
        floors: Floors,
        *,
        poll_s: float,
        rng: Rng,
        hears: bool,
    ) -> None:
        """`heard`, `topics` and `ring` are called in the thread. `floors`: of the logs that this process sequences; a process
        that stands by does not look. `hears`: LISTEN works, as it does not through a pooler."""
        self._conninfo = conninfo
        self._heard = heard
        self._topics = topics
        self._ring = ring
        self._floors = floors
        self._rng = rng
        self._pause_s = poll_s * (0.9 + 0.1 * rng.random())  # of its own in each process, so that they drift apart
        self._hears = hears
        self._seen = ""
        self._prepared = False
        self._question = b""
        """What is asked of the server: a floor that has risen since costs it a little, and us nothing."""
        self._looks = 0
        self._closing, self._close = os.pipe()
        self._thread = threading.Thread(target=self._run, name="faultproof-ear", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a thread that is connecting finds out when that has ended."""
        os.close(self._close)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        tries = 0
        try:
            while not self._is_closed(full_jitter(tries, base=RECONNECT_BASE_S, cap=RECONNECT_CAP_S, rng=self._rng)):
                tries += 1
                with suppress(psycopg.Error), psycopg.connect(self._conninfo, autocommit=True) as raw:
                    if self._hears:
                        raw.execute(b"LISTEN faultproof", prepare=False)
                    tries, self._prepared = 0, False
                    self._ring(self._topics())  # of what was committed before, nobody has told us
                    self._attend(raw)
                    return
        finally:
            os.close(self._closing)

    def _attend(self, raw: Raw) -> None:
        """Returns when it is closed."""
        pgconn, due = raw.pgconn, 0.0
        sources = [pgconn.socket, self._closing]
        while True:
            now = time.monotonic()
            if now >= due:
                due = now + self._look(raw)
            while (message := pgconn.notifies()) is not None:
                self._heard(message.extra.decode(errors="replace"))
            ready, _, _ = select.select(sources, (), (), max(0.0, due - now))
            if ready:
                if self._closing in ready:
                    return
                pgconn.consume_input()  # raises where the server has ended the connection

    def _look(self, raw: Raw) -> float:
        """Ring for news that nobody told of; how many seconds until the next look."""
        news = self._waiting(raw.pgconn) if self._hears else self._commits(raw.pgconn)
        if news is None:
            return UNPREPARED_S
        if news:
            self._ring(news)
        return self._pause_s

    def _commits(self, pgconn: pq.abc.PGconn) -> Sequence[str]:
        """All topics, if anything has been committed at all."""
        (now,) = _column(pgconn.exec_(_COMMITS), pgconn) or [""]
        before, self._seen = self._seen, now
        return [] if now == before else self._topics()

    def _waiting(self, pgconn: pq.abc.PGconn) -> Sequence[str] | None:
        """Topics of intakes in which something waits; None where it cannot be told."""
        self._looks = (self._looks + 1) % _SAME_QUESTIONS
        if not self._question or not self._looks:
            logs = self._floors.known(logs_among(self._topics()))
            self._question = encode_set(logs).encode() if logs else b""
        if not self._question:
            return []
        if not self._prepared:
            self._prepared = _column(pgconn.prepare(b"look", _WAITING), pgconn) is not None
            if not self._prepared:
                return None
        result = pgconn.exec_prepared(b"look", [self._question])
        if result.status == pq.ExecStatus.TUPLES_OK and not result.ntuples:
            return []  # nearly always; a process that rests does little else
        self._question = b""
        waiting = _column(result, pgconn)
        return None if waiting is None else [intake_topic(log) for log in waiting]

    def _is_closed(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._closing], [], [], seconds)
        return bool(ready)


def _column(result: pq.abc.PGresult, pgconn: pq.abc.PGconn) -> list[str] | None:
    """The first column's texts, or None if the server refused. Raises `OperationalError` when the connection is lost."""
    if pgconn.status != pq.ConnStatus.OK:
        raise psycopg.OperationalError("the connection is lost")
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        return None
    return [(result.get_value(row, 0) or b"").decode() for row in range(result.ntuples)]

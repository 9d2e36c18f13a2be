"""Looking for commits that nobody told of, through a connection of libpq's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import psycopg
from psycopg import pq

from faultproof.engines.postgres.floor import Floors
from faultproof.engines.values import encode_set
from faultproof.ports.log import intake_topic, logs_among

UNPREPARED_S = 1.0
"""How long not to look after a look has failed: the tables are not installed yet, or not for this role."""
_SAME_QUESTIONS = 16
"""So often the same is asked before it is looked at which logs there are to ask for."""

# A raw connection of the user's tells nobody what it wrote into an intake; all else is written by who tells.
_WAITING = b"""SELECT asked ->> 0 FROM jsonb_array_elements($1::jsonb) AS asked
               WHERE (SELECT min(id) FROM faultproof_intake
                      WHERE log = asked ->> 0 AND due_us = 0 AND id > (asked ->> 1)::bigint) IS NOT NULL"""
_COMMITS = b"SELECT pg_current_snapshot()::text"


class Looking(Protocol):
    """One way to look."""

    def begin(self) -> None:
        """The connection is another one from now on."""
        ...

    def look(self, pgconn: pq.abc.PGconn) -> Sequence[str] | None:
        """Topics with news; None where it cannot be told."""
        ...


class Commits:
    """Where nothing can be heard: any commit that wrote something, in any database of the server, is news of everything."""

    def __init__(self, topics: Callable[[], Sequence[str]]) -> None:
        self._topics = topics
        self._seen = ""

    def begin(self) -> None: ...

    def look(self, pgconn: pq.abc.PGconn) -> Sequence[str]:
        (now,) = column(pgconn.exec_(_COMMITS), pgconn) or [""]
        before, self._seen = self._seen, now
        return [] if now == before else self._topics()


class Intakes:
    """Whether anything waits in the intakes that this process sequences."""

    def __init__(self, topics: Callable[[], Sequence[str]], floors: Floors) -> None:
        self._topics = topics
        self._floors = floors
        self._prepared = False
        self._question = b""
        """What is asked of the server: a floor that has risen since costs it a little, and us nothing."""
        self._looks = 0

    def begin(self) -> None:
        self._prepared = False

    def look(self, pgconn: pq.abc.PGconn) -> Sequence[str] | None:
        self._looks = (self._looks + 1) % _SAME_QUESTIONS
        if not self._question or not self._looks:
            logs = self._floors.known(logs_among(self._topics()))
            self._question = encode_set(logs).encode() if logs else b""
        if not self._question:
            return []
        if not self._prepared:
            self._prepared = column(pgconn.prepare(b"look", _WAITING), pgconn) is not None
            if not self._prepared:
                return None
        result = pgconn.exec_prepared(b"look", [self._question])
        if result.status == pq.ExecStatus.TUPLES_OK and not result.ntuples:
            return []  # nearly always; a process that rests does little else
        self._question = b""
        waiting = column(result, pgconn)
        return None if waiting is None else [intake_topic(log) for log in waiting]


def column(result: pq.abc.PGresult, pgconn: pq.abc.PGconn) -> list[str] | None:
    """The first column's texts, or None if the server refused. Raises `OperationalError` when the connection is lost."""
    if pgconn.status != pq.ConnStatus.OK:
        raise psycopg.OperationalError("the connection is lost")
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        return None
    return [(result.get_value(row, 0) or b"").decode() for row in range(result.ntuples)]

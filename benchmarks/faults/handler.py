"""The job that every contender is given: an effect that cannot be taken back, and then, sometimes, the end."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Any, LiteralString

import msgspec

from benchmarks.faults.model import Trial

_GATHERED_S = 60.0
_AWAY_S = 30.0
"""How long the server may be away."""
_STOPPED_S = 200.0
"""Some contenders have one worker do everything until it is stopped, and then the next."""
_POLL_S = 0.02
_PRESENT: LiteralString = "SELECT count(*) FROM present"
_ENQUEUED: LiteralString = "SELECT count(*) FROM enqueued"
_STRUCK: LiteralString = "SELECT count(*) FROM strike"


class Handler:
    """See `Job`. In one process; its connection is its own, so what it writes commits whatever the library does.

    It connects again where the server was killed: that a handler fails is not what is tried here.
    """

    def __init__(self, url: str, process: str, life: int) -> None:
        import psycopg

        self._connect = partial(psycopg.connect, url, autocommit=True)
        self._lost = psycopg.OperationalError
        self._raw = self._connect()
        self._process = process
        self._life = life
        ((said,),) = self._asked("SELECT said FROM trial")
        self._trial = msgspec.json.decode(said, type=Trial)

    @property
    def process(self) -> str:
        return self._process

    def __call__(self, number: int) -> None:
        self._asked(
            "INSERT INTO effect (job, process, life) VALUES (%s, %s, %s) RETURNING n", number, self._process, self._life
        )
        self.strike(number)

    def strike(self, number: int) -> None:
        if not self._trial.strikes_at(number, self._process):
            return
        struck = self._asked(
            """INSERT INTO strike (job, process, life) SELECT %s, %s, %s WHERE (SELECT count(*) FROM strike) < %s
               ON CONFLICT DO NOTHING RETURNING job""",
            number,
            self._process,
            self._life,
            self._trial.strikes,
        )
        if not struck:  # it was, in an earlier attempt
            return
        if self._trial.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        _stop(self._trial.stop_s)

    def wait_for_all(self) -> None:
        """Wait until all workers are there, so that each gets some of the work, and all jobs; and those that are never
        stopped, for a while, until the others are.

        Raises `TimeoutError`.
        """
        trial = self._trial
        self._asked("INSERT INTO present VALUES (%s) ON CONFLICT DO NOTHING RETURNING process", self._process)
        wanted = len(trial.workers)
        if not self._until(_GATHERED_S, _PRESENT, wanted) or not self._until(_GATHERED_S, _ENQUEUED, 1):
            raise TimeoutError(f"not all of {wanted} workers and the producer came in {_GATHERED_S:.0f} s")
        if trial.fault == "stop" and not trial.strikes_at(0, self._process):
            self._until(_STOPPED_S, _STRUCK, trial.strikes)

    def _until(self, seconds: float, query: LiteralString, wanted: int) -> bool:
        """Whether it counts so many in this time."""
        deadline = time.monotonic() + seconds
        while self._asked(query)[0][0] < wanted:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    @property
    def trial(self) -> Trial:
        """What is done to this contender."""
        return self._trial

    def enqueued(self) -> None:
        """Say that all jobs are there."""
        self._asked("INSERT INTO enqueued DEFAULT VALUES RETURNING at")

    def is_enqueued(self) -> bool:
        """Whether an earlier life has said so."""
        return bool(self._asked("SELECT 1 FROM enqueued"))

    def count(self, query: str) -> int | None:
        """What it counts; None where its table is not there yet."""
        import psycopg

        try:
            return int(self._raw.execute(query.encode()).fetchall()[0][0])
        except psycopg.errors.UndefinedTable:
            return None

    def _asked(self, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        deadline = time.monotonic() + _AWAY_S
        while True:
            try:
                if self._raw.closed:
                    self._raw = self._connect()
                return self._raw.execute(statement, values).fetchall()
            except self._lost:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)


def _stop(seconds: float) -> None:
    """Stop this process, as a machine does that is suspended; a child continues it."""
    handle = os.pidfd_open(os.getpid())  # the number alone may be somebody else's by then
    if os.fork() == 0:
        try:
            time.sleep(seconds)
            signal.pidfd_send_signal(handle, signal.SIGCONT)
        finally:
            os._exit(0)
    os.close(handle)
    os.kill(os.getpid(), signal.SIGSTOP)

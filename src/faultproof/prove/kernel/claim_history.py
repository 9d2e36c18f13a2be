"""What became of each job, kept by those who work on it, and judged without asking the table of claims."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from faultproof.ports.script import sql
from faultproof.ports.statement import Changed
from faultproof.prove.proof import Evidence

ENDED = ("finished", "dead")

TABLE = """CREATE TABLE history (job TEXT NOT NULL, n BIGINT NOT NULL, what TEXT NOT NULL, token BIGINT NOT NULL,
                                 attempts BIGINT NOT NULL, at_us BIGINT NOT NULL, until_us BIGINT NOT NULL)"""


class Line(NamedTuple):
    """One thing that happened to a job, written in the transaction in which it did."""

    what: str
    token: int
    attempts: int
    at_us: int
    """Of "taken" and "renewed": when, by the engine's clock; otherwise 0."""
    until_us: int
    """Of those: the end of the lease, by the same clock."""


# A claim's row is locked by whoever writes about its job, so nobody else counts at the same time.
@sql(
    """INSERT INTO history (job, n, what, token, attempts, at_us, until_us)
       SELECT :job, (SELECT count(*) FROM history WHERE job = :job), :what, :token, :attempts, :at_us, :until_us"""
)
def write(job: str, what: str, token: int, attempts: int, at_us: int, until_us: int) -> None: ...


# A release says nothing when others have taken over, and has changed nothing then.
@sql(
    """INSERT INTO history (job, n, what, token, attempts, at_us, until_us)
       SELECT :job, (SELECT count(*) FROM history WHERE job = :job), :what, :token, 0, 0, 0
       WHERE :token = (SELECT max(token) FROM history WHERE job = :job)"""
)
def write_if_latest(job: str, what: str, token: int) -> Changed: ...


@sql("SELECT count(*) FROM history WHERE job = :job AND what = :what")
def count(job: str, what: str) -> int: ...


class Job:
    """One job as the promises say it must go: feed it the lines, in order, and it says what is wrong."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = "unknown"
        self._token = 0
        self._attempts = 0
        self._until_us = 0

    def read(self, line: Line) -> Iterable[str]:
        """The next thing that happened; a sentence for whatever is not as promised."""
        match line.what:
            case "added":
                yield from self._added()
            case "hastened":
                self._state = "free"
            case "taken":
                yield from self._taken(line)
            case _:
                yield from self._by_holder(line)

    def _added(self) -> Iterable[str]:
        if self._state not in ("unknown", "finished"):
            yield f"{self._name} was added while it was {self._state}"
        self._state = "later" if self._name.startswith("later") else "free"
        self._attempts = 0

    def _taken(self, line: Line) -> Iterable[str]:
        if self._state == "held" and line.at_us < self._until_us:
            yield f"{self._name} was taken {self._until_us - line.at_us} us before the lease of token {self._token} ended"
        if self._state not in ("free", "held"):
            yield f"{self._name} was taken while it was {self._state}"
        if line.token <= self._token:
            yield f"{self._name} was taken with token {line.token} after token {self._token}"
        self._attempts += 1
        if line.attempts != self._attempts:
            yield f"attempt {self._attempts} at {self._name} was counted as {line.attempts}"
        self._state, self._token, self._until_us = "held", max(line.token, self._token), line.until_us

    def _by_holder(self, line: Line) -> Iterable[str]:
        """Only the last who took the job may do anything to it, and only until that ends."""
        if self._state != "held" or line.token != self._token:
            yield (
                f"{self._name} was {line.what} with token {line.token} while it was {self._state} with token {self._token}"
            )
        if line.what == "renewed":
            self._until_us = line.until_us
        elif line.what in ("failed", "released"):
            self._state = "free"
            self._attempts = 0 if line.what == "released" else self._attempts
        elif line.what in ENDED:
            self._state = line.what


def wrong(evidence: Evidence) -> list[str]:
    """Whatever in the history is not as the port promises."""
    lines = defaultdict[str, list[Line]](list)
    for job, *line in evidence.fetch("SELECT job, what, token, attempts, at_us, until_us FROM history ORDER BY job, n"):
        lines[job].append(Line(*line))
    jobs = ((Job(name), history) for name, history in lines.items())
    return list(chain.from_iterable(job.read(line) for job, history in jobs for line in history))

"""What became of each job, kept by those who work on it, and judged without asking the table of claims."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from faultproof.ports.claims import Holder
from faultproof.ports.script import sql
from faultproof.ports.statement import Changed
from faultproof.prove.proof import Evidence

ENDED = ("finished", "dead")

TABLE = """CREATE TABLE history (job TEXT, n BIGINT, what TEXT, token BIGINT, attempts BIGINT, at_us BIGINT,
                                 until_us BIGINT)"""


class Line(NamedTuple):
    """One thing that happened to a job, written in the transaction in which it did."""

    what: str
    token: int
    attempts: int
    at_us: int
    """Of "taken" and "renewed": when, by the engine's clock; otherwise 0."""
    until_us: int
    """Of those, and of "looked at": the end of the lease, by the same clock."""


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
                yield from self._hastened()
            case "looked at":
                if line.until_us != self._until_us:
                    yield f"the lease of {self._name} ends at {line.until_us}, and not at {self._until_us} as was said"
            case "misjudged":
                yield f"{self._name} was shown in a state that it is not in"
            case "taken":
                yield from self._taken(line)
            case _:
                yield from self._by_holder(line)

    def _added(self) -> Iterable[str]:
        if self._state not in ("unknown", "finished"):
            yield f"{self._name} was added while it was {self._state}"
        self._state = "later" if self._name.startswith("later") else "free"
        self._attempts = 0

    def _hastened(self) -> Iterable[str]:
        if self._state == "dead":
            yield f"{self._name} was hastened when it had been given up"
        self._state = "free"

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


def is_misjudged(row: Holder, one_us: int, other_us: int, *, is_dead: bool) -> bool:
    """Whether a row was shown in another state than it was in, at some moment between these two."""
    before_us, after_us = sorted((one_us, other_us))  # a clock may have been put back
    if row.owner is None:
        return row.state != ("dead" if is_dead else "free")
    if row.until_us <= before_us:
        return row.state != "free"
    return row.until_us > after_us and row.state != "held"


def broken_words(evidence: Evidence) -> list[str]:
    """What a worker was told has become of its job, and has not; and tokens that were given to two."""
    written = {tuple(row) for row in evidence.fetch("SELECT job, what, token FROM history")}
    told = [facts for kind, *facts in evidence.notes if kind == "told"]
    took = Counter(facts[0] for kind, *facts in evidence.notes if kind == "took")
    return [f"two were told that they had {claim}" for claim, count in took.items() if count > 1] + [
        f"of {job} with token {token} it was said: {what}"
        for job, what, token in told
        if (job, what, token) not in written
    ]


def wrong_refusals(evidence: Evidence) -> list[str]:
    """Nobody is refused what is his: each refusal has a successor."""
    latest = dict(evidence.fetch("SELECT job, max(token) FROM history GROUP BY job"))
    return [
        f"{owner} was refused {job} with token {token}, which was the last"
        for kind, *facts in evidence.notes
        if kind == "refused"
        for owner, job, token in [facts]
        if latest[job] <= token
    ]

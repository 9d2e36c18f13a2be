"""Judging a run from outside while it goes on, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from faultproof.prove.live.ground import Away, Checker, Place
from faultproof.prove.live.history import History, Reader, encodable
from faultproof.prove.live.options import HEAL_S
from faultproof.prove.live.services import Outside
from faultproof.prove.proof import Always, Eventually, Evidence, Proof

T = TypeVar("T")

_AGAIN_S = 0.05


class Seen:
    """Evidence of one moment. What was told is read before the database: whoever tells of a commit does it behind it, so
    everything that was told of is there."""

    def __init__(self, notes: Sequence[tuple[Any, ...]], outside: Mapping[str, Any], checker: Checker) -> None:
        self.notes = notes
        self.outside = outside
        self.queries: dict[str, list[tuple[Any, ...]]] = {}
        """Every query with its rows."""
        self._checker = checker

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        rows = self.queries[sql] = self._checker.fetch(sql)
        return rows


class Judge:
    """Looks into one place. Used in one thread."""

    def __init__(self, proof: Proof, place: Place, services: Outside, reader: Reader) -> None:
        self._proof = proof
        self._place = place
        self._services = services
        self._reader = reader
        self._checker: Checker | None = None
        self._last: Seen | None = None

    def is_done(self) -> bool:
        """Whether everything that was asked for has happened. False where the server is away."""
        seen = self._seen()
        return seen is not None and bool(self._asked(lambda: self._proof.done(seen)))

    def always(self) -> list[str]:
        """What does not hold that must hold always."""
        return (self._wrong(self._proof.always) or []) if self._proof.always else []

    def eventually(self, within_s: float = HEAL_S) -> list[str]:
        """What does not hold although all work is done, after a while in which it may still come true."""
        deadline = time.monotonic() + within_s
        while True:
            wrong = self._wrong((*self._proof.always, *self._proof.eventually))
            if wrong == []:
                return wrong
            if time.monotonic() > deadline:
                return ["the database could not be reached to judge it"] if wrong is None else wrong
            time.sleep(_AGAIN_S)

    def seen(self) -> set[str]:
        """Which of what must happen sometimes has happened in this run."""
        seen = self._seen()
        if seen is None:
            return set()
        return {each.claim for each in self._proof.sometimes if self._asked(partial(each.happened, seen))}

    def server_began(self) -> object:
        """Since when PostgreSQL's server runs; None where it is away."""
        self._seen()
        checker = self._checker
        return None if checker is None else self._asked(lambda: checker.fetch("SELECT pg_postmaster_start_time()"))

    def save(self, history: History) -> None:
        """Write down what the last judgement saw, so that it can be repeated from the file."""
        history.add(outside=self._services.state())
        for query, rows in (self._last.queries if self._last is not None else {}).items():
            history.add(query=query, rows=encodable(rows))

    def close(self) -> None:
        """Let go of the database; the next look connects again."""
        if self._checker is not None:
            self._checker.close()
            self._checker = None

    def _seen(self) -> Seen | None:
        notes = list(self._reader.read_on().notes)
        outside = self._services.state()
        if self._checker is None:
            self._checker = self._asked(self._place.checker)
        return None if self._checker is None else Seen(notes, outside, self._checker)

    def _wrong(self, properties: Sequence[Always | Eventually]) -> list[str] | None:
        """What they say, all of the same moment."""
        seen, checker = self._seen(), self._checker
        if seen is None or checker is None:
            return None

        def judged() -> list[str]:
            with checker.snapshot():
                return [sentence for each in properties for sentence in each.wrong(seen)]

        wrong = self._asked(judged)
        self._last = seen
        return wrong

    def _asked(self, question: Callable[[], T]) -> T | None:
        """The answer; None where the database is away for the moment."""
        try:
            return question()
        except Away:
            self.close()
            return None


def judged_again(proof: Proof, evidence: Evidence) -> list[str]:
    """What is wrong with a run that was saved (`load_evidence`), by the proof as it is now."""
    properties: tuple[Always | Eventually, ...] = (*proof.always, *proof.eventually)
    return [sentence for each in properties for sentence in each.wrong(evidence)]

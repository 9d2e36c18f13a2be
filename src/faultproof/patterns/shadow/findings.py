"""What a shadow has found out so far: counts, latencies, and where answers differ more often than they do by themselves."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from faultproof.patterns.shadow.diff import Diff, Difference, Redacted
from faultproof.patterns.shadow.policy import ShadowPolicy

LATENCIES = 1_000
"""The latest so many decide about quantiles."""
ERRORS_MAX = 50
"""Kinds of errors that are kept apart."""
SETS_MAX = 500
"""Sets of paths in which one request differed."""
OTHERS = "(others)"
OUTCOME = "(outcome)"
"""The place of a difference between an answer and an error, or between errors of two kinds."""
SIGMAS = 3.0
"""Noise that differs from run to run is told from a change when it would differ so much once in 700 times."""


class PathFindings(NamedTuple):
    """One place in which answers differ."""

    path: str
    differences: int
    """Requests of which the candidate's answer differs here from the primary's …"""
    noise: int
    """… and of which the control's does, of those that it got."""
    expected: float
    """Differences that noise alone would make."""
    is_noise: bool
    """Whether they are no more than that."""
    samples: tuple[Redacted, ...]


class Side(NamedTuple):
    """How one of the two fared."""

    answers: int
    errors: Mapping[str, int]
    """By class."""
    timeouts: int
    p50_s: float | None
    """Of the last 1,000 that ended; a timeout is longer than any. None while there are none."""
    p95_s: float | None
    p99_s: float | None


class ShadowReport(NamedTuple):
    """A shadow at this moment."""

    offered: int
    mirrored: int
    """Requests that the candidate was given, and that ended in some way."""
    compared: int
    differing: int
    """Of the compared ones, those that differ anywhere …"""
    different: int
    """… and those that do in a place that is not noise."""
    controlled: int
    """Of the compared ones, those that the control answered as well …"""
    noisy: int
    """… and of these, those of which it did so otherwise than the primary."""
    dropped: Mapping[str, int]
    """Requests that were to be mirrored, and were not, by reason."""
    primary: Side
    candidate: Side
    paths: tuple[PathFindings, ...]
    """The most differences first."""
    waiting: int
    running: int
    left: int
    """Calls of the candidate that were cancelled, and have not ended."""

    @property
    def same(self) -> int:
        """Compared requests without any difference."""
        return self.compared - self.differing


class Ended(NamedTuple):
    """What became of a call: an answer, the class of an error, or (neither) a timeout."""

    answer: Any
    error: str | None
    took_s: float | None
    is_timeout: bool = False


class _Fared:
    def __init__(self) -> None:
        self.answers = 0
        self.timeouts = 0
        self.errors: Counter[str] = Counter()
        self.latencies: deque[float] = deque(maxlen=LATENCIES)

    def add(self, ended: Ended) -> None:
        if ended.is_timeout:
            self.timeouts += 1
            self.latencies.append(math.inf)
            return
        if ended.error is None:
            self.answers += 1
        else:
            self.errors[ended.error if ended.error in self.errors or len(self.errors) < ERRORS_MAX else OTHERS] += 1
        if ended.took_s is not None:
            self.latencies.append(ended.took_s)

    def side(self) -> Side:
        took = sorted(self.latencies)
        p50, p95, p99 = (took[min(int(q * len(took)), len(took) - 1)] if took else None for q in (0.5, 0.95, 0.99))
        return Side(self.answers, dict(self.errors), self.timeouts, p50, p95, p99)


class Findings:
    """Counts, in bounded memory."""

    def __init__(self, policy: ShadowPolicy, diff: Diff, salt: bytes) -> None:
        self._policy = policy
        self._diff = diff
        self._salt = salt
        self.dropped: Counter[str] = Counter()
        self.mirrored = self.compared = self.controlled = self.noisy = 0
        self._primary, self._candidate = _Fared(), _Fared()
        self._raw: Counter[str] = Counter()
        self._noise: Counter[str] = Counter()
        self._known: set[str] = set()
        self._samples: dict[str, list[Redacted]] = {}
        self._together: Counter[frozenset[str]] = Counter()

    def ended(self, primary: Ended, candidate: Ended) -> None:
        """Both have ended in some way."""
        self.mirrored += 1
        self._primary.add(primary)
        self._candidate.add(candidate)

    def compare(self, primary: Ended, candidate: Ended, control: Ended | None) -> bool:
        """Whether the candidate's answer differs anywhere. Raises `TypeError` where they cannot be compared."""
        differences = self._between(primary, candidate)
        noise = [] if control is None else self._between(primary, control)
        self.compared += 1
        if control is not None:
            self.controlled += 1
            self.noisy += bool(noise)
            for path in self._names(noise):
                self._noise[path] += 1
        if not differences:
            return False
        together = self._names(differences)
        for path in together:
            self._raw[path] += 1
        fits = together in self._together or len(self._together) < SETS_MAX
        self._together[together if fits else frozenset([OTHERS])] += 1
        for difference in differences:
            samples = self._samples.setdefault(self._name(difference), [])
            if len(samples) < self._policy.samples:
                samples.append(self._diff.redacted(difference, self._salt))
        return True

    def report(self, *, offered: int, waiting: int, running: int, left: int) -> ShadowReport:
        """Everything so far."""
        paths = tuple(self._path(path, count) for path, count in self._raw.most_common())
        real = {each.path for each in paths if not each.is_noise} | {OTHERS}
        return ShadowReport(
            offered=offered,
            mirrored=self.mirrored,
            compared=self.compared,
            differing=self._together.total(),
            different=sum(count for together, count in self._together.items() if together & real),
            controlled=self.controlled,
            noisy=self.noisy,
            dropped=dict(self.dropped),
            primary=self._primary.side(),
            candidate=self._candidate.side(),
            paths=paths,
            waiting=waiting,
            running=running,
            left=left,
        )

    def _between(self, one: Ended, other: Ended) -> list[Difference]:
        if one.error is None and other.error is None:
            return self._diff.compare(one.answer, other.answer)
        if one.error == other.error:
            return []
        return [Difference(OUTCOME, "outcome", one.error, other.error)]

    def _names(self, differences: Iterable[Difference]) -> frozenset[str]:
        return frozenset(self._name(difference) for difference in differences)

    def _name(self, difference: Difference) -> str:
        path = difference.path
        if path not in self._known:
            if len(self._known) >= self._policy.paths:
                return OTHERS
            self._known.add(path)
        return path

    def _path(self, path: str, differences: int) -> PathFindings:
        noise = self._noise[path]
        expected = noise * self.compared / self.controlled if noise else 0.0
        return PathFindings(
            path,
            differences,
            noise,
            expected,
            is_noise(differences, self.compared, noise, self.controlled),
            tuple(self._samples.get(path, ())),
        )


def is_noise(differences: int, compared: int, noise: int, controlled: int) -> bool:
    """Whether a place differs between primary and candidate no more often than between the primary and itself.

    Where these two never differed there, it is no noise. Otherwise by the difference of two proportions: more than three of
    its standard deviations above.
    """
    if not noise:
        return False
    ours, itself = differences / compared, noise / controlled
    together = (differences + noise) / (compared + controlled)
    deviation = math.sqrt(together * (1 - together) * (1 / compared + 1 / controlled))
    return ours - itself <= SIGMAS * deviation

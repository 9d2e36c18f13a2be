"""The choice tape: everything that is not determined in a simulated run, as one short list of numbers.

Each time the world has a choice (which input or output completes next, which fault strikes, what a random number is) it
asks the tape for a number below n. Zero is always the dull answer: the oldest operation, no fault, the middle of the
range. So a tape is sparse, `{position: value}` for the answers that are not zero, and shrinking is deleting entries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations


@dataclass
class Tape:
    """Answers by position; past the given ones zero, or random if `rng` is set. Records what it answered."""

    given: Mapping[int, int] = field(default_factory=dict)
    rng: random.Random | None = None
    chance: float = 0.0
    """With `rng`: the probability that a fault strikes at a point that offers one."""
    priorities: Priorities | None = None
    """Whose operation comes next, instead of anybody's."""
    position: int = 0
    answers: dict[int, int] = field(default_factory=dict)

    def is_dull(self) -> bool:
        """Whether the next answer is zero, whatever is asked."""
        return self.rng is None and self.position not in self.given

    def choose(self, n: int) -> int:
        """A number below n."""
        position = self.position
        self.position = position + 1
        given = self.given.get(position)
        if given is not None:
            answer = given % n
        elif self.rng is None:
            return 0
        else:
            answer = self.rng.randrange(n)
        if answer:
            self.answers[position] = answer
        return answer

    def fault(self, kinds: Sequence[int]) -> int:
        """One of the kinds, or zero: without given answers one strikes with probability `chance` only."""
        position = self.position
        self.position = position + 1
        given = self.given.get(position)
        if given is not None:
            answer = given if given in kinds else 0
        elif self.rng is None or not kinds or self.rng.random() >= self.chance:
            return 0
        else:
            answer = kinds[self.rng.randrange(len(kinds))]
        if answer:
            self.answers[position] = answer
        return answer

    def pick(self, names: Sequence[str]) -> int:
        """Whose operation is next: by priority if there are `priorities`, or else like any other choice."""
        if self.priorities is None or self.position in self.given:
            return self.choose(len(names))
        answer = self.priorities.pick(names)
        if answer:
            self.answers[self.position] = answer
        self.position += 1
        return answer


class Priorities:
    """Whose turn it is, with a bound on how often that changes.

    Probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi, Nagarakatte: A Randomized Scheduler with Probabilistic
    Guarantees of Finding Bugs, ASPLOS 2010): everybody has a random priority, the highest runs, and at `depth` - 1 steps
    picked beforehand whoever runs falls below all others. A bug that `depth` ordered events cause, in a run of `length` steps
    of n processes, is found with a probability of at least 1 / (n * length ** (depth - 1)).
    """

    def __init__(self, rng: random.Random, *, depth: int, length: int) -> None:
        self._rng = rng
        self._falls = {rng.randrange(max(length, 1)) for _ in range(depth - 1)}
        self._of: dict[str, float] = {}
        self._step = 0

    def pick(self, names: Sequence[str]) -> int:
        """The index of the name with the highest priority; of several the first."""
        for name in names:
            self._of.setdefault(name, self._rng.random())
        if self._step in self._falls:
            self._of[names[self._highest(names)]] = -1.0 - self._step
        self._step += 1
        return self._highest(names)

    def _highest(self, names: Sequence[str]) -> int:
        return max(range(len(names)), key=lambda index: self._of[names[index]])


SHRINKING_RUNS_MAX = 1_000


def shrink(
    answers: Mapping[int, int],
    fails: Callable[[Mapping[int, int]], bool],
    *,
    runs_max: int = SHRINKING_RUNS_MAX,
) -> dict[int, int]:
    """The smallest tape found that still fails, after at most `runs_max` calls of `fails`.

    First it drops ever smaller chunks. Then it takes one step after another for as long as one of them still fails, so
    that what a step has made superfluous goes as well: nothing that is left can be dropped alone or with one other, or
    lowered.
    """
    best, left = dict(answers), runs_max

    def fails_still(candidate: dict[int, int]) -> bool:
        nonlocal best, left
        if left == 0:
            return False
        left -= 1
        if not fails(candidate):
            return False
        best = candidate
        return True

    chunk = len(best) // 2
    while chunk > 1:
        for dropped in _chunks(sorted(best), chunk):
            fails_still(_without(best, dropped))
        chunk //= 2
    while any(fails_still(candidate) for candidate in _steps(best)):
        pass
    return best


def _chunks(positions: list[int], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(positions), size):
        yield tuple(positions[start : start + size])


def _steps(answers: dict[int, int]) -> Iterator[dict[int, int]]:
    """Every tape that is a little smaller: the cheapest first, since pairs are many."""
    for position in sorted(answers):
        yield _without(answers, (position,))
    for position, value in sorted(answers.items()):
        for lower in range(1, value):
            yield {**answers, position: lower}
    for pair in combinations(sorted(answers), 2):
        yield _without(answers, pair)


def _without(answers: dict[int, int], dropped: tuple[int, ...]) -> dict[int, int]:
    return {position: value for position, value in answers.items() if position not in dropped}

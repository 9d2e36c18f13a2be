"""The choice tape: everything that is not determined in a simulated run, as one short list of numbers.

Each time the world has a choice (which input or output completes next, which fault strikes, what a random number is) it
asks the tape for a number below n. Zero is always the dull answer: the oldest operation, no fault, the middle of the
range. So a tape is sparse, `{position: value}` for the answers that are not zero, and shrinking is deleting entries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations


@dataclass
class Tape:
    """Answers by position; past the given ones zero, or random if `rng` is set. Records what it answered."""

    given: Mapping[int, int] = field(default_factory=dict)
    rng: random.Random | None = None
    chance: float = 0.0
    """With `rng`: the probability that a fault strikes at a point that offers one."""
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

    def fault(self, n: int) -> int:
        """Like `choose`, for a fault out of n: without given answers it strikes with probability `chance` only."""
        if self.position not in self.given and (self.rng is None or self.rng.random() >= self.chance):
            self.position += 1
            return 0
        return self.choose(n)


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

"""The choice tape: everything that is not determined in a simulated run, as one short list of numbers.

Each time the world has a choice (which input or output completes next, which fault strikes, what a random number is) it
asks the tape for a number below n. Zero is always the dull answer: the oldest operation, no fault, the middle of the
range. So a tape is sparse, `{position: value}` for the answers that are not zero, and shrinking is deleting entries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


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


def shrink(answers: Mapping[int, int], fails: Callable[[Mapping[int, int]], bool]) -> dict[int, int]:
    """The smallest tape found that still fails: drop ever smaller chunks, then lower what is left."""
    best = dict(answers)
    chunk = max(1, len(best) // 2)
    while True:
        positions = sorted(best)
        for start in range(0, len(positions), chunk):
            dropped = set(positions[start : start + chunk])
            candidate = {position: value for position, value in best.items() if position not in dropped}
            if len(candidate) < len(best) and fails(candidate):
                best = candidate
        if chunk == 1:
            break
        chunk //= 2
    for position, value in sorted(best.items()):
        for lower in range(1, value):
            if fails({**best, position: lower}):
                best[position] = lower
                break
    return best

"""Where faults can strike, and where they did."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from faultproof.prove.simulated.tape import Tape

NO_FAULT, CRASH, FREEZE = 0, 1, 2
FAULTS = ("none", "crash", "freeze")


class Point(NamedTuple):
    """A place where a fault could strike, and what makes two places equivalent for it."""

    position: int
    """On the tape."""
    when: str
    label: str
    process: str
    keys: tuple[Hashable, Hashable]
    """By fault, from CRASH. A crash leaves the same world behind if nothing durable, no answer to the outside and no
    virtual time lies between two places; a frozen process also keeps what it knows, so every operation counts."""

    def key(self, fault: int) -> Hashable:
        """Equal for places at which this fault has the same effect."""
        return self.keys[fault - CRASH]


class Faults:
    """The faults of one run: how many may still strike is counted here, whether one does is on the tape."""

    def __init__(self, tape: Tape, most: int) -> None:
        self.struck: list[str] = []
        self.points: list[Point] = []
        """Where a fault could still strike, after the answers that the tape was given."""
        self._tape = tape
        self._left = most
        self._given_until = max(tape.given, default=-1)

    def are_new_here(self) -> bool:
        """Whether a longer tape may strike here."""
        return self._left > 0 and self._tape.position > self._given_until

    def next(self, n: int) -> int:
        """Which of n faults strikes here, 0 for none.

        With no fault left the place keeps its position on the tape: or the answers after the last fault would mean
        something else under another number of faults, and a saved run could not be repeated without knowing it.
        """
        if self._left:
            return self._tape.fault(n)
        self._tape.position += 1
        return NO_FAULT

    def spend(self, what: str) -> None:
        """One has struck."""
        self._left -= 1
        self.struck.append(what)

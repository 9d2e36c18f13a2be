"""Which faults there are, where they can strike, and where they did.

Each wraps a port of a simulated process; no production code knows of them. What the numbers mean is part of the format of
saved tapes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import IntEnum
from typing import NamedTuple

from faultproof.prove.simulated.tape import Tape


class Fault(IntEnum):
    """What can go wrong at one operation."""

    NONE = 0
    CRASH = 1
    """The process is gone between two instructions, and is started again."""
    FREEZE = 2
    """It stops for longer than any lease, is replaced, and wakes up."""
    LOST = 3
    """Nobody answers to a commit, which was not made; or to a request to the outside, which did not arrive."""
    UNHEARD = 4
    """Nobody answers to a commit, or a request, that was carried out."""
    RESET = 5
    """The connection is gone before the transaction began: nothing happened, and the caller is told so."""
    SLOW = 6
    """The database takes its time: the operation happens later, in what order with others is open."""
    CUT = 7
    """Nothing of this process reaches anybody for longer than any lease; it is replaced, and goes on by its own clock."""
    AHEAD = 8
    """The database's clock is put forward."""
    BACK = 9
    """The database's clock is put back."""
    SKEWED = 10
    """This process's own clock is wrong by much from now on."""
    TWICE = 11
    """A message, or a request to the outside, arrives twice."""
    LATE = 12
    """A message arrives late, behind others; a request to the outside after its sender has given it up."""
    DROP = 13
    """A message never arrives."""
    POWER = 14
    """The power fails: every process is gone, and on real files so is what was not synced."""


CRASH, FREEZE = Fault.CRASH, Fault.FREEZE
_ANYWHERE = (Fault.CRASH, Fault.FREEZE, Fault.SLOW, Fault.CUT, Fault.AHEAD, Fault.BACK, Fault.SKEWED, Fault.POWER)
AFTER = (Fault.CRASH, Fault.FREEZE)
"""What may strike after an operation; those below, before one."""
INSIDE = _ANYWHERE
"""In a transaction that is open."""
BEGINNING = (*_ANYWHERE, Fault.RESET)
"""Before a transaction or a read begins."""
COMMITTING = (*_ANYWHERE, Fault.LOST, Fault.UNHEARD)
WHOLE = (*BEGINNING, Fault.LOST, Fault.UNHEARD)
"""A transaction from its beginning to its commit, as one operation."""
OUTSIDE = (Fault.CRASH, Fault.FREEZE, Fault.CUT, Fault.LOST, Fault.UNHEARD, Fault.TWICE, Fault.LATE)
"""A request to a service outside."""
MESSAGE = (Fault.DROP, Fault.TWICE, Fault.LATE)
EVERY = frozenset(Fault) - {Fault.NONE}


class Point(NamedTuple):
    """A place where a fault could strike, and what makes two places equivalent for it."""

    position: int
    """On the tape."""
    when: str
    label: str
    process: str
    kinds: tuple[Fault, ...]
    """What may strike here."""
    crash: Hashable
    """Equal where a crash leaves the same world behind: nothing durable, no answer to the outside, nobody who was refused the
    lock and no virtual time lies between."""
    other: Hashable
    """Equal where any other fault does: who survives keeps what it knows, so every operation counts."""

    def key(self, fault: int) -> Hashable:
        """Equal for places at which this fault has the same effect."""
        return self.crash if fault == CRASH else self.other


class Faults:
    """The faults of one run: how many may still strike is counted here, whether one does is on the tape."""

    def __init__(self, tape: Tape, most: int, enabled: frozenset[Fault] = EVERY) -> None:
        self.struck: list[str] = []
        self.fired: set[Fault] = set()
        self.offered: set[Fault] = set()
        """What could have struck somewhere."""
        self.points: list[Point] = []
        """Where a fault could still strike, after the answers that the tape was given."""
        self._tape = tape
        self._left = most
        self._enabled = enabled
        self._given_until = max(tape.given, default=-1)

    def are_new_here(self) -> bool:
        """Whether a longer tape may strike here."""
        return self._left > 0 and self._tape.position > self._given_until

    def next(self, kinds: Sequence[Fault]) -> Fault:
        """Which of them strikes here, if any.

        With no fault left the place keeps its position on the tape: or the answers after the last fault would mean
        something else under another number of faults, and a saved run could not be repeated without knowing it.
        """
        if self._left:
            if self._tape.rng is not None:
                self.offered.update(kinds)
                kinds = [kind for kind in kinds if kind in self._enabled]
            return Fault(self._tape.fault(kinds))
        self._tape.position += 1
        return Fault.NONE

    def spend(self, fault: Fault, where: str) -> str:
        """One has struck; in words."""
        self._left -= 1
        self.fired.add(fault)
        self.struck.append(f"{fault.name.lower()} {where}")
        return self.struck[-1]

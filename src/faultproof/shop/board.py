"""What each process is doing right now: one byte a process, in memory that outlives it.

The byte is what makes "killed while busy" a measurement: the killer stops a process, reads its byte, kills it, and reads
the byte again. A store of one byte costs nothing and needs no lock.
"""

from __future__ import annotations

import mmap
from enum import IntEnum


class State(IntEnum):
    """What a byte says. Everything but IDLE is busy."""

    IDLE = 0
    OPEN = 1
    """A transaction has begun; nothing is committed."""
    COMMITTING = 2
    """All is written; COMMIT is under way, or done and not yet answered for."""
    WROTE = 3
    """The order's rows are written, its events are not: where a dual write loses events."""
    APPLIED = 4
    """Effects are written, the cursor has not moved: where a consumer without inbox doubles effects."""
    MOVED = 5
    """The cursor has moved, the effects are not durable: where an early acknowledgement loses effects."""
    CALLING = 6
    """The provider has been asked, and has not answered: nobody here knows what it has done."""


class Board:
    """Made before the processes are forked, shared by all of them."""

    def __init__(self, slots: int) -> None:
        self._bytes = mmap.mmap(-1, slots)

    def flag(self, slot: int) -> Flag:
        """What the process in this slot shows."""
        return Flag(self._bytes, slot)

    def state(self, slot: int) -> State:
        """What it shows now, or showed last."""
        return State(self._bytes[slot])


class Flag:
    """One process's byte."""

    def __init__(self, shared: mmap.mmap | bytearray, slot: int) -> None:
        self._shared = shared
        self._slot = slot

    def show(self, state: State) -> None:
        """Say what this process is doing."""
        self._shared[self._slot] = state


def unseen() -> Flag:
    """A flag that nobody looks at."""
    return Flag(bytearray(1), 0)

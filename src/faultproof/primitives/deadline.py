"""Deadlines: an absolute moment by which a call is to be over, known to everything that is called on the way.

They are ambient: whoever sets one with `within` bounds all that is called inside it, in tasks that are started there too,
and of nested ones the earliest counts. Between processes travels the time that is left, in whole milliseconds: clocks
differ, durations do not.

A deadline stops nothing by itself. Whoever makes others wait honours it: queues drop what is too late when its turn comes,
retries are not begun, attempts are cut off.

Source: Dean and Barroso's "Tail at Scale" (2013) for why; gRPC's `grpc-timeout` for how it travels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from faultproof import bounds
from faultproof.clock import Clock, SystemClock
from faultproof.errors import DeadlineExceeded, InvalidInput

HEADER = "deadline-remaining-ms"
_HEADER_DIGITS_MAX = 12

_SYSTEM = SystemClock()

AMBIENT: ContextVar[Deadline | None] = ContextVar("faultproof_deadline", default=None)
"""For whoever sets it for each call; all others use `within` and `ambient`."""


class Deadline:
    """A moment on a process's monotonic clock."""

    __slots__ = ("_clock", "at")

    def __init__(self, at: float, clock: Clock) -> None:
        self.at = at
        self._clock = clock

    def left(self) -> float:
        """Seconds until then; negative when it is over."""
        return self.at - self._clock.monotonic()

    def check(self, what: str) -> None:
        """Raise `DeadlineExceeded` if it is over, before `what` is begun."""
        if self.left() <= 0:
            raise DeadlineExceeded(f"no time is left for {what}: nothing of it was done")

    def header(self) -> str:
        """What is left, as it is sent on: rounded down, so that nobody below goes on for longer than this caller waits."""
        return str(max(0, math.floor(self.left() * 1000)))


def ambient() -> Deadline | None:
    """The deadline of the call that this code runs for, if it has one."""
    return AMBIENT.get()


def by(clock: Clock, seconds: float) -> float:
    """The moment in so many seconds, or earlier where the ambient deadline is. Raises `DeadlineExceeded` if that is over."""
    at, above = clock.monotonic() + seconds, AMBIENT.get()
    if above is None:
        return at
    above.check("this call")
    return min(at, above.at)


@contextmanager
def within(seconds: float, clock: Clock | None = None) -> Iterator[Deadline]:
    """Everything inside is to be over in so many seconds, or earlier where somebody above said so.

    `clock`: that of the `Env` which is used inside; without, the machine's.
    """
    bounds.seconds("seconds", seconds, least=0)
    clock = clock or _SYSTEM
    mine = Deadline(clock.monotonic() + seconds, clock)
    above = AMBIENT.get()
    earliest = mine if above is None or mine.at < above.at else above
    token = AMBIENT.set(earliest)
    try:
        yield earliest
    finally:
        AMBIENT.reset(token)


def from_header(text: str, clock: Clock) -> Deadline:
    """What a caller in another process has left. Raises `InvalidInput` for what is no number of milliseconds.

    The time that the request has travelled is not taken off: nobody knows it.
    """
    if not text.isascii() or not text.isdigit() or len(text) > _HEADER_DIGITS_MAX:
        raise InvalidInput(f"`{HEADER}` is a whole number of milliseconds, got {bounds.short(text)}")
    return Deadline(clock.monotonic() + min(int(text) / 1000, bounds.SECONDS_MAX), clock)

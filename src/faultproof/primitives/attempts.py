"""Attempts: which try of a request this is, known to everything that is called on the way, so that one layer retries.

Three layers that try three times each send 27 requests where one fails. So whoever repeats says so, with `numbered` around each
attempt, and whoever is asked within it tries once: `is_repeated_above`. `Retry` does both. Like a deadline it is ambient, in
tasks that are started inside too, and travels between processes in a header: `attempt: 2/5` is the second of at most five. A
plain `2` was repeated already, so somebody above repeats; a plain `1` says nothing about who does.

Source: Google SRE, ch. 22 ("Addressing Cascading Failures"): retry at one layer only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from faultproof import bounds
from faultproof.errors import InvalidInput

HEADER = "attempt"
_SPELLED = re.compile(r"([1-9][0-9]{0,5})(?:/([1-9][0-9]{0,5}))?", re.ASCII)


class Attempt(NamedTuple):
    """One try of a request."""

    number: int
    """From 1."""
    most: int = 1
    """How many whoever repeats makes, if it must; 1: it has not said that it repeats."""

    @property
    def is_repeated(self) -> bool:
        """Whether somebody repeats it, or has."""
        return max(self) > 1

    def header(self) -> str:
        """As it is sent on."""
        return f"{self.number}/{self.most}" if self.most > 1 else str(self.number)


AMBIENT: ContextVar[Attempt | None] = ContextVar("faultproof_attempt", default=None)
"""For whoever sets it for each attempt; all others use `numbered` and `ambient`."""


def ambient() -> Attempt | None:
    """The attempt that this code runs for, if somebody above numbers them."""
    return AMBIENT.get()


def is_repeated_above() -> bool:
    """Whether somebody above repeats what fails here: then try once."""
    above = AMBIENT.get()
    return above is not None and above.is_repeated


@contextmanager
def numbered(number: int, most: int) -> Iterator[None]:
    """What is called inside is the `number`-th of at most `most` attempts; unless somebody above repeats, whose it stays."""
    bounds.count("most", most)
    bounds.count("number", number, most=most)
    if is_repeated_above():
        yield
        return
    with arrived(Attempt(number, most)):
        yield


@contextmanager
def arrived(attempt: Attempt | None) -> Iterator[None]:
    """What is called inside belongs to the attempt that a request says it is, or to none."""
    token = AMBIENT.set(attempt)
    try:
        yield
    finally:
        AMBIENT.reset(token)


def from_header(text: str) -> Attempt:
    """Which attempt a caller in another process says that this is. Raises `InvalidInput` for what is none."""
    found = _SPELLED.fullmatch(text)
    if found is None or int(found[1]) > int(found[2] or found[1]):
        raise InvalidInput(f"`{HEADER}` is a number, or a number of how many (2/5), got {bounds.short(text)}")
    return Attempt(int(found[1]), int(found[2] or 1))

"""Code that runs on the copy of a request is marked, so that it can be kept from what the original does as well.

`is_shadow` says so to anybody. Our own durable calls refuse inside: whatever a candidate is, it commits nothing by a database
of faultproof's. Between processes the mark travels as a header.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar

from faultproof.errors import Misuse

HEADER = "shadow"
"""With the value 1, on each request that is a copy."""

_is_shadow: ContextVar[bool] = ContextVar("faultproof_shadow", default=False)


def is_shadow() -> bool:
    """Whether this code runs on the copy of a request, whose effects nobody has asked for."""
    return _is_shadow.get()


def detached() -> Context:
    """A context of its own, marked: without the caller's deadline, transaction or anything else that the caller has set."""
    context = Context()
    context.run(_is_shadow.set, True)
    return context


@contextmanager
def unshadowed() -> Iterator[None]:
    """Inside, effects are let through: for a candidate with a database that nobody else reads."""
    token = _is_shadow.set(False)
    try:
        yield
    finally:
        _is_shadow.reset(token)


def refuse_in_shadow() -> None:
    """Raise `Misuse` on the copy of a request, before anything is written."""
    if _is_shadow.get():
        raise Misuse(
            "this runs on the copy of a request that somebody else answers, and would write a second time: leave it out where "
            "`fp.is_shadow()`, or say `with fp.unshadowed():` around it if the database is the candidate's own"
        )

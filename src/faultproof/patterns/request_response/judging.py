"""What a response means to whoever waits for an answer: whether it is one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from faultproof.errors import InvalidInput
from faultproof.patterns.request_response import headers as names
from faultproof.patterns.request_response.client import Result

Meaning = Literal["answer", "again", "superseded", "other content"]

_FINAL = frozenset({names.ANSWER_TOO_LARGE, names.BAD_HEADER, names.NO_KEY, names.TOO_LARGE})
"""Refusals that stay the same however often one asks: they are answers."""
_COME_AGAIN = frozenset({408, 425, 429})


class Understood(NamedTuple):
    """`again`: it says nothing about whether the request is, or will be, carried out."""

    meaning: Meaning
    retry_after: float | None = None
    """Seconds."""


def judge(response: Any) -> Understood:
    """By status and headers, of a response as httpx, aiohttp, requests and others have it; of a client's `Result` its value's.

    Raises `InvalidInput` for what has neither: then say what it means, with a function of your own.
    """
    if isinstance(response, Result):
        response = response.value
    status = getattr(response, "status_code", getattr(response, "status", None))
    headers = getattr(response, "headers", None)
    if not isinstance(status, int) or not hasattr(headers, "get"):
        raise InvalidInput(
            f"a {type(response).__qualname__} has no status and headers to be judged by: give the session `judge`"
        )
    assert headers is not None
    why = headers.get(names.REFUSED)
    if why == names.SUPERSEDED:
        return Understood("superseded")
    if why == names.OTHER_CONTENT:
        return Understood("other content")
    if why in _FINAL or (why is None and status < 500 and status not in _COME_AGAIN):
        return Understood("answer")
    return Understood("again", _seconds(headers.get("retry-after")))


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None

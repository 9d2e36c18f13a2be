"""What a request of a session says in its headers, and what a server says of one that it has not carried out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.primitives import attempts, deadline

KEY = "idempotency-key"
SESSION = "session-id"
SEQUENCE = "session-sequence"
REPLAYED = "idempotent-replayed"
"""Of an answer: it is the first one, given again."""
REFUSED = "request-refused"
"""Of an answer that is not the application's: why."""

IN_PROGRESS = "in-progress"
EARLIER_IN_PROGRESS = "earlier-in-progress"
SUPERSEDED = "superseded"
OTHER_CONTENT = "other-content"
ANSWER_TOO_LARGE = "answer-too-large"
BAD_HEADER = "bad-header"
NO_KEY = "no-key"
TOO_LARGE = "too-large"
TOO_SLOW = "too-slow"
TOO_LATE = "too-late"
BUSY = "busy"
UNKNOWN = "unknown"

KEY_BYTES_MAX = 200
_KEY = re.compile(rf"[!-~]{{1,{KEY_BYTES_MAX}}}", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them."""


class Envelope(NamedTuple):
    """What an attempt of a request is sent with: put `headers` on it."""

    headers: dict[str, str]
    key: str
    """The same for each attempt of this request, and of no other."""
    session: str
    number: int
    """Of the request in its session, from 1."""
    attempt: int
    """Of this request, from 1."""


class Asked(NamedTuple):
    """Which request this is, as a server was told."""

    key: str
    session: str | None = None
    number: int = 0


def written(key: str, session: str, number: int) -> dict[str, str]:
    """The headers of an attempt that is made now: with what is left of the time, and who repeats."""
    headers = {KEY: key, SESSION: session, SEQUENCE: str(number)}
    if (by := deadline.ambient()) is not None:
        headers[deadline.HEADER] = by.header()
    if (attempt := attempts.ambient()) is not None:
        headers[attempts.HEADER] = attempt.header()
    return headers


def single(headers: Headers, name: str) -> str | None:
    """The value of a header that may be there once. Raises `InvalidInput` where it is there more often."""
    wanted = name.encode()
    found = [value for each, value in headers if each == wanted]
    if len(found) > 1:
        raise InvalidInput(f"`{name}` is sent {len(found)} times: send it once")
    return found[0].decode("latin-1").strip() if found else None


def asked(headers: Headers) -> Asked | None:
    """Whose request it is, and which; None where it has no key. Raises `InvalidInput` for what makes no sense."""
    key, session, number = (single(headers, name) for name in (KEY, SESSION, SEQUENCE))
    if key is None:
        if session is not None or number is not None:
            raise InvalidInput(f"a request of a session has an `{KEY}`: send one")
        return None
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"`{KEY}` is 1 to {KEY_BYTES_MAX} printable ASCII characters, got {bounds.short(key)}")
    if session is None and number is None:
        return Asked(key)
    if session is None or number is None:
        raise InvalidInput(f"`{SESSION}` and `{SEQUENCE}` go together: send both, or neither")
    if not _NUMBER.fullmatch(number):
        raise InvalidInput(f"`{SEQUENCE}` is a whole number from 1, got {bounds.short(number)}")
    bounds.name(f"in `{SESSION}` a session", session)
    return Asked(key, session, int(number))

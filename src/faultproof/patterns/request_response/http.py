"""`Http`: requests through a client, with what a status says about whether to send them again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from faultproof import bounds
from faultproof.clock import Clock
from faultproof.errors import InvalidInput, OutcomeUnknown, Overloaded, PayloadTooLarge, TryAgain
from faultproof.patterns.request_response.client import Client, Result
from faultproof.primitives import attempts, deadline
from faultproof.primitives.endpoints import Endpoint

BODY_BYTES_MAX = 10_485_760
RETRY_AFTER_MAX_S = 3_600.0
IDEMPOTENCY_KEY = "idempotency-key"

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2."""
_NOT_NOW = frozenset({408, 425, 429, 503})
"""By which a server says that it has not done it, and may later."""
_UNKNOWN = frozenset({500, 502, 504})


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """The body, decoded. Raises `InvalidInput` if it is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the answer of status {self.status} is no JSON: {error}") from error


class Request(NamedTuple):
    """What is sent to an endpoint."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    answer_bytes_max: int


class Exchange(Protocol):
    """An HTTP library's way to send one request and to read its answer whole, without redirects and without repeating it."""

    async def __call__(self, request: Request) -> Answer:
        """Raises `TryAgain` where nothing was sent, `OutcomeUnknown` where that is not certain."""
        ...


class Http:
    """HTTP through a `Client`: to the endpoint that it picks, with its deadline, attempts and idempotency in headers.

    ::

        http = fp.Http(payments, fp.HttpxExchange(httpx.AsyncClient()))      # or fp.AiohttpExchange(session)
        result = await http.request("POST", "/charges", json={"total": 990}, headers={"idempotency-key": order})
        result.value.status, result.value.json()

    What is idempotent is said by the method (RFC 9110), or by an `idempotency-key`. A status of 408, 425, 429 or 503 says that
    nothing was done, and `Retry-After` when to come back; 500, 502 and 504 that nobody knows; any other is the answer.
    """

    def __init__(self, client: Client, exchange: Exchange, *, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        bounds.count("body_bytes_max", body_bytes_max, most=2**31)
        for endpoint in client.endpoints.all:
            if not endpoint.url.startswith(("http://", "https://")):
                raise InvalidInput(
                    f"the endpoint {endpoint.name!r} has no URL to send requests to: give http(s)://host"
                )
        self._client = client
        self._exchange = exchange
        self._body_bytes_max = body_bytes_max

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        json: object = None,
        **options: Any,
    ) -> Result[Answer]:
        """The answer, and what it took.

        `path`: with its query, from the endpoint's URL on. `json`: a body, encoded. `options`: those of `Client.call`
        (`timeout`, `key`, `tenant`, `priority`, `idempotent`). Raises what that raises, `OutcomeUnknown` for an answer of more
        than `body_bytes_max`, and `PayloadTooLarge` for a body that is.
        """
        sent = {"accept-encoding": "identity", **{name.lower(): value for name, value in (headers or {}).items()}}
        if json is not None:
            body = msgspec.json.encode(json)
            sent.setdefault("content-type", "application/json")
        self._check(path, body)
        method = method.upper()
        options.setdefault("idempotent", method in _IDEMPOTENT or IDEMPOTENCY_KEY in sent)

        async def send(endpoint: Endpoint, number: int) -> Answer:
            url = endpoint.url.rstrip("/") + path
            request = Request(method, url, {**sent, **_ambient_headers()}, body, self._body_bytes_max)
            return self._judged(request, await self._exchange(request))

        return await self._client.call(send, **options)

    def _check(self, path: str, body: bytes) -> None:
        if not path.startswith("/") or not path.isprintable() or " " in path:
            raise InvalidInput(f"`path` begins with / and has no blanks, got {bounds.short(path)}")
        if len(body) > self._body_bytes_max:
            raise PayloadTooLarge(
                f"the body has {len(body):,} bytes, and at most {self._body_bytes_max:,} are sent",
                size_bytes=len(body),
                limit_bytes=self._body_bytes_max,
            )

    def _judged(self, request: Request, answer: Answer) -> Answer:
        if answer.status not in _NOT_NOW and answer.status not in _UNKNOWN:
            return answer
        words = f"{request.method} {request.url.split('?')[0]} was answered with {answer.status}"
        if answer.status in _UNKNOWN:
            raise OutcomeUnknown(words)
        later = retry_after(answer.headers.get("retry-after"), self._client.clock)
        raise TryAgain(words, retry_after=later) if answer.status == 408 else Overloaded(words, retry_after=later)


def retry_after(value: str | None, clock: Clock) -> float | None:
    """Seconds, of a number of them or of a date; an hour at most; None for what is neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    seconds = at.replace(tzinfo=at.tzinfo or UTC).timestamp() - clock.wall_us() / 1_000_000
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S)


def _ambient_headers() -> dict[str, str]:
    """What an attempt says of itself: how much time is left, and which one it is of how many."""
    said = {}
    if (by := deadline.ambient()) is not None:
        said[deadline.HEADER] = by.header()
    if (attempt := attempts.ambient()) is not None:
        said[attempts.HEADER] = attempt.header()
    return said

"""A candidate behind HTTP: requests as they came, but for what is the caller's own, and answers as they can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput, MissingExtra
from faultproof.patterns.shadow.copies import TooLarge
from faultproof.primitives import deadline, shadowing

if TYPE_CHECKING:
    import httpx

HOP_BY_HOP = frozenset(
    {
        *("connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Of one connection, and not of the request (RFC 9110, 7.6.1)."""
CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key", "x-auth-token", "x-csrf-token"})
OWN = frozenset({"accept-encoding", "content-length", deadline.HEADER, shadowing.HEADER})
"""Said anew: the caller's time is not the candidate's, and of compressed answers nobody knows how large they are."""


@dataclass(frozen=True)
class HttpRequest:
    """A request as a server got it."""

    method: str
    target: str
    """Path and query, as they stand in the first line."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class HttpCandidate:
    """The candidate at `url` (http or https, host and port), to be called with an `HttpRequest`.

    ::

        async with fp.HttpCandidate("http://10.0.0.9:8080") as candidate:
            shadow = fp.Shadow(candidate)
            shadow.offer(fp.HttpRequest("GET", "/orders/7", headers), candidate.answer(200, answer_headers, body))

    Kept is the `Host` that the caller asked for. Left out is what belongs to the caller's connection, and its credentials
    (`Authorization`, `Cookie`, keys) unless `credentials` says otherwise; `shadow: 1` is added. Redirects are not followed,
    cookies not kept, and no proxy is taken from the environment. `headers`: those of an answer that are compared. `size`: bytes
    of an answer; one that has more is cut off, and reported as too large. It has connections of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: bool = False,
        headers: Iterable[str] = ("content-type", "location"),
        connections: int = 4,
        size: int = 65_536,
        timeout: float = 10.0,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("a candidate behind HTTP needs httpx: pip install faultproof[shadow]") from error
        bounds.count("connections", connections, most=1_000)
        bounds.count("size", size, most=16_777_216)
        bounds.seconds("timeout", timeout)
        self._httpx = httpx
        self._url = httpx.URL(_checked(url))
        self._left_out = HOP_BY_HOP | OWN | (frozenset() if credentials else CREDENTIALS)
        self._compared = frozenset(name.lower() for name in headers)
        self._size = size
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        self._transport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections), trust_env=False
        )

    async def __aenter__(self) -> HttpCandidate:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def __call__(self, request: HttpRequest) -> dict[str, Any]:
        """What it answers, as `answer` makes it."""
        if not request.target.startswith("/"):
            raise InvalidInput(f"a request's target is its path and query, got {bounds.short(request.target)}")
        target = request.target.encode("ascii")
        sent = self._httpx.Request(
            request.method,
            self._url.copy_with(raw_path=target),
            headers=self._forwarded(request.headers),
            content=request.body or None,
            extensions={"timeout": self._timeouts, "target": target},  # as it came: a URL's dots would be resolved
        )
        answer = await self._transport.handle_async_request(sent)
        try:
            return self.answer(answer.status_code, answer.headers.items(), await self._read(answer))
        finally:
            await answer.aclose()

    def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> dict[str, Any]:
        """An answer as it is compared: status, some headers, and the body, as JSON where it is."""
        kept = {name.lower(): value for name, value in headers if name.lower() in self._compared}
        return {"status": status, "headers": kept, "body": _body(kept.get("content-type", ""), body)}

    def _forwarded(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        given = [(name.lower(), value) for name, value in headers]
        named = {name.strip().lower() for each, value in given if each == "connection" for name in value.split(",")}
        kept = [(name, value) for name, value in given if name not in self._left_out and name not in named]
        return [*kept, ("accept-encoding", "identity"), (shadowing.HEADER, "1")]

    async def _read(self, answer: httpx.Response) -> bytes:
        received = bytearray()
        async for chunk in answer.aiter_raw():
            received += chunk
            if len(received) > self._size:
                raise TooLarge
        return bytes(received)


def _body(kind: str, body: bytes) -> Any:
    media = kind.partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return msgspec.json.decode(body)
        except (ValueError, RecursionError):
            pass  # it says that it is, and is not: by its bytes, then
    return body


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"the candidate's URL is none: {bounds.short(url)}") from error
    if not usable or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise InvalidInput("the candidate's URL must be http(s)://host[:port], without a path or a password")
    return url

"""ASGI, as far as a middleware needs it: bodies that are read and answers that are kept, both bounded; and refusals."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import msgspec

from faultproof.errors import InvalidInput, PayloadTooLarge
from faultproof.patterns.request_response import headers as names

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Respond = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, of whatever types."""


class Kept(msgspec.Struct, frozen=True):
    """An answer, as it is stored and given again."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    async def give(self, respond: Respond, *more: tuple[str, str]) -> None:
        """Answer with it."""
        length = [] if self.status in (204, 304) else [("content-length", str(len(self.body)))]
        headers = [*self.headers, *length, *more]
        await respond(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            }
        )
        await respond({"type": "http.response.body", "body": self.body})


class Gone(Exception):
    """The client went away before it had said what it wants."""


def refusal(status: int, why: str, sentence: str, *, retry_after: float | None = None) -> Kept:
    """What a client is told whose request was not carried out; problem details as of RFC 9457."""
    said = {"title": why, "status": status, "detail": sentence}
    headers = [("content-type", "application/problem+json"), (names.REFUSED, why)]
    if retry_after is not None:
        headers.append(("retry-after", str(math.ceil(max(0.0, retry_after)))))
    return Kept(status, headers, msgspec.json.encode(said))


async def body_of(scope: Scope, receive: Receive, most: int) -> bytes:
    """The whole body. Raises `PayloadTooLarge` before it is read to its end, and `Gone`."""
    length = names.single(scope["headers"], "content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 15):
        raise InvalidInput("`content-length` is a whole number")
    body, size = bytearray(), int(length or 0)
    while True:
        if max(size, len(body)) > most:
            size = max(size, len(body))
            raise PayloadTooLarge(
                f"a request that carries a key has at most {most:,} bytes", size_bytes=size, limit_bytes=most
            )
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if not message.get("more_body", False) and len(body) <= most:
            return bytes(body)


def again(body: bytes, receive: Receive) -> Receive:
    """For the application: the body that was read, and then whatever comes."""
    left = [body]

    async def received() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return received


class Capture:
    """Takes an application's answer, up to a bound, instead of the client."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self.is_complete = False
        self.is_too_large = False

    async def respond(self, message: Message) -> None:
        """As `send` of the application."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in message.get("headers", ())]
        elif message["type"] == "http.response.body":
            chunk = message.get("body", b"")
            self.is_too_large = self.is_too_large or len(self._body) + len(chunk) > self._most
            if not self.is_too_large:
                self._body += chunk
            self.is_complete = not message.get("more_body", False)

    @property
    def status(self) -> int:
        return self._status

    def kept(self, wanted: Iterable[str] | None = None) -> Kept:
        """The answer; of its headers those that are wanted."""
        drop = {"content-length", "transfer-encoding", "connection"}
        headers = [each for each in self._headers if each[0] not in drop and (wanted is None or each[0] in wanted)]
        return Kept(self._status, headers, bytes(self._body))


def plain(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Headers that a handler gives. Raises `InvalidInput` for what would be no header, or another one."""
    for name, value in headers.items():
        if (
            not name.isascii()
            or not name.replace("-", "").isalnum()
            or any(c in "\r\n\0" or ord(c) > 255 for c in value)
        ):
            raise InvalidInput(f"{name!r} with that value is no header of an answer")
    return [(name.lower(), value) for name, value in headers.items()]

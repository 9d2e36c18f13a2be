"""A customer's connection to the API: HTTP/1.1 with one request at a time, which is all that a load generator needs.

httpx took 7 ms of processor time an order here against less than one (its pool looks through all connections, and for an
optional package, on every request), which would measure the customers instead of the shop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

_ANSWER_BYTES_MAX = 64 * 1024


class Unreachable(Exception):
    """No complete answer came: the request may or may not have been carried out."""


class Response(NamedTuple):
    """Status and body."""

    status: int
    body: bytes


def _unheard() -> None:
    """Nobody asked to be told."""


class Connection:
    """To one server; opened when it is first needed, and anew after it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self,
        path: str,
        headers: dict[str, str],
        body: bytes,
        *,
        timeout: float,
        sent: Callable[[], None] = _unheard,
    ) -> Response:
        """Send a request and read the whole answer. Raises `Unreachable`, after which the connection is a new one.

        `sent` is called in between: from then on the request arrives, even if this process is killed.
        """
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body
        )
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(request, sent)
        except (OSError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Unreachable(f"port {self._port}: {type(error).__name__} {error}") from error
        except asyncio.CancelledError:
            self.close()  # the answer to this request must not be taken for that to the next
            raise

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes, sent: Callable[[], None]) -> Response:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        sent()
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)}
        length = int(headers[b"content-length"]) if b"content-length" in headers else -1
        if not 0 <= length <= _ANSWER_BYTES_MAX:
            raise ValueError("an answer without a usable length")
        response = Response(int(status.split(b" ", 2)[1]), await reader.readexactly(length))
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()
        return response

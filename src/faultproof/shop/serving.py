"""Answering HTTP/1.1 requests on a socket: no more of it than the provider needs.

A web server with a framework took a millisecond of processor time a call, several times what the call itself takes, which
would be missing where the shop is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from socket import socket
from typing import NamedTuple

BODY_BYTES_MAX = 16 * 1024
_HEAD_BYTES_MAX = 16 * 1024
_IDLE_S = 120.0
"""A connection without a request for so long is closed."""
_NONSENSE = HTTPStatus.BAD_REQUEST, b'{"error": "send a POST with a small body and its length"}'


class Request(NamedTuple):
    """What was asked for."""

    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes


class Answer(NamedTuple):
    """Status and body; or, if it is `lost`, the head of an answer and then nothing."""

    status: int
    body: bytes
    lost: bool = False


Handle = Callable[[Request], Awaitable[Answer]]


async def serving(listener: socket, handle: Handle) -> asyncio.Server:
    """A server that answers `POST` requests, one at a time on each connection. What `handle` raises ends the connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The customer is gone, has been silent for too long, or talks no HTTP.
        with suppress(EOFError, OSError, TimeoutError, asyncio.LimitOverrunError):
            while await _answered(reader, writer, handle):
                pass
        writer.close()

    return await asyncio.start_server(connected, sock=listener, limit=_HEAD_BYTES_MAX)


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handle) -> bool:
    """Answer one request; whether another may follow on this connection."""
    async with asyncio.timeout(_IDLE_S):
        request = await _read(reader)
    answer = Answer(*_NONSENSE) if request is None else await handle(request)
    head = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nContent-Length: {len(answer.body)}\r\n"
    close = "Connection: close\r\n" if request is None else ""
    writer.write(
        f"{head}Content-Type: application/json\r\n{close}\r\n".encode() + (b"" if answer.lost else answer.body)
    )
    async with asyncio.timeout(_IDLE_S):
        await writer.drain()
    return request is not None and not answer.lost


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None if it is none that can be answered."""
    line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, _, rest = line.partition(" ")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    length = headers.get("content-length", "")
    if method != "POST" or not (length.isascii() and length.isdigit()) or int(length) > BODY_BYTES_MAX:
        return None
    return Request(rest.partition(" ")[0], headers, await reader.readexactly(int(length)))

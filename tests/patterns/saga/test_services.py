"""Services that answer nonsense: each answer is a clear line in the journal, and costs bounded memory and time."""

import asyncio
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Failed, InvalidInput, OutcomeUnknown, TryAgain
from faultproof.ports.database import Database
from tests.conformance.engines import Engine
from tests.fakes import until, within
from tests.patterns.saga.shop import running

pytestmark = pytest.mark.anyio

Behave = Callable[[asyncio.StreamWriter], Awaitable[None]]
STEP_S = 0.5
"""How long a step may take."""
DEFINITION = f"""
saga_definition:
  name: fuzzed
  steps:
    - {{service: a, action: act, compensation: undo, timeout: {STEP_S}, retry: {{attempts: 1}}}}
"""


class Wild:
    """A service on a real socket that answers `act` with whatever it likes, and everything else well."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[bytes] = []
        self.behave: Behave = nothing
        self.serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self.serving.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            self.heads.append(head)
            if head.startswith(b"POST /act "):
                await self.behave(writer)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()

    def paths(self) -> list[bytes]:
        return [head.split()[1] for head in self.heads]


async def nothing(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""


@asynccontextmanager
async def wild() -> AsyncIterator[tuple[Wild, fp.Services]]:
    service = Wild()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with fp.Services({"a": service.url}) as services:
            yield service, services
    finally:
        server.close()
        for task in service.serving:
            task.cancel()
        await until(lambda: not service.serving)


def saying(*parts: bytes) -> Behave:
    async def say(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return say


def answering(body: bytes, *headers: str, status: str = "200 OK") -> Behave:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return saying("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


def endless(head: bytes, part: bytes, pause_s: float = 0.0) -> Behave:
    """Until nobody listens any more."""

    async def go_on(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)  # sleeps: as slowly as the service answers

    return go_on


async def reset(writer: asyncio.StreamWriter) -> None:
    """In the middle of the body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
LATE = f"no answer within {STEP_S} s"
UNKNOWN: dict[str, tuple[Behave, str]] = {
    "nothing": (nothing, "no answer from"),
    "no HTTP": (saying(b"\x00\xff\x16\x03 hello\r\n\r\n"), "RemoteProtocolError"),
    "half a head": (saying(b"HTTP/1.1 200 OK\r\nContent-Le"), "RemoteProtocolError"),
    "status that is none": (saying(b"HTTP/1.1 2x0 OK\r\n\r\n"), "RemoteProtocolError"),
    "status of no class": (answering(b"{}", status="799 What"), "answered 799"),
    "two lengths": (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}"), "ProtocolError"),
    "shorter than it says": (saying(SLOW, b"{}"), "RemoteProtocolError"),
    "reset": (reset, "ReadError"),
    "broken chunks": (saying(CHUNKED, b"zz\r\n{}\r\n0\r\n\r\n"), "RemoteProtocolError"),
    "chunks without an end": (saying(CHUNKED, b"2\r\n{}\r\n"), "RemoteProtocolError"),
    "endless head": (endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 60_000 + b"\r\n"), "RemoteProtocolError"),
    "endless body": (endless(CHUNKED, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"), "more than 262144 bytes"),
    "endless continue": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001), LATE),
    "slow head": (endless(b"", b"H", 0.05), LATE),
    "slow body": (endless(SLOW, b" ", 0.05), LATE),
    "redirect": (answering(b"", "Location: /elsewhere", status="307 Temporary Redirect"), "answered 307"),
    "redirect to a file": (answering(b"", "Location: file:///etc/passwd", status="301 Moved"), "answered 301"),
    "server error": (answering(b"<h1>\x1b[31m</h1>", status="500 Oops"), "answered 500"),
    "html": (answering(b"<html>", "Content-Type: text/html"), "no JSON object"),
    "number": (answering(b"7"), "no JSON object"),
    "null": (answering(b"null"), "no JSON object"),
    "not a number": (answering(b'{"a": NaN}'), "no JSON object"),
    "out of range": (answering(b'{"a": 1e999}'), "no JSON object"),
    "two values": (answering(b"{}{}"), "no JSON object"),
    "no text": (answering(b'{"a": "\xff"}'), "no JSON object"),
    "half a surrogate": (answering(b'{"a": "\\ud800"}'), "no JSON object"),
    "too deep": (answering(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "no JSON object"),
    "NUL": (answering(b'{"a": "\\u0000"}'), "NUL"),
    "compressed": (answering(zlib.compress(b"{}"), "Content-Encoding: deflate"), "no JSON object"),
    "said to be compressed": (answering(b"\x1f\x8b{}", "Content-Encoding: gzip, br, x"), "no JSON object"),
}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_nonsense_is_unknown_says_so_in_the_journal_and_is_undone(
    engine: Engine, db: Database, case: str
) -> None:
    behave, says = UNKNOWN[case]
    async with wild() as (service, services):
        service.behave = behave
        saga = fp.saga_from_yaml(db, DEFINITION, services)
        await saga.install()
        async with running(saga):
            await saga.start("o-1", {})
            outcome = await saga.wait("o-1")
        assert isinstance(outcome, fp.Compensated)
        lines = [(line.step, line.what) for line in await saga.history("o-1")]
        (error,) = [line.data for line in await saga.history("o-1") if line.what == "unknown"]
        assert lines[:2] == [("act", "began"), ("act", "unknown")]
        assert error is not None
        assert says in error, error
        assert len(error) <= 1_000
        assert service.paths() == [b"/act", b"/undo"]


async def called(services: fp.Services, key: str = "saga/o-1/act") -> dict[str, Any]:
    """`act`, without a saga around it."""
    context = fp.StepContext(
        saga="saga",
        id="o-1",
        step="act",
        input={},
        attempt=1,
        key=key,
        undone_key=None,
        token=None,
        run=_NOTHING_DONE,
        until=time.monotonic() + 60,
        clock=time.monotonic,
    )
    return await within(services.action("a", "act")(context))


class _NothingDone:
    steps: dict[str, Any] = {}  # noqa: RUF012  # never changed


_NOTHING_DONE: Any = _NothingDone()


@pytest.mark.parametrize(
    "behave",
    [
        endless(CHUNKED, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"),
        endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 60_000 + b"\r\n"),
        answering(zlib.compress(b" " * 200_000_000, 9), "Content-Encoding: deflate"),
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", b"x" * 65_536),
    ],
    ids=["endless body", "endless head", "bomb", "long body"],
)
async def test_an_answer_takes_no_more_memory_than_its_bound(behave: Behave) -> None:
    async with wild() as (service, services):
        service.behave = behave
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            with pytest.raises(OutcomeUnknown):
                await called(services)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak - before < 4_000_000


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after"),
    [
        ("400 No", [], Failed, None),
        ("404 No", [], Failed, None),
        ("451 No", [], Failed, None),
        ("429 Later", ["Retry-After: 7"], TryAgain, 7.0),
        ("429 Later", ["Retry-After: " + "9" * 400], TryAgain, 3_600.0),
        *(("429 Later", [f"Retry-After: {text}"], TryAgain, None) for text in ("-1", "1.5", "\xb2", "nan", "Tue", "")),
        ("408 Late", [], TryAgain, None),
        ("425 Early", [], TryAgain, None),
        ("100000 What", [], OutcomeUnknown, None),
    ],
)
async def test_what_a_status_means(
    status: str, headers: list[str], error: type[Exception], retry_after: float | None
) -> None:
    async with wild() as (service, services):
        service.behave = answering(b"no", *headers, status=status)
        with pytest.raises(error) as raised:
            await called(services)
    assert getattr(raised.value, "retry_after", None) == retry_after


@pytest.mark.parametrize("body", [b"", b"  \r\n", b"{}", b'{"a": 1, "a": 2}'])
async def test_an_answer_of_another_content_type_is_read_for_what_it_is(body: bytes) -> None:
    async with wild() as (service, services):
        service.behave = answering(body, "Content-Type: image/png")
        assert await called(services) in ({}, {"a": 2})


async def test_no_cookie_is_kept_and_a_key_of_any_letters_is_sent() -> None:
    async with wild() as (service, services):
        service.behave = answering(b"{}", *(f"Set-Cookie: c{number}={'x' * 100}; Path=/" for number in range(50)))
        await called(services)
        await called(services, key="größe/o-1/act")
        assert len(services._client.cookies.jar) == 0
    assert b"cookie" not in service.heads[1].lower()
    assert "Idempotency-Key: größe/o-1/act\r\n".encode() in service.heads[1]
    assert b"Accept-Encoding: identity\r\n" in service.heads[1]


async def test_a_service_that_is_not_there_has_done_nothing() -> None:
    async with wild() as (service, services):
        pass
    async with fp.Services({"a": service.url}) as services:
        with pytest.raises(TryAgain, match="cannot be reached"):
            await called(services)


def test_a_password_in_a_url_is_refused_because_errors_show_urls() -> None:
    with pytest.raises(InvalidInput, match="give `headers`") as refused:
        fp.Services({"a": "https://ada:secret@payment.internal"})
    assert "secret" not in str(refused.value)

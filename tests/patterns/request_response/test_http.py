"""HTTP through the client, with httpx, with aiohttp and with httpx's own interface, to servers on real sockets."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import httpx
import pytest

import faultproof as fp
from faultproof.errors import InvalidInput, OutcomeUnknown, Overloaded, PayloadTooLarge, RetriesExhausted, TryAgain
from faultproof.patterns.request_response import AiohttpExchange, Client, Http, HttpxExchange, Policy, httpx_transport
from faultproof.patterns.request_response.http import Answer, retry_after
from faultproof.primitives.retry import Backoff
from tests.fakes import ManualClock

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Of: server\r\n\r\n{}"
QUICK = Backoff(attempts=3, base=0.001, cap=0.01)


class Asked(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Gives one reply after the other; None cuts the connection; when there is none left, `OK`."""

    def __init__(self) -> None:
        self.url = ""
        self.replies: list[bytes | None] = []
        self.asked: list[Asked] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append(Asked(first, headers, body))
                reply = self.replies.pop(0) if self.replies else OK
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api/"
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def through_httpx(client: Client, **options: Any) -> AsyncIterator[Http]:
    async with httpx.AsyncClient(trust_env=False, timeout=None) as library:
        yield Http(client, HttpxExchange(library), **options)


@asynccontextmanager
async def through_aiohttp(client: Client, **options: Any) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession() as library:
        yield Http(client, AiohttpExchange(library), **options)


WAYS = pytest.mark.parametrize("through", [through_httpx, through_aiohttp])
Way = Callable[..., Any]


def client_of(*urls: str, **policy: Any) -> Client:
    endpoints = [fp.Endpoint(f"e{number}", url) for number, url in enumerate(urls)]
    return Client(endpoints, Policy(**{"retry": QUICK, "deadline": 5.0, **policy}))


def status(code: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {code} X\r\nContent-Length: 2\r\n{more}\r\nno".encode()


@WAYS
async def test_a_request_carries_what_the_caller_says_its_attempt_and_what_time_is_left(through: Way) -> None:
    async with serving() as server, through(client_of(server.url)) as http:
        result = await http.request("post", "/charges?x=1", json={"total": 1}, headers={"Idempotency-Key": "o-1"})
        assert (result.value, result.attempts) == (Answer(200, result.value.headers, b"{}"), 1)
        assert (result.value.json(), result.value.headers["x-of"]) == ({}, "server")
        (asked,) = server.asked
        assert (asked.line, asked.body) == ("POST /api/charges?x=1 HTTP/1.1", b'{"total":1}')
        assert (asked.headers["idempotency-key"], asked.headers["attempt"]) == ("o-1", "1/3")
        assert 4_000 < int(asked.headers["deadline-remaining-ms"]) <= 5_000
        assert (asked.headers["content-type"], asked.headers["accept-encoding"]) == ("application/json", "identity")


@WAYS
@pytest.mark.parametrize("code", [408, 425, 429, 503])
async def test_not_now_is_repeated_whatever_the_method_and_not_before_the_server_says(through: Way, code: int) -> None:
    async with serving() as server, through(client_of(server.url)) as http:
        server.replies = [status(code)]
        assert (await http.request("POST", "/x")).attempts == 2
        server.replies = [status(code, "Retry-After: 60\r\n")]
        with pytest.raises(TryAgain):
            await http.request("GET", "/x")
        assert len(server.asked) == 3


@WAYS
@pytest.mark.parametrize(
    "reply", [status(500), status(502), status(504), None, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_what_nobody_knows_is_repeated_only_where_that_is_safe(through: Way, reply: bytes | None) -> None:
    async with serving() as server:
        for method, headers, is_repeated in [("POST", {}, False), ("PATCH", {}, False), ("PUT", {}, True), ("DELETE", {}, True),
                                             ("GET", {}, True), ("POST", {"idempotency-key": "k"}, True)]:  # fmt: skip
            async with through(client_of(server.url, attempt_timeout=0.2)) as http:
                server.replies, server.asked = [reply], []
                try:
                    result = await http.request(method, "/x", headers=headers)
                except OutcomeUnknown:
                    assert not is_repeated
                    assert len(server.asked) == 1
                else:
                    assert is_repeated
                    assert result.value.status == 200


@WAYS
@pytest.mark.parametrize("code", [201, 302, 400, 401, 404, 409, 422, 501])
async def test_any_other_status_is_the_answer_and_redirects_are_not_followed(through: Way, code: int) -> None:
    async with serving() as server, through(client_of(server.url)) as http:
        server.replies = [status(code, f"Location: {server.url}elsewhere\r\n")]
        result = await http.request("GET", "/x")
        assert (result.value.status, result.attempts, len(server.asked)) == (code, 1, 1)


@WAYS
async def test_where_nobody_listens_nothing_happened_and_another_endpoint_answers(through: Way) -> None:
    with socket.socket() as nobody:  # bound, and does not listen
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with through(client_of(dead)) as http:
            with pytest.raises(RetriesExhausted):
                await http.request("POST", "/x")
        async with serving() as server, through(client_of(dead, server.url)) as http:
            for _ in range(8):
                assert (await http.request("POST", "/x")).endpoint.url == server.url


@WAYS
async def test_too_much_is_refused_before_it_is_sent_and_cut_off_when_it_is_read(through: Way) -> None:
    async with serving() as server, through(client_of(server.url, retry=None), body_bytes_max=1_000) as http:
        with pytest.raises(PayloadTooLarge):
            await http.request("POST", "/x", body=b"x" * 1_001)
        assert server.asked == []
        server.replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5_000]
        with pytest.raises(OutcomeUnknown, match="1,000 bytes"):
            await http.request("GET", "/x")


@WAYS
@pytest.mark.parametrize("path", ["x", "http://elsewhere/x", "/a b", "/a\r\nHost: x", ""])
async def test_a_path_that_is_none_is_refused(through: Way, path: str) -> None:
    async with serving() as server, through(client_of(server.url)) as http:
        with pytest.raises(InvalidInput, match="path"):
            await http.request("GET", path)
        assert server.asked == []


@WAYS
async def test_no_secret_of_a_query_or_a_header_is_in_an_error(through: Way) -> None:
    async with serving() as server, through(client_of(server.url, retry=None)) as http:
        for reply in (status(500), status(429), None):
            server.replies = [reply]
            with pytest.raises((OutcomeUnknown, Overloaded)) as refused:
                await http.request("POST", "/x?token=s3cret", headers={"authorization": "s3cret"})
            assert "s3cret" not in str(refused.value)


async def test_an_endpoint_without_a_url_is_refused_before_the_first_request() -> None:
    with pytest.raises(InvalidInput, match="no URL"):
        async with through_httpx(Client([fp.Endpoint("a")])):
            pass


async def test_code_that_is_written_with_httpx_goes_through_the_client_as_it_is() -> None:
    async with serving() as server, through_httpx(client_of(server.url)) as http:
        squeezed = gzip.compress(b'{"a": 1}')
        server.replies = [
            status(503),
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(squeezed), squeezed),
        ]
        async with httpx.AsyncClient(transport=httpx_transport(http), base_url="http://payments") as library:
            answer = await library.post("/charges", json={"total": 1}, extensions={"faultproof": {"tenant": "t"}})
        assert (answer.status_code, answer.json()) == (200, {"a": 1})
        assert answer.extensions["faultproof"].attempts == 2
        assert [asked.line for asked in server.asked] == ["POST /api/charges HTTP/1.1"] * 2
        assert server.asked[1].headers["attempt"] == "2/3"
        assert server.asked[1].headers["host"].startswith("127.0.0.1")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("99999999999999", 3_600.0),
        ("Wed, 31 Dec 1969 23:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 30.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
async def test_retry_after_is_a_number_or_a_date_and_bounded(value: str | None, seconds: float | None) -> None:
    class Epoch(ManualClock):
        def wall_us(self) -> int:
            return 0

    assert retry_after(value, Epoch()) == seconds

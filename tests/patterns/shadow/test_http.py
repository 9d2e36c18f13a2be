"""A candidate behind HTTP gets the request as it came, without what is the caller's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import InvalidInput
from tests.fakes import env_of

pytestmark = pytest.mark.anyio

JSON = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: today\r\nset-cookie: a=b\r\n"


class Server:
    """Answers everybody the same, and keeps what it was sent."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.seen: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(self.answer.encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @property
    def headers(self) -> dict[str, str]:
        lines = self.seen[-1].strip().split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@asynccontextmanager
async def served(body: str, head: str = JSON) -> AsyncIterator[Server]:
    server = Server(f"{head}content-length: {len(body)}\r\n\r\n{body}")
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


HEADERS = (
    ("Host", "shop.example:8443"),
    ("Accept", "application/json"),
    ("Authorization", "Bearer secret"),
    ("Cookie", "session=secret"),
    ("X-Api-Key", "secret"),
    ("Connection", "keep-alive, X-Of-The-Hop"),
    ("X-Of-The-Hop", "1"),
    ("Transfer-Encoding", "chunked"),
    ("Upgrade", "h2c"),
    ("Proxy-Authorization", "secret"),
    ("Accept-Encoding", "gzip"),
    ("Deadline-Remaining-Ms", "5"),
    ("Shadow", "0"),
    ("X-Request-Id", "r-1"),
)


async def test_host_is_kept_and_what_is_the_connection_s_or_a_secret_is_left_out() -> None:
    async with served("{}") as server, fp.HttpCandidate(f"http://127.0.0.1:{server.port}") as candidate:
        await candidate(fp.HttpRequest("GET", "//a/../b?c=%2F&d", HEADERS))
        assert server.seen[0].startswith("GET //a/../b?c=%2F&d HTTP/1.1\r\n"), "as it came"
        headers = server.headers
        assert headers.pop("connection", "keep-alive") == "keep-alive"
        assert headers == {
            "host": "shop.example:8443",
            "accept": "application/json",
            "accept-encoding": "identity",
            "shadow": "1",
            "x-request-id": "r-1",
        }
        await candidate(fp.HttpRequest("GET", "/", HEADERS))
        assert "cookie" not in server.headers, "nor one that the candidate has set"
    async with served("{}") as server:
        async with fp.HttpCandidate(f"http://127.0.0.1:{server.port}", credentials=True) as candidate:
            await candidate(fp.HttpRequest("GET", "/", HEADERS))
        assert server.headers["authorization"] == "Bearer secret"
        assert "proxy-authorization" not in server.headers


async def test_answers_are_compared_by_status_headers_and_what_is_in_the_body() -> None:
    async with served('{"b": 1, "a": [2]}') as server:
        async with fp.HttpCandidate(f"http://127.0.0.1:{server.port}") as candidate:
            shadow = fp.Shadow[fp.HttpRequest, dict[str, Any]](candidate, share=1.0, env=env_of())
            headers = [("Content-Type", "application/json"), ("Date", "yesterday")]
            request = fp.HttpRequest("GET", "/orders/7", HEADERS)
            shadow.offer(request, candidate.answer(200, headers, b'{"a":[2],"b":1}'))
            shadow.offer(request, candidate.answer(200, headers, b'{"a":[3],"b":1}'))
            shadow.offer(request, candidate.answer(404, headers, b'{"a":[2],"b":1}'))
            shadow.offer(fp.HttpRequest("POST", "/orders"), candidate.answer(200, headers, b"{}"))
            await shadow.drain()
    report = shadow.report()
    assert (report.compared, report.same, report.dropped) == (3, 1, {"not safe": 1})
    assert {each.path for each in report.paths} == {"$.body.a[*]", "$.status"}
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n", "no JSON", b"no JSON"),
        ("HTTP/1.1 200 OK\r\ncontent-type: application/problem+json; charset=utf-8\r\n", "[1]", [1]),
        ("HTTP/1.1 200 OK\r\n", "[1]", b"[1]"),
        ("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\n", "", b""),
    ],
)
async def test_bodies_are_what_they_are(head: str, body: str, expected: Any) -> None:
    async with served(body, head) as server, fp.HttpCandidate(f"http://127.0.0.1:{server.port}") as candidate:
        answer = await candidate(fp.HttpRequest("GET", "/"))
        assert answer["body"] == expected
        assert len(server.seen) == 1, "no redirect is followed"


async def test_an_answer_that_is_too_large_is_cut_off_and_reported() -> None:
    async with served("x" * 100_000) as server:
        async with fp.HttpCandidate(f"http://127.0.0.1:{server.port}", size=1_000) as candidate:
            shadow = fp.Shadow[fp.HttpRequest, Any](candidate, share=1.0, env=env_of())
            shadow.offer(fp.HttpRequest("GET", "/"), {})
            await shadow.drain()
    assert shadow.report().dropped == {"candidate's answer too large": 1}


async def test_a_candidate_that_cannot_be_reached_has_failed() -> None:
    async with served("{}") as server:
        port = server.port
    async with fp.HttpCandidate(f"http://127.0.0.1:{port}") as candidate:
        shadow = fp.Shadow[fp.HttpRequest, Any](candidate, share=1.0, env=env_of())
        shadow.offer(fp.HttpRequest("GET", "/"), {})
        await shadow.drain()
    assert shadow.report().candidate.errors == {"ConnectError": 1}


@pytest.mark.parametrize(
    "url", ["", "ftp://a", "http://", "http://a/path", "http://user:pw@a", "http://a?b", "http://a:x"]
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        fp.HttpCandidate(url)
    assert "pw" not in str(refused.value)

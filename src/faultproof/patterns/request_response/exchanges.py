"""Sending one request with httpx or aiohttp, and what their errors say. Neither is imported before it is used."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

from faultproof.errors import InvalidInput, MissingExtra, OutcomeUnknown, TryAgain
from faultproof.patterns.request_response.http import Answer, Http, Request

if TYPE_CHECKING:
    import aiohttp
    import httpx


class HttpxExchange:
    """With an `httpx.AsyncClient` of yours: its connections, TLS and proxies; its timeouts beside the client's own.

    Give it `timeout=None` or one that is longer than an attempt's, and as many connections as the bulkhead has permits.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def __call__(self, request: Request) -> Answer:
        import httpx

        try:
            asked = self._http.build_request(
                request.method, request.url, headers=dict(request.headers), content=request.body or None
            )
            answer = await self._http.send(asked, stream=True, follow_redirects=False)
            try:
                body = await _whole(answer.aiter_raw(), request)
            finally:
                await answer.aclose()
            return Answer(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise TryAgain(f"{_place(request)} cannot be reached: {type(error).__name__} {error}") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise InvalidInput(f"this cannot be sent to {_place(request)}: {error}") from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"no answer from {_place(request)}: {type(error).__name__} {error}") from error


class AiohttpExchange:
    """With an `aiohttp.ClientSession` of yours: its connections and TLS; its timeouts beside the client's own.

    By itself aiohttp sends GET, HEAD, OPTIONS, TRACE, PUT and DELETE once more where a connection that it had kept is closed
    before the answer: that attempt is in no budget, and there is no public way to turn it off.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, request: Request) -> Answer:
        import aiohttp

        try:
            async with self._session.request(
                request.method,
                request.url,
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
                auto_decompress=False,
            ) as answer:
                body = await _whole(answer.content.iter_any(), request)
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TryAgain(f"{_place(request)} cannot be reached: {type(error).__name__} {error}") from error
        except aiohttp.InvalidURL as error:
            raise InvalidInput(f"this cannot be sent to {_place(request)}: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OutcomeUnknown(f"no answer from {_place(request)}: {type(error).__name__} {error}") from error


def httpx_transport(http: Http) -> httpx.AsyncBaseTransport:
    """For code that is written with httpx: `httpx.AsyncClient(transport=fp.httpx_transport(http), base_url="http://payments")`.

    The host of a URL is only a name, the endpoint is picked; what it took is in `response.extensions["faultproof"]`, and
    `request.extensions["faultproof"]` may have options of `Client.call`. Raises what `Http.request` raises; `MissingExtra`
    without httpx.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingExtra("this transport is for httpx, which is not installed: pip install httpx") from error

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            headers = {name: value for name, value in request.headers.items() if name not in _OF_THE_CONNECTION}
            result = await http.request(
                request.method,
                request.url.raw_path.decode("ascii"),
                headers=headers,
                body=await request.aread(),
                **request.extensions.get("faultproof", {}),
            )
            status, answered, body = result.value
            kept = {name: value for name, value in answered.items() if name not in _OF_THE_CONNECTION}
            return httpx.Response(status, headers=kept, content=body, extensions={"faultproof": result})

    return Transport()


_OF_THE_CONNECTION = frozenset({"host", "connection", "content-length", "transfer-encoding", "keep-alive"})
"""These say something about one connection, and there are two."""


async def _whole(parts: AsyncIterable[bytes], request: Request) -> bytes:
    received = bytearray()
    async for part in parts:
        received += part
        if len(received) > request.answer_bytes_max:
            raise OutcomeUnknown(f"{_place(request)} answered with more than {request.answer_bytes_max:,} bytes")
    return bytes(received)


def _place(request: Request) -> str:
    """Without the query, which may have secrets in it."""
    return f"{request.method} {request.url.split('?')[0]}"

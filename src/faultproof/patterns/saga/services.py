"""Services over HTTP: what a step sends, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from faultproof.errors import Failed, InvalidInput, MissingExtra, OutcomeUnknown, TryAgain
from faultproof.patterns.saga.steps import RESULT_BYTES_MAX, StepContext

if TYPE_CHECKING:
    import httpx

LATER = frozenset({408, 409, 425, 429})
"""Refusals that say "not now"."""
RETRY_AFTER_MAX_S = 3_600.0
CONNECTIONS_MAX = 100


class Services:
    """The services that sagas call, by name.

    A call is `POST base_url/action` with `{"saga", "id", "step", "input", "results"}` as JSON and an `Idempotency-Key`
    header, the same in every attempt; a compensation also gets `result` (null if nobody knows whether the action happened)
    and `undone_key`. The answer is a JSON object of up to 262,144 bytes, or nothing. 2xx: done. 4xx: refused, and not tried
    again, but for 408, 409, 425 and 429, which say "later" (with Retry-After in seconds). Anything else, a timeout or a cut
    connection: unknown. Redirects are not followed, cookies not kept, compressed answers not unpacked (some kilobytes
    would be gigabytes), and no proxy is taken from the environment.

    Use it as a context manager, or `close` it.
    """

    def __init__(self, urls: Mapping[str, str], *, headers: Mapping[str, str] | None = None) -> None:
        """`urls`: service -> base URL, http or https. `headers`: sent with every call (a token, for example). Raises
        `InvalidInput` for a URL that is none, `MissingExtra` without httpx."""
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("steps over HTTP need httpx: pip install faultproof[saga]") from error
        self._urls = {name: _checked(name, url) for name, url in urls.items()}
        self._httpx = httpx
        self._client = httpx.AsyncClient(
            headers=dict(headers or {}),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # or they are kept without a bound
            follow_redirects=False,
            trust_env=False,
            timeout=3_600.0,  # each step has its own around the call, and that one counts
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
        )

    async def __aenter__(self) -> Services:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def action(self, service: str, action: str) -> Callable[[StepContext[Any]], Awaitable[dict[str, Any]]]:
        """A step's action. Raises `InvalidInput` for a service that has no URL."""
        url = self._url(service, action)

        async def call(context: StepContext[Any]) -> dict[str, Any]:
            return await self._post(url, context, {})

        return call

    def compensation(self, service: str, action: str) -> Callable[[StepContext[Any], Any], Awaitable[None]]:
        """A step's undo. Raises `InvalidInput` for a service that has no URL."""
        url = self._url(service, action)

        async def call(context: StepContext[Any], result: Any) -> None:
            await self._post(url, context, {"result": result, "undone_key": context.undone_key})

        return call

    def _url(self, service: str, action: str) -> str:
        if service not in self._urls:
            known = ", ".join(sorted(self._urls)) or "none"
            raise InvalidInput(f"the service {service!r} has no URL: give one (there are: {known})")
        return f"{self._urls[service]}/{action}"

    async def _post(self, url: str, context: StepContext[Any], more: dict[str, Any]) -> dict[str, Any]:
        body = {
            "saga": context.saga,
            "id": context.id,
            "step": context.step,
            "input": context.input,
            "results": context.results(),
            **more,
        }
        headers = {
            b"Idempotency-Key": context.key.encode(),  # as bytes: names may have letters that are not in ASCII
            b"Content-Type": b"application/json",
            b"Accept": b"application/json",
            b"Accept-Encoding": b"identity",
        }
        try:
            async with self._client.stream("POST", url, content=msgspec.json.encode(body), headers=headers) as answer:
                return _judged(url, answer, await self._read(answer))
        except self._httpx.ConnectError as error:  # nothing was sent
            raise TryAgain(f"{url} cannot be reached: {error}") from error
        except self._httpx.HTTPError as error:
            raise OutcomeUnknown(f"no answer from {url}: {type(error).__name__} {error}") from error

    async def _read(self, answer: httpx.Response) -> bytes:
        received = bytearray()
        async for chunk in answer.aiter_raw():
            received += chunk
            if len(received) > RESULT_BYTES_MAX:
                if answer.is_success:
                    raise OutcomeUnknown(f"{answer.url} answered with more than {RESULT_BYTES_MAX} bytes")
                break
        return bytes(received)


def _judged(url: str, answer: httpx.Response, body: bytes) -> dict[str, Any]:
    status = answer.status_code
    if 200 <= status < 300:
        if not body.strip():
            return {}
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (ValueError, RecursionError) as error:
            raise OutcomeUnknown(f"{url} answered {status} with what is no JSON object: {error}") from error
    words = f"{url} answered {status}: {body[:200].decode('utf-8', 'replace')}"
    if status in LATER:
        raise TryAgain(words, retry_after=_retry_after(answer.headers.get("Retry-After")))
    if 400 <= status < 500:
        raise Failed(words)
    raise OutcomeUnknown(words)


def _retry_after(value: str | None) -> float | None:
    """Seconds; a date is not understood, and the step's own pauses do."""
    return min(float(value), RETRY_AFTER_MAX_S) if value is not None and value.isascii() and value.isdigit() else None


def _checked(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"the URL of service {name!r} is none: {url!r}") from error
    if usable and "@" in parts.netloc:
        raise InvalidInput(f"the URL of service {name!r} has a password in it, which errors would show: give `headers`")
    if not usable or parts.query or parts.fragment or not url.isprintable():
        raise InvalidInput(f"the URL of service {name!r} must be http(s)://host[:port][/path], got {url!r}")
    return url.rstrip("/")

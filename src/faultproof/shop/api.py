"""The shop's API: `POST /orders` with an `Idempotency-Key`. Every input is bounded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from faultproof.errors import (
    FaultproofError,
    InvalidInput,
    KeyReused,
    Misuse,
    OutcomeUnknown,
    PayloadTooLarge,
    TryAgain,
)
from faultproof.patterns.bulkhead import Bulkhead, BulkheadPolicy
from faultproof.shop.baskets import ITEMS_MAX, Basket, basket

BODY_BYTES_MAX = 256 * 1024
KEY_CHARS_MAX = 100
UNITS_MAX = 10_000
TENANT_CHARS_MAX = 40
TENANTS = BulkheadPolicy(concurrency=64, queue=64, wait=2.0)
"""Of one API process; one tenant has half of it."""


class Service(Protocol):
    """What the API needs: `Orders`, or a broken one in its place."""

    async def take(self, key: str, basket: Basket) -> str:
        """Take the order, or find that it was taken before; its id."""
        ...

    async def close(self) -> None:
        """Finish what was accepted."""
        ...


class NewOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /orders`. An item named twice is sold twice."""

    items: list[str]


class Answer(NamedTuple):
    """Status, and what the body says."""

    status: int
    content: dict[str, str]


def application(service: Service, tenants: Bulkhead) -> Starlette:
    """The API as an ASGI application. A tenant that orders as fast as it can leaves the others their part of `tenants`."""

    async def orders(request: Request) -> Response:
        tenant = request.headers.get("tenant", "")
        answer = await answered(
            request.headers.get("idempotency-key"), lambda: _body(request), service, tenants, tenant
        )
        return Response(msgspec.json.encode(answer.content), answer.status, media_type="application/json")

    return Starlette(routes=[Route("/orders", orders, methods=["POST"])])


async def answered(
    key: str | None,
    read: Callable[[], Awaitable[bytes]],
    service: Service,
    tenants: Bulkhead,
    tenant: str = "",
) -> Answer:
    """Take the order that a request describes, and put what became of it into words.

    201: the order is committed, now or by an earlier request with this key. 4xx: it never will be, as it stands. 503:
    nothing happened, or nobody knows; either way the same request may be sent again.
    """
    try:
        key, lines = _checked_key(key), _basket(await read())
        async with tenants.permit(tenant=_checked_tenant(tenant)):
            id = await service.take(key, lines)
    except PayloadTooLarge as error:
        return _refusal(413, error)
    except KeyReused as error:
        return _refusal(409, error)
    except Misuse as error:
        return _refusal(400, error)
    except TryAgain as error:
        return _refusal(503, error)
    except OutcomeUnknown as error:
        return _refusal(503, error)
    return Answer(201, {"order": id})


def _refusal(status: int, error: FaultproofError) -> Answer:
    return Answer(status, {"error": str(error)})


def _checked_key(key: str | None) -> str:
    if key is None or not 1 <= len(key) <= KEY_CHARS_MAX or not (key.isascii() and key.isprintable()):
        raise InvalidInput(f"send an Idempotency-Key header of 1 to {KEY_CHARS_MAX} printable ASCII characters")
    return key


def _checked_tenant(tenant: str) -> str:
    if len(tenant) > TENANT_CHARS_MAX or not ((tenant.isascii() and tenant.replace("-", "a").isalnum()) or not tenant):
        raise InvalidInput(f"a Tenant header has up to {TENANT_CHARS_MAX} letters, digits and '-'")
    return tenant


def _basket(body: bytes) -> Basket:
    try:
        items = msgspec.json.decode(body, type=NewOrder).items
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f'the body is not {{"items": ["…", …]}}: {error}') from error
    if len(items) > UNITS_MAX:
        raise InvalidInput(f"an order has at most {UNITS_MAX} units of at most {ITEMS_MAX} items, not {len(items)}")
    return basket(items)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:  # before it is read to its end: a client may send for ever
            raise PayloadTooLarge(
                f"an order has at most {BODY_BYTES_MAX} bytes: split it",
                size_bytes=len(body),
                limit_bytes=BODY_BYTES_MAX,
            )
    return bytes(body)

"""The API's inputs and answers, each limit with the value at it and the value beyond it."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from faultproof.errors import Busy, FaultproofError, KeyReused, OutcomeUnknown
from faultproof.patterns.bulkhead import Bulkhead, BulkheadPolicy
from faultproof.shop.api import application
from faultproof.shop.baskets import Basket, Line

pytestmark = pytest.mark.anyio


class Till:
    """A service that only takes notes, or fails as told."""

    def __init__(self, error: FaultproofError | None = None) -> None:
        self.took: list[tuple[str, Basket]] = []
        self._error = error
        self.tenants = Bulkhead(policy=BulkheadPolicy(concurrency=2, queue=0), name="tenants")

    async def take(self, key: str, basket: Basket) -> str:
        if self._error is not None:
            raise self._error
        self.took.append((key, basket))
        return "o1"

    async def close(self) -> None:
        pass


async def post(till: Till, body: bytes | dict[str, object], key: str | None = "k1") -> tuple[int, dict[str, str]]:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    status, answer = await request(till, iter([content]), {} if key is None else {"idempotency-key": key})
    return status, msgspec.json.decode(answer)


async def request(
    till: Till, body: Iterator[bytes], headers: dict[str, str], method: str = "POST", path: str = "/orders"
) -> tuple[int, bytes]:
    """Call the application as a server does; the body is drawn as it is asked for."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        chunk = next(body, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    await application(till, till.tenants)(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def test_order_is_taken_with_repeated_items_added_up() -> None:
    till = Till()
    assert await post(till, {"items": ["milk", "eggs", "milk"]}) == (201, {"order": "o1"})
    assert till.took == [("k1", (Line("eggs", 1), Line("milk", 2)))]


async def test_a_tenant_that_has_its_part_is_told_to_come_back_and_the_others_are_served() -> None:
    till = Till()
    held = till.tenants.permits.try_enter("loud")
    assert held is not None
    order = msgspec.json.encode({"items": ["milk"]})

    async def ordered(tenant: str) -> int:
        status, _ = await request(till, iter([order]), {"idempotency-key": "k1", "tenant": tenant})
        return status

    assert [await ordered(tenant) for tenant in ("loud", "quiet", "", "a b", "x" * 41, "-")] == [
        503,
        201,
        201,
        400,
        400,
        201,
    ]
    till.tenants.permits.leave(held)
    assert await ordered("loud") == 201


@pytest.mark.parametrize("key", [None, "", "x" * 101, "tab\there"])
async def test_order_without_a_usable_key_is_refused(key: str | None) -> None:
    till = Till()
    status, said = await post(till, {"items": ["milk"]}, key)
    assert (status, "Idempotency-Key" in said["error"], till.took) == (400, True, [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b'{"items": "milk"}',
        b'{"items": [1]}',
        b'{"items": []}',
        b'{"items": [""]}',
        b'{"items": ["milk"], "price": 0}',
        b'{"items": ["\\ud800"]}',
        b'{"items": ["a\\u0000b"]}',
        b'{"items": [' + b"[" * 100_000,
        {"items": ["x" * 201]},
        {"items": [f"item {number}" for number in range(501)]},
        {"items": ["a"] * 10_001},
    ],
    ids=lambda body: (body if isinstance(body, bytes) else msgspec.json.encode(body))[:30].decode("ascii", "replace"),
)
async def test_body_that_is_no_order_is_refused_with_a_sentence(body: bytes | dict[str, object]) -> None:
    till = Till()
    status, said = await post(till, body)
    assert (status, till.took) == (400, [])
    assert said["error"]


async def test_order_at_its_limits_is_taken() -> None:
    till = Till()
    assert (await post(till, {"items": [f"{number:0200}" for number in range(500)]}, "x" * 100))[0] == 201
    assert (await post(till, {"items": ["a"] * 10_000}))[0] == 201
    assert len(till.took) == 2


async def test_endless_body_is_refused_at_the_limit_and_read_no_further() -> None:
    till = Till()
    drawn: list[None] = []

    def endless() -> Iterator[bytes]:
        while True:
            drawn.append(None)
            yield b" " * 65_536

    status, said = await request(till, endless(), {"idempotency-key": "k1"})
    assert (status, till.took, len(drawn)) == (413, [], 5)
    assert b"262144 bytes" in said


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyReused("other content"), 409), (Busy("locked"), 503), (OutcomeUnknown("perhaps"), 503)],
)
async def test_what_became_of_an_order_shows_in_the_status(error: FaultproofError, status: int) -> None:
    assert await post(Till(error), {"items": ["milk"]}) == (status, {"error": str(error)})


async def test_other_paths_and_methods_are_not_there() -> None:
    assert (await request(Till(), iter(()), {}, method="GET"))[0] == 405
    assert (await request(Till(), iter(()), {}, path="/"))[0] == 404

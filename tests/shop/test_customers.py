"""Customers: one key an order however often it is sent, and nothing counts before it is in the journal."""

from pathlib import Path

import pytest

from faultproof.errors import FaultproofError
from faultproof.shop.baskets import Line, basket, generated
from faultproof.shop.customers import PATIENCE_S, Customers, Unanswered
from faultproof.shop.http import Connection, Unreachable
from faultproof.shop.journal import Answered, Journal, Sent, read_journal
from tests.fakes import ManualClock, env_of, within
from tests.shop.servers import Reply, created, serving

pytestmark = pytest.mark.anyio


async def ordered(
    reply: Reply, path: Path, *, orders: int = 1, count: int = 1
) -> tuple[Customers, list[Sent | Answered]]:
    """Let customers order from a server; they and their journal."""
    env = env_of(clock=ManualClock(flows=True))
    journal = Journal(path / "journal", env)
    async with serving(reply) as port:
        baskets = [basket(["milk"])] * orders
        customers = Customers(env, [port], baskets, journal, seed=7, count=count)
        try:
            await within(customers.run())
        finally:
            await journal.close()
    return customers, read_journal(path / "journal")


def key_in(request: bytes) -> str:
    return request.lower().partition(b"idempotency-key: ")[2].split(b"\r\n")[0].decode()


async def test_order_is_journaled_before_and_after(tmp_path: Path) -> None:
    _, journal = await ordered(lambda request: created(), tmp_path)
    assert journal == [Sent("7-0", [Line("milk", 1)]), Answered("7-0", 201, "o1")]


async def test_order_without_an_answer_is_sent_again_under_its_key(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def reply(request: bytes) -> bytes | None:
        seen.append(request)
        if len(seen) < 3:
            return None
        return b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" if len(seen) < 5 else created()

    customers, journal = await ordered(reply, tmp_path)
    assert [key_in(request) for request in seen] == ["7-0"] * 5
    assert len(set(seen)) == 1
    assert customers.progress.retries == 4
    assert journal[1:] == [Answered("7-0", 201, "o1")]


async def test_refusal_is_an_answer(tmp_path: Path) -> None:
    _, journal = await ordered(lambda request: b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", tmp_path)
    assert journal[1:] == [Answered("7-0", 400, None)]


async def test_patience_ends(tmp_path: Path) -> None:
    said = b'{"error": "locked by somebody"}'
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
    with pytest.raises(ExceptionGroup) as group:
        await ordered(lambda request: answer, tmp_path)
    (error,) = group.value.exceptions
    assert isinstance(error, Unanswered)
    assert isinstance(error, FaultproofError)
    assert (error.said, f"{PATIENCE_S:.0f} s" in str(error)) == ("locked by somebody", True)
    assert [entry for entry in read_journal(tmp_path / "journal") if isinstance(entry, Answered)] == []


async def test_every_order_is_taken_once_by_many_customers_and_some_ask_twice(tmp_path: Path) -> None:
    seen: list[str] = []

    def reply(request: bytes) -> bytes:
        seen.append(key_in(request))
        return created()

    _, journal = await ordered(reply, tmp_path, orders=300, count=8)
    assert len(set(seen)) == 300
    assert 300 < len(seen) < 330
    assert len([entry for entry in journal if isinstance(entry, Answered)]) == len(seen)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 201 Created\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: x\r\n\r\n",
        b"nonsense\r\nContent-Length: 0\r\n\r\n",
        b"x" * 200_000,
    ],
    ids=["cut", "no-length", "huge", "negative", "no-number", "no-status", "no-head"],
)
async def test_answer_that_is_none_leaves_the_outcome_open(answer: bytes | None) -> None:
    replies = iter([answer, created()])
    async with serving(lambda request: next(replies)) as port:
        connection = Connection(port)
        with pytest.raises(Unreachable):
            await within(connection.post("/orders", {}, b"{}", timeout=5.0))
        assert (await within(connection.post("/orders", {}, b"{}", timeout=5.0))).status == 201
        connection.close()


async def test_server_that_is_not_there() -> None:
    async with serving(lambda request: None) as port:
        pass
    with pytest.raises(Unreachable):
        await within(Connection(port).post("/orders", {}, b"{}", timeout=5.0))


def test_generated_orders_fit_the_api() -> None:
    assert all(1 <= len(lines) <= 10 for lines in generated(100, seed=1))

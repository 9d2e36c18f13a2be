"""The provider that the shop's sagas have to live with: once for each key, whatever becomes of the answers."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from faultproof.shop.http import Connection, Response, Unreachable
from faultproof.shop.processes import listen
from faultproof.shop.provider import Terms

pytestmark = pytest.mark.anyio
WAIT_S = 20.0


class Running:
    """A provider in a process of its own."""

    def __init__(self, tmp_path: Path, **terms: float) -> None:
        self.path = str(tmp_path / "provider.db")
        (self.listener,) = listen(1)
        self.port = self.listener.getsockname()[1]
        said = Terms(listener=self.listener.fileno(), path=self.path, seed=1, **terms)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faultproof.shop.provider"],
            stdin=subprocess.PIPE,
            pass_fds=[self.listener.fileno()],
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(said) + b"\n")
        self.process.stdin.flush()
        self.connection = Connection(self.port)

    async def call(self, path: str, key: str, **asked: object) -> Response:
        body = msgspec.json.encode({"order": "o-1", **asked})
        return await self.connection.post(path, {"Idempotency-Key": key}, body, timeout=WAIT_S)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(query).fetchall()

    def end(self) -> None:
        self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.listener.close()


QUIET = {"declined": 0.0, "refused": 0.0, "failed": 0.0, "lost": 0.0, "late": 0.0}


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path, **QUIET)
    yield running
    running.end()


async def test_same_key_is_the_same_work(quiet: Running) -> None:
    first = await quiet.call("/payment/charge_card", "k-1", amount=250)
    second = await quiet.call("/payment/charge_card", "k-1", amount=250)
    assert first == second
    assert first.status == 200
    assert quiet.rows("SELECT key, action, order_id, amount FROM done") == [("k-1", "charge", "o-1", 250)]


async def test_a_key_of_other_work_is_refused(quiet: Running) -> None:
    await quiet.call("/payment/charge_card", "k-1", amount=250)
    answer = await quiet.call("/shipping/create_shipment", "k-1")
    assert answer.status == 402
    assert len(quiet.rows("SELECT * FROM done")) == 1


async def test_refund_is_of_what_was_charged(quiet: Running) -> None:
    await quiet.call("/payment/charge_card", "k-1", amount=250)
    answer = await quiet.call("/payment/refund_card", "k-2", of="k-1")
    assert msgspec.json.decode(answer.body)["amount"] == 250


async def test_what_was_undone_before_it_came_is_not_done(quiet: Running) -> None:
    undo = await quiet.call("/payment/refund_card", "k-2", of="k-1")
    assert msgspec.json.decode(undo.body)["amount"] == 0
    late = await quiet.call("/payment/charge_card", "k-1", amount=250)
    assert late.status == 409
    assert quiet.rows("SELECT key FROM done") == [("k-2",)]


async def test_lost_answers_are_of_work_that_is_done(tmp_path: Path) -> None:
    running = Running(tmp_path, **{**QUIET, "lost": 1.0})
    with pytest.raises(Unreachable):
        await running.call("/payment/charge_card", "k-1", amount=250)
    assert running.rows("SELECT key, amount FROM done") == [("k-1", 250)]
    assert running.rows("SELECT fate FROM call") == [("lost",)]
    running.end()


async def test_failed_calls_have_done_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path, **{**QUIET, "failed": 1.0})
    assert (await running.call("/payment/charge_card", "k-1", amount=250)).status == 503
    assert running.rows("SELECT * FROM done") == []
    running.end()


async def test_declined_orders_are_declined_for_good_and_fates_are_as_often_as_said(tmp_path: Path) -> None:
    running = Running(tmp_path, declined=0.2, failed=0.1, lost=0.2, late=0.0, slow_s=0.0)
    declined = Counter[str]()
    for number in range(150):
        for attempt in range(20):
            try:
                answer = await running.call("/payment/charge_card", f"k-{number}", order=f"order-{number}", amount=1)
            except Unreachable:
                continue
            if answer.status != 503:
                declined[f"{answer.status}"] += 1
                break
            assert attempt < 19
    assert 15 <= declined["402"] <= 45
    fates = Counter(str(fate) for (fate,) in running.rows("SELECT fate FROM call"))
    assert fates["lost"] > 15
    assert fates["failed"] > 8
    assert len(running.rows("SELECT * FROM done")) == declined["200"]
    running.end()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"order": 1}', b'{"order": "o", "else": 1}', b'{"order": "\xff"}', b"x" * 20_000]
)
async def test_nonsense_is_refused(quiet: Running, body: bytes) -> None:
    answer = await quiet.connection.post("/payment/charge_card", {"Idempotency-Key": "k"}, body, timeout=WAIT_S)
    assert answer.status == 400
    assert quiet.rows("SELECT * FROM call") == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b'GET /payment/charge_card HTTP/1.1\r\nIdempotency-Key: k\r\nContent-Length: 13\r\n\r\n{"order":"o"}', b"400"),
        (b"POST /payment/charge_card HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /payment/charge_card HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"\xff\xfe\r\n\r\n", b"400"),
        (b"POST /nowhere HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /payment/charge_card HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"400"),  # without a key
        (b"x" * 100_000, b""),
    ],
)
async def test_what_is_no_request_is_refused(quiet: Running, sent: bytes, status: bytes) -> None:
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", quiet.port)
        writer.write(sent)
        writer.write_eof()
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
    assert answer.partition(b"\r\n")[0].removeprefix(b"HTTP/1.1 ")[:3] == status
    assert (await quiet.call("/payment/charge_card", "k-1", amount=1)).status == 200
    assert len(quiet.rows("SELECT * FROM call")) == 1


async def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    running = Running(tmp_path, **QUIET)
    await running.call("/payment/charge_card", "k-1", amount=1)
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert await asyncio.to_thread(running.process.wait, WAIT_S) == 0
    running.connection.close()
    running.listener.close()


def test_without_terms_it_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faultproof.shop.provider"], stdin=subprocess.DEVNULL, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0
    assert not os.listdir(tmp_path)

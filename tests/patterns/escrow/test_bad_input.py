"""What cannot be meant is refused with a sentence, and nothing is half done."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Closed, InvalidInput, Misuse, SchemaMismatch, TransactionOpen, UnknownHold
from faultproof.ports.database import Database
from tests.conformance.conftest import Connect

pytestmark = pytest.mark.anyio

QUANTITIES: list[Any] = [0, -1, 1.0, 1.5, "1", True, None, 10**12 + 1, 10**5000]
TEXTS: list[Any] = ["", "a\0b", "x" * 256, "ü" * 128, "\ud800", 1, None, b"milk"]


async def untouched(escrow: fp.Escrow) -> None:
    assert [item[1:] for item in await escrow.items()] == [(5, 5, 0, 0), (10, 10, 0, 0)]
    audit = await escrow.audit()
    assert (audit.violations, audit.holds) == ((), 0)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda value: repr(value)[:10] if value != 10**5000 else "huge")
async def test_a_quantity_that_is_none_is_refused(escrow: fp.Escrow, quantity: Any) -> None:
    with pytest.raises(InvalidInput, match="whole number from 1"):
        await escrow.reserve({"milk": 1, "bread": quantity}, key="o-1")
    with pytest.raises(InvalidInput, match="whole number from 1"):
        await escrow.restock("milk", quantity, key="d-1")
    await untouched(escrow)


@pytest.mark.parametrize("text", TEXTS, ids=lambda value: ascii(value)[:10])
async def test_a_name_or_key_that_is_none_is_refused(escrow: fp.Escrow, text: Any) -> None:
    for call in (
        lambda: escrow.reserve({text: 1}, key="o-1"),
        lambda: escrow.reserve({"milk": 1}, key=text),
        lambda: escrow.restock(text, 1, key="d-1"),
        lambda: escrow.restock("milk", 1, key=text),
        lambda: escrow.confirm(text),
        lambda: escrow.release(text),
        lambda: escrow.extend(text),
        lambda: escrow.hold(text),
        lambda: escrow.item(text),
    ):
        with pytest.raises(InvalidInput, match="1 to 255 bytes"):
            await call()
    await untouched(escrow)


@pytest.mark.parametrize(
    "items", [{}, [], None, "milk", {f"i{n}": 1 for n in range(101)}], ids=lambda v: type(v).__name__
)
async def test_a_hold_of_nothing_or_of_too_much_is_refused(escrow: fp.Escrow, items: Mapping[str, int]) -> None:
    with pytest.raises(InvalidInput, match="1 to 100 items"):
        await escrow.reserve(items, key="o-1")
    await untouched(escrow)


@pytest.mark.parametrize("ttl", [0, -1, 1.9, 2.0, 86_401, float("nan"), float("inf"), True, "300"])
async def test_a_ttl_that_is_none_is_refused(escrow: fp.Escrow, ttl: Any) -> None:
    with pytest.raises(InvalidInput, match="ttl"):
        await escrow.reserve({"milk": 1}, key="o-1", ttl=ttl)
    with pytest.raises(InvalidInput, match="ttl"):
        await escrow.extend("o-1", ttl=ttl)
    await untouched(escrow)


@pytest.mark.parametrize(
    "options",
    [
        {"lock_timeout": 300.0},
        {"ttl": 2.0},
        {"ttl": 90_000.0},
        {"ttl": 0.0},
        {"lock_timeout": 0.0},
        {"shards": 0},
        {"shards": 257},
        {"batch": 0},
        {"overlap": 0},
        {"shed_after": 0},
        {"pending": True},
        {"ttl_max": float("inf")},
    ],
    ids=str,
)
def test_an_option_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        fp.EscrowOptions(**options)


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "a/b", 1, "stock\n"])
async def test_a_name_that_cannot_be_used_is_refused(db: Database, name: Any) -> None:
    with pytest.raises(InvalidInput, match="named with"):
        fp.Escrow(db, name=name)


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"keep": 0}, {"batch": 0}, {"batch": 10_001}, {"every": float("nan")}]
)
async def test_a_loop_that_cannot_be_meant_is_refused(escrow: fp.Escrow, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        escrow.expiry(**options)


async def test_more_than_an_item_may_have_is_refused(escrow: fp.Escrow, engine: Any) -> None:
    engine.execute("UPDATE faultproof_escrow_item SET total = 999999999999999, available = 999999999999999")
    with pytest.raises(InvalidInput, match="at most 1,000,000,000,000,000"):
        await escrow.restock("milk", 2, key="d-2")
    await escrow.restock("milk", 1, key="d-2")


async def test_what_is_not_there_is_refused(escrow: fp.Escrow) -> None:
    for call in (escrow.confirm("o-1"), escrow.release("o-1"), escrow.extend("o-1"), escrow.confirm("d-milk")):
        with pytest.raises(UnknownHold):
            await call
    for wrong in (escrow.release("d-milk"), escrow.extend("d-milk"), escrow.hold("d-milk")):
        with pytest.raises(UnknownHold):  # the key of a delivery is no hold
            await wrong
    await untouched(escrow)


@pytest.mark.parametrize("after", ["a\0b", "\ud800", 7, None, b"milk"], ids=ascii)
async def test_a_page_of_items_that_cannot_be_meant_is_refused(escrow: fp.Escrow, after: Any) -> None:
    with pytest.raises(InvalidInput, match="item"):
        await escrow.items(after=after)
    for limit in (0, -1, True, 1.5, 10**9):
        with pytest.raises(InvalidInput, match="limit"):
            await escrow.items(limit=limit)  # type: ignore[arg-type]


async def test_a_bare_call_inside_an_open_transaction_says_what_to_pass(db: Database, escrow: fp.Escrow) -> None:
    async with db.transaction():
        with pytest.raises(TransactionOpen, match="tx="):
            await escrow.reserve({"milk": 1}, key="o-1")
    await untouched(escrow)


async def test_a_transaction_that_is_none_or_another_s_is_refused(escrow: fp.Escrow, connect: Connect) -> None:
    with pytest.raises(InvalidInput, match=r"`tx` is a builtins\.str"):
        await escrow.reserve({"milk": 1}, key="o-1", tx="tx")  # type: ignore[call-overload]
    other = await connect()
    async with other.transaction() as tx:
        with pytest.raises(Misuse, match="another database"):
            await escrow.reserve({"milk": 1}, key="o-1", tx=tx)
    await untouched(escrow)


async def test_an_escrow_that_is_not_installed_or_closed_says_so(db: Database) -> None:
    escrow = fp.Escrow(db)
    with pytest.raises(SchemaMismatch, match="install"):
        await escrow.reserve({"milk": 1}, key="o-1")
    with pytest.raises(SchemaMismatch, match="install"):
        await escrow.expiry().open()
    await escrow.close()
    with pytest.raises(Closed):
        await escrow.reserve({"milk": 1}, key="o-1")


async def test_a_synchronous_connection_of_the_user_s_is_joined(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with fp.connect(f"sqlite:///{path}") as db:
        escrow = fp.Escrow(db)
        await escrow.install()
        await escrow.restock("milk", 2, key="d-1")
        with sqlite3.connect(path) as raw:
            raw.execute("BEGIN IMMEDIATE")
            hold: fp.Hold = escrow.reserve({"milk": 2}, key="o-1", tx=fp.join(raw))
            assert hold.items == {"milk": 2}
        raw.close()
        assert (await escrow.hold("o-1")).state == "held"

"""Taking orders on a real file: once for each key, with their events or not at all, also when they come together."""

import asyncio
from pathlib import Path

import pytest

from faultproof.errors import KeyReused
from faultproof.ports.database import Database
from faultproof.shop import sql
from faultproof.shop.baskets import basket
from faultproof.shop.board import unseen
from faultproof.shop.mishandled import started_here
from faultproof.shop.orders import Orders, answers, outbox
from tests.shop.reading import rows

pytestmark = pytest.mark.anyio


@pytest.fixture
async def orders(db: Database) -> Orders:
    await db.install(sql.SCHEMA)
    await outbox(db).install()
    await answers(db).install()
    await started_here(db).install()
    return Orders(db, unseen(), started_here(db))


async def test_order_is_written_with_its_events(orders: Orders, path: Path) -> None:
    id = await orders.take("k1", basket(["milk", "eggs", "milk"]))
    assert rows(path, "SELECT id, key FROM shop_order") == [(id, "k1")]
    lines = [("eggs", 1, 1), ("milk", 2, 1)]
    assert rows(path, "SELECT item, quantity, version FROM shop_line ORDER BY item") == lines
    assert rows(path, "SELECT name, sold, version FROM shop_item ORDER BY name") == lines
    told = "payload ->> 'order', payload ->> 'item', payload ->> 'quantity', payload ->> 'version'"
    events = rows(path, f"SELECT key, {told} FROM faultproof_intake ORDER BY key")
    assert events == [("eggs", id, "eggs", 1, 1), ("milk", id, "milk", 2, 1)]


async def test_same_key_again_gets_the_first_answer_and_sells_nothing(orders: Orders, path: Path) -> None:
    first = await orders.take("k1", basket(["milk", "eggs"]))
    again = await orders.take("k1", basket(["eggs", "milk"]))
    assert again == first
    assert rows(path, "SELECT sum(sold), sum(version) FROM shop_item") == [(2, 2)]
    assert rows(path, "SELECT count(*) FROM faultproof_intake") == [(2,)]


async def test_same_key_for_other_content_is_refused(orders: Orders, path: Path) -> None:
    await orders.take("k1", basket(["milk"]))
    with pytest.raises(KeyReused, match="'k1'"):
        await orders.take("k1", basket(["milk", "milk"]))
    assert rows(path, "SELECT name, sold FROM shop_item") == [("milk", 1)]


async def test_orders_at_the_same_time_share_commits_and_keep_their_answers(orders: Orders, path: Path) -> None:
    await orders.take("spent", basket(["tea"]))
    asked = [asyncio.ensure_future(orders.take(f"k{number % 10}", basket(["milk"]))) for number in range(20)]
    with pytest.raises(KeyReused):  # alone: the others in its transaction are committed
        await orders.take("spent", basket(["milk"]))
    taken = await asyncio.gather(*asked)
    assert taken[10:] == taken[:10]
    assert len(set(taken)) == 10
    assert rows(path, "SELECT sold, version FROM shop_item WHERE name = 'milk'") == [(10, 10)]
    assert rows(path, "SELECT count(DISTINCT key) FROM shop_order") == [(11,)]
    versions = rows(path, "SELECT payload ->> 'version' FROM faultproof_intake WHERE key = 'milk' ORDER BY id")
    assert versions == [(number,) for number in range(1, 11)]

"""Holds: made, confirmed, released, extended, expired; all or nothing; the same key is the same hold."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import pytest

import faultproof as fp
from faultproof.errors import HoldEnded, HoldExpired, InsufficientStock, KeyReused, UnknownHold, UnknownItem
from faultproof.patterns.escrow.expiry import Expiry
from faultproof.ports.database import Database
from faultproof.ports.script import Inline, Script, sql
from faultproof.signals import HOLDS_EXPIRED
from tests.conformance.conftest import Connect
from tests.conformance.engines import Engine
from tests.fakes import Recorder
from tests.patterns.escrow.conftest import Elapse

pytestmark = pytest.mark.anyio


async def numbers(escrow: fp.Escrow, item: str = "milk") -> tuple[int, int, int, int]:
    """Total, available, reserved, sold; of books that are in order."""
    assert (await escrow.audit()).violations == ()
    return (await escrow.item(item))[1:]


async def run(loop: Expiry) -> None:
    """What a worker does until the loop wants to rest."""
    news = await loop.open()
    try:
        while not await loop.step():
            pass
    finally:
        news.close()


async def test_what_is_held_is_confirmed_or_released(escrow: fp.Escrow) -> None:
    hold = await escrow.reserve({"milk": 3, "bread": 1}, key="o-1")
    assert (hold.key, hold.items, hold.state) == ("o-1", {"milk": 3, "bread": 1}, "held")
    assert hold.left_s == pytest.approx(300.0)
    assert await numbers(escrow) == (10, 7, 3, 0)
    assert (await escrow.hold("o-1")).state == "held"
    assert (await escrow.confirm("o-1")).state == "confirmed"
    assert await numbers(escrow) == (10, 7, 0, 3)
    await escrow.reserve({"milk": 7}, key="o-2")
    assert (await escrow.release("o-2")).state == "released"
    assert await numbers(escrow) == (10, 7, 0, 3)
    assert [item.item for item in await escrow.items()] == ["bread", "milk"]
    assert [item.item for item in await escrow.items(after="bread", limit=1)] == ["milk"]


async def test_no_more_is_held_than_there_is(escrow: fp.Escrow) -> None:
    await escrow.reserve({"milk": 8}, key="o-1")
    with pytest.raises(InsufficientStock) as refused:
        await escrow.reserve({"milk": 3}, key="o-2")
    assert (refused.value.item, refused.value.wanted, refused.value.available, refused.value.reserved) == (
        "milk",
        3,
        2,
        8,
    )
    with pytest.raises(UnknownHold):
        await escrow.hold("o-2")
    await escrow.reserve({"milk": 2}, key="o-3")  # the last ones
    assert await numbers(escrow) == (10, 0, 10, 0)


async def test_a_hold_is_of_all_its_items_or_of_none(escrow: fp.Escrow) -> None:
    with pytest.raises(InsufficientStock):
        await escrow.reserve({"milk": 1, "bread": 6}, key="o-1")
    with pytest.raises(UnknownItem):
        await escrow.reserve({"milk": 1, "beer": 1}, key="o-1")
    assert await numbers(escrow) == (10, 10, 0, 0)


async def test_a_hold_of_what_is_not_there_is_refused_at_first_sight(escrow: fp.Escrow) -> None:
    for items in ({"beer": 1}, {"milk": 1, "beer": 1}):
        with pytest.raises(UnknownItem):
            await fp.Escrow(escrow._database).reserve(items, key="o-1")
        with pytest.raises(UnknownHold):
            await escrow.hold("o-1")
    assert await numbers(escrow) == (10, 10, 0, 0)


async def test_of_many_at_once_just_so_many_are_held_as_there_are(escrow: fp.Escrow, connect: Connect) -> None:
    others = [escrow, *[fp.Escrow(await connect()) for _ in range(3)]]
    asked = [others[n % 4].reserve({"milk": 1}, key=f"o-{n}") for n in range(40)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, fp.Hold) for answer in answers) == 10
    assert sum(isinstance(answer, InsufficientStock) for answer in answers) == 30
    assert await numbers(escrow) == (10, 0, 10, 0)


async def test_the_same_key_is_the_same_hold(escrow: fp.Escrow) -> None:
    first = await escrow.reserve({"milk": 2, "bread": 1}, key="o-1")
    again = await escrow.reserve({"bread": 1, "milk": 2}, key="o-1")
    assert again.until_us == first.until_us
    twice = await asyncio.gather(*(escrow.reserve({"milk": 1}, key="o-2") for _ in range(5)))
    assert len({hold.until_us for hold in twice}) == 1
    assert await numbers(escrow) == (10, 7, 3, 0)
    await escrow.confirm("o-1")
    assert (await escrow.confirm("o-1")).state == "confirmed"
    assert (await escrow.reserve({"milk": 2, "bread": 1}, key="o-1")).state == "confirmed"
    await escrow.release("o-2")
    assert (await escrow.release("o-2")).state == "released"
    with pytest.raises(HoldEnded):
        await escrow.reserve({"milk": 1}, key="o-2")
    assert await numbers(escrow) == (10, 8, 0, 2)


async def test_the_same_key_with_other_content_is_refused(escrow: fp.Escrow) -> None:
    await escrow.reserve({"milk": 2}, key="o-1")
    for other in (
        escrow.reserve({"milk": 3}, key="o-1"),
        escrow.reserve({"bread": 2}, key="o-1"),
        escrow.reserve({"milk": 2}, key="o-1", ttl=10),
        escrow.restock("milk", 2, key="o-1"),
        escrow.restock("beer", 2, key="o-1"),
        escrow.restock("milk", 9, key="d-milk"),
        escrow.reserve({"milk": 10}, key="d-milk"),
    ):
        with pytest.raises(KeyReused):
            await other
    assert await numbers(escrow) == (10, 8, 2, 0)
    with pytest.raises(UnknownItem):  # half of a refused delivery would be an item without stock
        await escrow.item("beer")


async def test_two_at_once_with_one_key_and_different_items_are_one_hold_and_one_refusal(
    escrow: fp.Escrow, connect: Connect
) -> None:
    other = fp.Escrow(await connect())
    for n in range(10):
        answers = await asyncio.gather(
            escrow.reserve({"milk": 1}, key=f"o-{n}"),
            other.reserve({"bread": 1}, key=f"o-{n}"),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) in (
            ["Hold", "KeyReused"],
            ["Hold", "InsufficientStock"],
        )
    assert (await escrow.audit()).violations == ()


async def test_a_delivery_counts_once(escrow: fp.Escrow) -> None:
    assert (await escrow.restock("milk", 5, key="d-2")).total == 15
    assert (await escrow.restock("milk", 5, key="d-2")).total == 15
    assert await numbers(escrow) == (15, 15, 0, 0)


async def test_deliveries_that_make_an_item_at_the_same_time_all_count(escrow: fp.Escrow, connect: Connect) -> None:
    others = [fp.Escrow(await connect()) for _ in range(4)]
    await asyncio.gather(*(other.restock("beer", 3, key=f"d-{n}") for n, other in enumerate(others)))
    assert await numbers(escrow, "beer") == (12, 12, 0, 0)


async def test_an_expired_hold_cannot_be_confirmed_and_its_stock_is_there_again(
    escrow: fp.Escrow, elapse: Elapse, recorder: Recorder
) -> None:
    await escrow.reserve({"milk": 10, "bread": 5}, key="o-1", ttl=10)
    elapse(10.001)
    assert (await escrow.hold("o-1")).state == "expired"
    before = await escrow.audit()
    assert (before.violations, before.holds, before.overdue) == ((), 1, 1)
    await run(escrow.expiry())
    assert await numbers(escrow) == (10, 10, 0, 0)
    assert recorder.values(HOLDS_EXPIRED, escrow="stock") == [1]
    for late in (escrow.confirm("o-1"), escrow.release("o-1"), escrow.extend("o-1")):
        with pytest.raises(HoldExpired):
            await late
    await run(escrow.expiry())
    assert await numbers(escrow) == (10, 10, 0, 0)


async def test_confirm_after_its_time_is_refused_although_no_loop_runs(escrow: fp.Escrow, elapse: Elapse) -> None:
    await escrow.reserve({"milk": 4, "bread": 1}, key="o-1", ttl=10)
    elapse(10.001)
    with pytest.raises(HoldExpired):
        await escrow.confirm("o-1")
    assert await numbers(escrow) == (10, 10, 0, 0)


async def test_stock_of_expired_holds_is_sold_although_no_loop_runs(escrow: fp.Escrow, elapse: Elapse) -> None:
    await escrow.reserve({"milk": 6, "bread": 1}, key="o-1", ttl=10)
    await escrow.reserve({"milk": 4}, key="o-2", ttl=10)
    elapse(10.001)
    await escrow.reserve({"milk": 10}, key="o-3")
    assert await numbers(escrow) == (10, 0, 10, 0)
    assert await numbers(escrow, "bread") == (5, 5, 0, 0)


async def test_an_extended_hold_lasts_longer_and_never_shorter(escrow: fp.Escrow, elapse: Elapse) -> None:
    first = await escrow.reserve({"milk": 1}, key="o-1", ttl=20)
    elapse(15)
    longer = await escrow.extend("o-1", ttl=20)
    assert longer.left_s == pytest.approx(20)
    assert (await escrow.extend("o-1", ttl=3)).until_us == longer.until_us
    elapse(10)
    await run(escrow.expiry())
    assert (await escrow.confirm("o-1")).state == "confirmed"
    assert first.left_s == pytest.approx(20)


async def test_a_hold_that_is_over_stays_as_it_is(escrow: fp.Escrow, elapse: Elapse) -> None:
    await escrow.reserve({"milk": 1}, key="sold", ttl=10)
    await escrow.confirm("sold")
    await escrow.reserve({"milk": 1}, key="back", ttl=10)
    await escrow.release("back")
    elapse(11)
    await run(escrow.expiry())
    for wrong in (escrow.release("sold"), escrow.extend("sold"), escrow.confirm("back"), escrow.extend("back")):
        with pytest.raises(HoldEnded) as ended:
            await wrong
        assert not isinstance(ended.value, HoldExpired)
    assert await numbers(escrow) == (10, 9, 0, 1)


async def test_of_confirm_and_expiry_one_wins(escrow: fp.Escrow, elapse: Elapse, connect: Connect) -> None:
    other = fp.Escrow(await connect())
    for n in range(10):
        await escrow.reserve({"milk": 1}, key=f"o-{n}", ttl=10)
    elapse(9.9)
    asked: list[Awaitable[object]] = [escrow.confirm(f"o-{n}") for n in range(0, 10, 2)]
    tasks = [asyncio.ensure_future(each) for each in asked]
    elapse(0.2)
    await asyncio.gather(
        *tasks, run(other.expiry()), *(escrow.confirm(f"o-{n}") for n in range(1, 10, 2)), return_exceptions=True
    )
    states = [(await escrow.hold(f"o-{n}")).state for n in range(10)]
    confirmed = states.count("confirmed")
    assert set(states) <= {"confirmed", "expired"}
    assert await numbers(escrow) == (10, 10 - confirmed, 0, confirmed)


async def test_keys_are_forgotten_after_a_while_and_not_before(escrow: fp.Escrow, elapse: Elapse) -> None:
    await escrow.reserve({"milk": 1, "bread": 1}, key="o-1", ttl=10)
    await escrow.confirm("o-1")
    await escrow.reserve({"milk": 1}, key="o-2", ttl=80_000)
    elapse(50)
    await run(escrow.expiry(keep=60.0))
    assert (await escrow.hold("o-1")).state == "confirmed"
    elapse(11)
    await run(escrow.expiry(keep=60.0, batch=1))
    with pytest.raises(UnknownHold):
        await escrow.hold("o-1")
    assert (await escrow.hold("o-2")).state == "held"
    assert await numbers(escrow) == (10, 8, 1, 1)


@sql("INSERT INTO told (key, items) VALUES (:key, :items)")
def insert_told(key: str, items: int) -> None: ...


def tell(hold: fp.Hold) -> Script[None]:
    yield from insert_told(hold.key, len(hold.items))


async def test_who_wants_to_is_told_of_each_expiry_once_and_in_its_transaction(
    db: Database, escrow: fp.Escrow, elapse: Elapse, engine: Engine
) -> None:
    telling = fp.Escrow(db, on_expired=tell)
    await telling.reserve({"milk": 1, "bread": 1}, key="o-1", ttl=10)
    await telling.reserve({"milk": 1}, key="o-2", ttl=10)
    await telling.reserve({"milk": 1}, key="o-3", ttl=20)
    elapse(11)
    with pytest.raises(Exception, match="told"):  # there is no such table yet: neither is anything returned
        await run(telling.expiry())
    assert await numbers(escrow) == (10, 7, 3, 0)
    engine.execute("CREATE TABLE told (key TEXT NOT NULL, items BIGINT NOT NULL)")
    await run(telling.expiry())
    await run(telling.expiry())
    with pytest.raises(HoldExpired):
        await telling.confirm("o-1")
    assert sorted(engine.execute("SELECT key, items FROM told")) == [("o-1", 2), ("o-2", 1)]


async def test_a_hold_commits_or_vanishes_with_the_transaction_that_it_was_made_in(
    db: Database, escrow: fp.Escrow
) -> None:
    with suppress(ZeroDivisionError):
        async with db.transaction() as tx:
            await escrow.reserve({"milk": 1}, key="o-1", tx=tx)
            raise ZeroDivisionError
    assert await numbers(escrow) == (10, 10, 0, 0)
    async with db.transaction() as tx:
        hold = await escrow.reserve({"milk": 1}, key="o-1", tx=tx)
        await escrow.extend("o-1", tx=tx)
        with pytest.raises(InsufficientStock):
            await escrow.reserve({"milk": 10}, key="o-2", tx=tx)
        await escrow.restock("beer", 4, key="d-9", tx=tx)
        await escrow.reserve({"beer": 4}, key="o-3", tx=tx)
        await escrow.release("o-3", tx=tx)
        await escrow.confirm("o-1", tx=tx)
    assert hold.state == "held"
    assert await numbers(escrow) == (10, 9, 0, 1)
    assert await numbers(escrow, "beer") == (4, 4, 0, 0)

    def both() -> Script[fp.Hold]:
        yield from escrow.reserve({"milk": 1}, key="o-4", tx=Inline())
        return (yield from escrow.confirm("o-4", tx=Inline()))

    assert (await db.transact(both)).state == "confirmed"
    assert await numbers(escrow) == (10, 8, 0, 2)


async def test_escrows_of_different_names_know_nothing_of_each_other(db: Database, escrow: fp.Escrow) -> None:
    seats = fp.Escrow(db, name="seats")
    await seats.restock("milk", 1, key="d-milk")
    await escrow.reserve({"milk": 1}, key="o-1")
    for foreign in (seats.confirm("o-1"), seats.hold("o-1"), seats.release("o-1")):
        with pytest.raises(UnknownHold):
            await foreign
    assert await numbers(seats) == (1, 1, 0, 0)
    await run(seats.expiry(keep=0.001))
    assert await numbers(escrow) == (10, 9, 1, 0)


async def test_the_audit_finds_what_somebody_has_done_by_hand(escrow: fp.Escrow, engine: Engine) -> None:
    await escrow.reserve({"milk": 2, "bread": 1}, key="o-1")
    await escrow.confirm("o-1")
    await escrow.reserve({"milk": 1, "bread": 1}, key="o-2")
    assert (await escrow.audit()).violations == ()
    for damage, expected in (
        ("UPDATE faultproof_escrow_item SET available = available + 1, reserved = reserved - 1 WHERE item = 'milk'", 1),
        ("UPDATE faultproof_escrow_item SET sold = 0, available = available + 2 WHERE item = 'milk'", 2),
        ("UPDATE faultproof_escrow_hold SET state = 'released' WHERE key = 'o-2' AND line = 0", 4),
        ("DELETE FROM faultproof_escrow_item WHERE item = 'milk'", 5),
    ):
        engine.execute(damage)
        assert len((await escrow.audit()).violations) == expected, (await escrow.audit()).violations


async def test_the_tables_themselves_refuse_to_oversell(escrow: fp.Escrow, engine: Engine) -> None:
    for wrong in (
        "UPDATE faultproof_escrow_item SET available = -1, reserved = 11 WHERE item = 'milk'",
        "UPDATE faultproof_escrow_item SET available = 11 WHERE item = 'milk'",
        "UPDATE faultproof_escrow_item SET sold = 1 WHERE item = 'milk'",
    ):
        with pytest.raises(engine.driver_error):
            engine.execute(wrong)
    assert await numbers(escrow) == (10, 10, 0, 0)

"""The audit of sagas, stock and the provider's own rows: each counter rises on the one thing that it is for."""

import sqlite3
from pathlib import Path

import pytest

from faultproof.shop.ledger import SqliteLedger
from faultproof.shop.settlement import Settlement, settle
from tests.shop.books import good, provider


def settled(tmp_path: Path, *spoil: str, at_the_provider: str | None = None) -> Settlement:
    database = good()
    for statement in spoil:
        database.execute(statement)
    return settle(SqliteLedger(database), provider(tmp_path, *([at_the_provider] if at_the_provider else [])))


def wrong(found: Settlement) -> dict[str, int]:
    return {check.name: check.violations for check in found.checks if check.violations}


def where(found: Settlement) -> list[str]:
    return [said for check in found.checks for said in check.where]


def test_good_books_pass(tmp_path: Path) -> None:
    found = settled(tmp_path)
    assert wrong(found) == {}
    assert (found.fulfilled, found.compensated, found.answers, found.answers_lost) == (2, 1, 10, 2)


def test_settling_changes_nothing(tmp_path: Path) -> None:
    database = good()
    path = provider(tmp_path)
    before = (list(database.iterdump()), path.read_bytes())
    settle(SqliteLedger(database), path)
    assert (list(database.iterdump()), path.read_bytes()) == before


@pytest.mark.parametrize("state", ["running", "compensating"])
def test_order_that_is_neither_fulfilled_nor_undone(tmp_path: Path, state: str) -> None:
    found = settled(tmp_path, f"UPDATE faultproof_saga SET state = '{state}' WHERE id = 'o3'")
    assert wrong(found) == {"unfinished": 1}
    assert where(found) == [f"order o3: its saga is {state}"]


def test_order_whose_saga_was_never_begun(tmp_path: Path) -> None:
    found = settled(tmp_path, "INSERT INTO shop_order VALUES ('o4', 'k9', 0)")
    assert wrong(found) == {"unfinished": 1}
    assert where(found) == ["order o4: its saga is never begun"]


def test_order_that_waits_for_a_person(tmp_path: Path) -> None:
    found = settled(tmp_path, "UPDATE faultproof_saga SET state = 'attention' WHERE id = 'o3'")
    assert wrong(found) == {"needs_attention": 1}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            "INSERT INTO done VALUES ('c1b', 'charge', 'o1', 375, NULL)",
            "order o1: fulfilled, charged [375, 375] for 375",
        ),
        ("DELETE FROM done WHERE key = 'c1'", "order o1: fulfilled, charged nothing for 375"),
        ("UPDATE done SET amount = 374 WHERE key = 'c1'", "order o1: fulfilled, charged [374] for 375"),
        ("INSERT INTO done VALUES ('r1', 'refund', 'o1', 375, 'c1')", "order o1: fulfilled, charged nothing for 375"),
        (
            "INSERT INTO done VALUES ('s1b', 'ship', 'o1', 1, NULL)",
            "order o1: fulfilled, charged [375] for 375, shipments [1, 1]",
        ),
        ("DELETE FROM done WHERE key = 's1'", "order o1: fulfilled, charged [375] for 375, shipments []"),
        (
            "INSERT INTO done VALUES ('x1', 'cancel', 'o1', 1, 's1')",
            "order o1: fulfilled, charged [375] for 375, shipments []",
        ),
        ("DELETE FROM done WHERE key = 'r3'", "order o3: undone, and still charged [125], shipments []"),
        ("UPDATE done SET amount = 100 WHERE key = 'r3'", "order o3: undone, and still charged [25], shipments []"),
        ("DELETE FROM done WHERE key = 'x3'", "order o3: undone, and still charged [], shipments [1]"),
        ("UPDATE done SET of = 'c2' WHERE key = 'r3'", "order o3: undone, and still charged [125, -125], shipments []"),
        (
            "INSERT INTO done VALUES ('c9', 'charge', 'o9', 5, NULL)",
            "order o9: the provider knows it, and nobody here took it",
        ),
    ],
    ids=lambda value: value.split(" WHERE")[0] if " done " in value else "",
)
def test_provider_that_has_other_rows(tmp_path: Path, spoil: str, said: str) -> None:
    found = settled(tmp_path, at_the_provider=spoil)
    assert wrong(found) == {"charge_mismatches": 1}
    assert where(found)[0].startswith(said)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("available = -1, sold = 4", "item 'eggs': -1 + 0 + 4 is not 2"),
        ("available = 2", "item 'eggs': 2 + 0 + 1 is not 2"),
        ("available = 3, reserved = -2", "item 'eggs': 3 + -2 + 1 is not 2"),
        ("total = 3, available = 2", "item 'eggs': 2 were delivered, its total is 3"),
        ("available = 0, sold = 2", "item 'eggs': 1 went out, booked as sold are 2"),
    ],
)
def test_stock_that_does_not_add_up(tmp_path: Path, spoil: str, said: str) -> None:
    found = settled(tmp_path, f"UPDATE faultproof_escrow_item SET {spoil} WHERE item = 'eggs'")
    assert wrong(found) == {"oversold": 1}
    assert where(found) == [said]


def test_more_that_went_out_than_was_there(tmp_path: Path) -> None:
    """Every hold is confirmed, and the books were made to fit."""
    found = settled(
        tmp_path,
        "UPDATE faultproof_escrow_item SET available = -2, sold = 3 WHERE item = 'milk'",
        "UPDATE faultproof_escrow_item SET total = 1 WHERE item = 'milk'",
        "UPDATE faultproof_escrow_hold SET quantity = 1 WHERE key = 'delivery of milk'",
    )
    assert wrong(found) == {"oversold": 1}


@pytest.mark.parametrize(
    ("spoil", "count"),
    [
        ("state = 'held' WHERE key = 'o1'", 2),
        ("state = 'released' WHERE key = 'o1'", 2),
        ("state = 'expired' WHERE key = 'o2'", 1),
        ("state = 'held' WHERE key = 'o3'", 1),
        ("state = 'confirmed' WHERE key = 'o3'", 1),
        ("key = 'o9' WHERE key = 'o2'", 1),
    ],
)
def test_hold_that_is_not_what_became_of_its_order(tmp_path: Path, spoil: str, count: int) -> None:
    found = settled(tmp_path, f"UPDATE faultproof_escrow_hold SET {spoil}")
    assert wrong(found) == {"orphan_holds": count}


def test_hold_that_its_time_ended_is_as_good_as_released(tmp_path: Path) -> None:
    assert wrong(settled(tmp_path, "UPDATE faultproof_escrow_hold SET state = 'expired' WHERE key = 'o3'")) == {}


def test_hold_that_is_left_when_a_run_gave_up(tmp_path: Path) -> None:
    found = settled(
        tmp_path,
        "UPDATE faultproof_escrow_hold SET state = 'held' WHERE key = 'o3'",
        "UPDATE faultproof_saga SET state = 'running' WHERE id = 'o3'",
    )
    assert wrong(found) == {"orphan_holds": 1, "unfinished": 1}


@pytest.mark.parametrize("state", ["running", "attention"])
def test_order_that_was_booked_when_a_run_gave_up_is_unfinished_and_not_oversold(tmp_path: Path, state: str) -> None:
    found = settled(
        tmp_path,
        "UPDATE faultproof_escrow_item SET available = 0, sold = 2 WHERE item = 'eggs'",
        "UPDATE faultproof_escrow_hold SET state = 'confirmed' WHERE key = 'o3'",
        f"UPDATE faultproof_saga SET state = '{state}' WHERE id = 'o3'",
    )
    assert "oversold" not in wrong(found)
    assert set(wrong(found)) == {"unfinished" if state == "running" else "needs_attention"}


def test_provider_without_books_is_no_clean_provider(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        settle(SqliteLedger(good()), tmp_path / "nowhere.db")

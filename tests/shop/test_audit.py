"""The audit: silent on good books, and each of its counters rises on the one thing that it is for."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from faultproof.shop.audit import Audited
from faultproof.shop.audit import audit as audit_of
from faultproof.shop.journal import Answered, Sent
from faultproof.shop.ledger import SqliteLedger
from tests.shop.books import ANSWERED, LINES, SENT, append, chain, good, provider

Journal = Sequence[Sent | Answered]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's books are a file, and in this module they are right."""
    monkeypatch.setitem(HERE, "provider", provider(tmp_path))


HERE: dict[str, Path] = {}


def audit(ledger: SqliteLedger, journal: Journal) -> Audited:
    return audit_of(ledger, journal, HERE["provider"])


def wrong(database: sqlite3.Connection, journal: Journal = (*SENT, *ANSWERED)) -> dict[str, int]:
    return {check.name: check.violations for check in audit(SqliteLedger(database), journal).checks if check.violations}


def where(database: sqlite3.Connection, name: str, journal: Journal = (*SENT, *ANSWERED)) -> list[str]:
    return next(check.where for check in audit(SqliteLedger(database), journal).checks if check.name == name)


def test_good_books_pass() -> None:
    found = audit(SqliteLedger(good()), [*SENT, *ANSWERED])
    assert found.held
    assert (found.accepted, found.fulfilled, found.compensated) == (3, 2, 1)
    assert (found.answers, found.answers_lost) == (10, 2)
    assert {check.name: check.examined for check in found.checks} == {
        "lost_orders": 4,  # one was answered twice
        "duplicate_orders": 3,
        "unknown_orders": 3,
        "wrong_items": 2,
        "lost_events": 4,
        "duplicate_events": 4,
        "phantom_events": 4,
        "out_of_order": 4,
        "lost_effects": 4,
        "duplicate_effects": 4,
        "disordered_effects": 4,
        "unfinished": 3,
        "needs_attention": 3,
        "charge_mismatches": 3,
        "oversold": 2,
        "orphan_holds": 4,
        "damage": 1,
    }


def test_audit_changes_nothing() -> None:
    database = good()
    before = list(database.iterdump())
    audit(SqliteLedger(database), [*SENT, *ANSWERED])
    assert list(database.iterdump()) == before


def test_answered_order_that_is_not_there() -> None:
    journal: Journal = [*SENT, Sent("k5", SENT[1].lines), *ANSWERED, Answered("k5", 201, "o5")]
    assert wrong(good(), journal) == {"lost_orders": 1}
    assert where(good(), "lost_orders", journal) == ["order k5: answered 201 with id o5, the table has none"]


def test_answered_order_under_another_id() -> None:
    assert wrong(good(), [*SENT, *ANSWERED, Answered("k1", 201, "o9")]) == {"lost_orders": 1}


def test_answered_order_with_other_content() -> None:
    journal: Journal = [Sent("k1", [SENT[0].lines[0]]), *SENT[1:], *ANSWERED]
    assert wrong(good(), journal) == {"lost_orders": 1}


def test_order_that_is_there_and_was_never_answered_is_no_loss() -> None:
    assert wrong(good(), [*SENT, *ANSWERED[1:]]) == {}


def test_order_taken_twice() -> None:
    database = good()
    database.execute("INSERT INTO shop_order VALUES ('o1b', 'k1', 0)")
    assert wrong(database) == {"duplicate_orders": 1, "unfinished": 1}  # nobody fulfils the second
    assert where(database, "duplicate_orders") == ["order k1: 2 rows, o1, o1b"]


def test_order_that_nobody_sent() -> None:
    assert wrong(good(), [*SENT[:2], *SENT[3:], *ANSWERED[:3]]) == {"unknown_orders": 1}


def test_order_that_was_refused_and_is_there() -> None:
    assert wrong(good(), [*SENT, *ANSWERED[:3], Answered("k3", 409, None)]) == {"unknown_orders": 1}


def test_lines_without_their_order() -> None:
    database = good()
    database.execute("DELETE FROM shop_order WHERE id = 'o3'")
    assert wrong(database, [*SENT, *ANSWERED[:3]]) == {"unknown_orders": 1}


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE shop_item SET sold = 4 WHERE name = 'milk'",
        "UPDATE shop_item SET version = 3 WHERE name = 'milk'",
        "DELETE FROM shop_item WHERE name = 'milk'",
        "INSERT INTO shop_item VALUES ('ghost', 1, 1)",
    ],
)
def test_item_that_does_not_add_up(spoil: str) -> None:
    database = good()
    database.execute(spoil)
    assert set(wrong(database)) == {"wrong_items"}


def test_versions_with_a_gap() -> None:
    database = good()
    database.execute("UPDATE shop_line SET version = 3 WHERE order_id = 'o2'")
    assert "wrong_items" in wrong(database)
    assert where(database, "wrong_items") == ["item 'milk': the versions of its 2 lines are not 1 to 2"]


def test_committed_event_that_never_reached_the_stream() -> None:
    database = good()
    database.execute("""DELETE FROM faultproof_log WHERE log = 'shop' AND "partition" = 1 AND "offset" = 1""")
    database.execute("UPDATE shop_summary SET units = 2, orders = 1, chain = 1 WHERE item = 'milk'")
    database.execute("UPDATE shop_stock SET level = 999998, moves = 1, chain = 1 WHERE item = 'milk'")
    assert wrong(database) == {"lost_events": 1}
    assert where(database, "lost_events") == ["item 'milk', version 2 (order o2): committed, not in the stream"]


def test_event_twice_in_the_stream() -> None:
    database = good()
    append(database, [(1, 2, LINES[2])])
    database.execute("UPDATE shop_summary SET units = 4, orders = 3, chain = ? WHERE item = 'milk'", [chain(1, 2, 2)])
    database.execute("UPDATE shop_stock SET level = 999996, moves = 3, chain = ? WHERE item = 'milk'", [chain(1, 2, 2)])
    assert wrong(database) == {"duplicate_events": 1}
    assert where(database, "duplicate_events") == ["item 'milk', version 2 (order o2): 2 times in the stream"]


def test_two_events_under_one_id() -> None:
    database = good()
    database.execute("UPDATE faultproof_log SET event_id = 'same' WHERE log = 'shop' AND key = 'milk'")
    assert wrong(database) == {"duplicate_events": 1}


def test_event_that_was_never_committed() -> None:
    database = good()
    append(database, [(1, 2, ("o9", "milk", 1, 3))])
    database.execute("UPDATE shop_summary SET units = 4, orders = 3, chain = ? WHERE item = 'milk'", [chain(1, 2, 3)])
    database.execute("UPDATE shop_stock SET level = 999996, moves = 3, chain = ? WHERE item = 'milk'", [chain(1, 2, 3)])
    assert wrong(database) == {"phantom_events": 1}


def test_event_under_another_key_than_its_item() -> None:
    database = good()
    database.execute("UPDATE faultproof_log SET key = 'eggs' WHERE log = 'shop' AND key = 'milk'")
    assert wrong(database) == {"phantom_events": 2}


def test_versions_that_go_back_in_the_stream() -> None:
    database = good()
    swap = """UPDATE faultproof_log SET "offset" = 1 - "offset" WHERE log = 'shop' AND "partition" = 1"""
    database.execute(swap)
    database.execute("UPDATE shop_summary SET chain = ? WHERE item = 'milk'", [chain(2, 1)])
    database.execute("UPDATE shop_stock SET chain = ? WHERE item = 'milk'", [chain(2, 1)])
    assert wrong(database) == {"out_of_order": 1}
    assert where(database, "out_of_order") == [
        "item 'milk': version 1 at offset 1 of partition 1, behind version 2 at offset 0"
    ]


def test_hole_in_the_offsets() -> None:
    database = good()
    database.execute(
        """UPDATE faultproof_log SET "offset" = 2 WHERE log = 'shop' AND "partition" = 1 AND "offset" = 1"""
    )
    assert wrong(database) == {"out_of_order": 1}


def test_key_that_changed_its_partition() -> None:
    database = good()
    database.execute("""UPDATE faultproof_log SET "partition" = 2, "offset" = 0 WHERE key = 'milk' AND "offset" = 1""")
    assert wrong(database) == {"out_of_order": 1}


@pytest.mark.parametrize("group", ["summary", "stock"])
@pytest.mark.parametrize(
    ("units", "sales", "versions", "expected"),
    [
        (5, 3, (1, 1, 2), {"duplicate_effects": 1}),
        (1, 1, (2,), {"lost_effects": 1}),
        (2, 2, (2, 2), {"duplicate_effects": 1, "lost_effects": 1}),
        (3, 2, (2, 1), {"disordered_effects": 1}),
    ],
    ids=["twice", "never", "one-for-another", "swapped"],
)
def test_effects_that_differ_from_the_stream(
    group: str, units: int, sales: int, versions: tuple[int, ...], expected: dict[str, int]
) -> None:
    database = good()
    database.execute(f"DELETE FROM shop_{group} WHERE item = 'milk'")
    amount = units if group == "summary" else 1_000_000 - units
    database.execute(f"INSERT INTO shop_{group} VALUES ('milk', ?, ?, ?)", [amount, sales, chain(*versions)])
    assert wrong(database) == expected
    for name in expected:
        assert where(database, name)[0].startswith(f"{group} of 'milk': ")


@pytest.mark.parametrize("group", ["summary", "stock"])
def test_effects_of_an_item_that_are_missing_altogether(group: str) -> None:
    database = good()
    database.execute(f"DELETE FROM shop_{group} WHERE item = 'milk'")
    assert wrong(database) == {"lost_effects": 2}


def test_effects_without_any_event() -> None:
    database = good()
    database.execute("INSERT INTO shop_summary VALUES ('ghost', 1, 1, 1)")
    assert wrong(database) == {"duplicate_effects": 1}


def test_only_the_first_rows_are_named_and_all_are_counted() -> None:
    database = good()
    database.execute("DELETE FROM shop_order")
    database.execute("DELETE FROM shop_line")
    journal: Journal = [*SENT, *(Answered("k1", 201, f"o{number}") for number in range(20))]
    assert wrong(database, journal)["lost_orders"] == 20
    assert len(where(database, "lost_orders", journal)) == 5

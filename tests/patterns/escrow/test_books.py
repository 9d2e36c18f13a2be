"""Decisions in memory: what calls are told, without any database."""

from faultproof.errors import UnknownItem
from faultproof.patterns.escrow.books import Books, Contended
from faultproof.patterns.escrow.requests import Confirm, Extend, Reserve, Restock
from faultproof.patterns.escrow.sql import LineRow, Move, StockRow
from faultproof.primitives.group_commit import Err, Ok

SECOND = 1_000_000


def books(*, waits: bool = False, available: int = 3, until_us: int = 10 * SECOND) -> Books:
    """Milk is locked, bread is not; a hold is of one of both."""
    made = Books(waits=waits)
    made.put_items([StockRow("milk", available + 1, available, 1, 0)])
    made.put_lines(
        [LineRow("o-1", n, item, 1, "held", until_us, 10 * SECOND) for n, item in enumerate(("bread", "milk"))]
    )
    made.now = 5 * SECOND
    return made


def test_calls_on_one_item_are_decided_in_order_and_written_as_one_difference() -> None:
    made = books()
    requests = [Reserve(f"n-{n}", (("milk", 2),), SECOND) for n in range(3)]
    first, second, third = made.decide([requests[0], requests[1], Restock("d-1", (("milk", 1),))])
    assert isinstance(first, Ok)
    assert isinstance(second, Err)
    assert isinstance(third, Ok)
    assert isinstance(made.decide([requests[2]])[0], Ok)
    assert made.moves("stock", new=False) == [Move("stock", "milk", 1, -3, 4, 0)]
    assert [row.key for row in made.new_lines()] == ["n-0", "d-1", "n-2"]


def test_what_is_locked_elsewhere_is_contended_and_nothing_is_changed() -> None:
    made = books()
    assert made.decide(
        [Confirm("o-1"), Extend("o-1", 9 * SECOND), Reserve("n", (("milk", 1), ("rye", 1)), SECOND)]
    ) == [
        Ok(Contended("bread")),
        Ok(Contended("bread")),
        Ok(Contended("rye")),
    ]
    assert (made.moves("stock", new=False), made.new_lines(), made.changes()) == ([], [], [])


def test_an_item_that_was_waited_for_and_is_not_there_is_unknown() -> None:
    (decision,) = books(waits=True).decide([Reserve("n", (("rye", 1),), SECOND)])
    assert isinstance(decision, Err)
    assert isinstance(decision.error, UnknownItem)


def test_an_overdue_hold_whose_items_somebody_else_has_locked_may_be_confirmed_by_them_and_is_not_called_over() -> None:
    made = books(until_us=5 * SECOND)
    again = Reserve("o-1", (("bread", 1), ("milk", 1)), 10 * SECOND)
    assert made.decide([Confirm("o-1"), Extend("o-1", SECOND), again]) == [Ok(Contended("bread"))] * 3
    assert made.changes() == []


def test_a_hold_is_over_at_its_last_microsecond_and_not_before() -> None:
    for until_us, expected in ((5 * SECOND, Err), (5 * SECOND + 1, Ok)):
        made = books(until_us=until_us)
        made.put_items([StockRow("bread", 1, 0, 1, 0)])
        (decision,) = made.decide([Confirm("o-1")])
        assert isinstance(decision, expected)
        assert len(made.expired) == (expected is Err)

"""What is computed from rounds: medians, ratios, verdicts on aims."""

import pytest

from benchmarks.contest import Outcome, turns
from benchmarks.measures.million import FLAT, RATE, rates
from benchmarks.model import Aim, Benchmark, Contestant, Figure
from benchmarks.report import Chapter, chapter
from benchmarks.settings import differences
from benchmarks.spread import p50, p99, ratios, spread
from tests.benchmarks.planted import well_behaved


def test_spread_is_median_and_ends_in_the_order_of_rounds() -> None:
    got = spread([3.0, 1.0, 10.0, 2.0])
    assert (got.median, got.low, got.high, got.values) == (2.5, 1.0, 10.0, [3.0, 1.0, 10.0, 2.0])


def test_ratios_are_taken_round_by_round() -> None:
    # Both were slow together in the second round: the ratio of the medians would say 1.5.
    assert ratios(spread([10, 2, 30]), [spread([5, 1, 20])]).values == [2, 2, 1.5]
    assert ratios(spread([10, 2, 30]), [spread([5, 1, 20])]).median == 2


def test_best_of_others_is_one_contestant_and_not_the_best_of_each_round() -> None:
    others = [spread([1, 9, 5]), spread([6, 2, 6])]
    assert ratios(spread([12, 12, 12]), others).values == [2, 6, 2]
    assert ratios(spread([12, 12, 12]), others, better="less").values == [12, 12 / 9, 12 / 5]


@pytest.mark.parametrize(("values", "expected"), [([7.0], 7.0), (list(range(1, 101)), 99), (list(range(200)), 197)])
def test_p99_is_a_value_that_was_measured(values: list[float], expected: float) -> None:
    assert p99(values) == expected


def test_p50_of_two_lies_between() -> None:
    assert p50([1.0, 2.0]) == 1.5


def test_everybody_has_each_turn_once() -> None:
    assert turns(["a", "b", "c"], 4) == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_rate_of_a_drain_leaves_the_start_of_processes_out() -> None:
    # Three seconds of nothing, then ten a second, and five a second in the last tenth.
    looks = [(0.0, 0), (3.0, 0), (4.0, 10), (12.0, 90), (14.0, 100)]
    got = rates(looks, 100)
    assert got[RATE] == pytest.approx(100 / 11)
    assert got[FLAT] == pytest.approx(0.5)


def _chapter(aim: Aim, *rounds: list[float | None], better: str = "more") -> Chapter:
    contestants = tuple(
        Contestant(name=name, side="ours", configured="", open=well_behaved) for name in ("a", "b", "c")[: len(rounds)]
    )
    benchmark = Benchmark(
        name="planted",
        engine="none",
        measures="",
        figures=(Figure(name="rate", unit="/s", better="less" if better == "less" else "more"),),
        contestants=contestants,
        aims=(aim,),
        compared="rate",
    )
    outcomes = [
        Outcome(
            contestant,
            rounds=[{"rate": value} for value in values if value is not None],
            error="it failed" if None in values else None,
        )
        for contestant, values in zip(contestants, rounds, strict=True)
    ]
    return chapter(benchmark, outcomes, rounds=len(rounds[0]), seconds=1)


@pytest.mark.parametrize(
    ("aim", "reached"),
    [
        (Aim(figure="rate", of="a", at_least=4), True),
        (Aim(figure="rate", of="a", at_least=4.1), False),
        (Aim(figure="rate", of="a", at_most=4), True),
        (Aim(figure="rate", of="a", at_most=3.9), False),
        (Aim(figure="rate", of="a", over=("b",), at_least=2), True),
        (Aim(figure="rate", of="a", over=("b", "c"), at_least=2), False),
    ],
)
def test_aims_are_judged_by_the_median(aim: Aim, reached: bool) -> None:
    got = _chapter(aim, [3, 4, 9], [1, 2, 5], [4, 4, 4])
    assert got.aims[0].reached is reached
    assert [row.first_is and row.first_is.median for row in got.rows] == [None, 2, 1]


def test_first_of_figures_where_less_is_better_is_ahead_when_it_has_less() -> None:
    got = _chapter(Aim(figure="rate", of="a", at_most=1), [1, 1], [4, 4], better="less")
    assert got.rows[1].first_is is not None
    assert got.rows[1].first_is.median == 4


def test_one_that_failed_has_no_figures_and_reaches_nothing() -> None:
    got = _chapter(Aim(figure="rate", of="a", over=("b",), at_least=0.1), [3, 4], [2, None])
    assert got.failed
    assert got.rows[1].figures == {}
    assert (got.aims[0].value, got.aims[0].reached) == (None, None)


def test_settings_that_differ_are_named_and_others_are_not() -> None:
    same = {"synchronous_commit": "on", "server_version": "18.6"}
    assert differences({"a": same, "b": {**same, "server_version": "15.2"}, "c": {}}) == []
    (sentence,) = differences({"a": same, "b": {"synchronous_commit": "off"}})
    assert sentence == "synchronous_commit is not the same for all (a: on, b: off)"

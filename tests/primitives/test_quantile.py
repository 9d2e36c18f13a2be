"""The learnt quantile, beside what a sorted list says, and with what was cut off in it."""

import math
import random

import pytest

from faultproof.errors import InvalidInput
from faultproof.primitives.quantile import RATIO, LearntQuantile


def latencies(count: int, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [0.01 * draw.lognormvariate(0, 0.7) for _ in range(count)]


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_it_is_at_most_one_bin_above_what_a_sorted_list_says(q: float) -> None:
    learnt, seen = LearntQuantile(q), latencies(9_984)
    for seconds in seen:
        learnt.ended(seconds)
    exact = sorted(seen)[math.ceil(q * len(seen)) - 1]
    assert learnt.value is not None
    assert exact <= learnt.value <= exact * RATIO * 1.001


def test_losers_that_were_cut_off_do_not_let_it_drift_down() -> None:
    """Whoever takes longer than the quantile is hedged then, and nine of ten of those lose, and are cut off."""
    learnt, of_winners, draw = LearntQuantile(0.95), LearntQuantile(0.95), random.Random(2)
    for seconds in latencies(30_000):
        for each in (learnt, of_winners):
            if each.value is None or seconds <= each.value or draw.random() < 0.1:
                each.ended(seconds)
            elif each is learnt:
                each.cut_off(each.value * 1.01)
    exact = sorted(latencies(30_000))[28_500]
    assert learnt.value is not None
    assert of_winners.value is not None
    assert learnt.value == pytest.approx(exact, rel=0.15)
    assert of_winners.value < exact / 1.5, "this is what the estimator is there against"


def test_nothing_is_told_before_the_quantile_can_have_been_seen() -> None:
    learnt = LearntQuantile(0.99)
    for _ in range(99):
        learnt.ended(0.01)
    assert learnt.value is None
    for _ in range(64):
        learnt.ended(0.01)
    assert learnt.value == pytest.approx(0.01, rel=RATIO - 1)


def test_what_has_changed_is_followed_within_its_memory() -> None:
    learnt = LearntQuantile(0.9, memory=1_000)
    for _ in range(5_000):
        learnt.ended(1.0)
    for _ in range(3_000):
        learnt.ended(0.001)
    assert learnt.value is not None
    assert learnt.value < 0.0011


def test_where_everything_is_cut_off_the_longest_seen_is_the_least_that_it_can_be() -> None:
    learnt = LearntQuantile(0.9)
    for _ in range(640):
        learnt.cut_off(0.25)
    assert learnt.value is not None
    assert 0.25 <= learnt.value <= 0.25 * RATIO * 1.001


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e9])
def test_times_beyond_all_bins_are_counted_in_the_last_ones(seconds: float) -> None:
    learnt = LearntQuantile(0.5)
    for _ in range(64):
        learnt.ended(seconds)
    assert learnt.value is not None
    assert 0 < learnt.value < 2_000


@pytest.mark.parametrize("options", [{"q": 0.2}, {"q": 1.0}, {"q": 0.99, "memory": 10}])
def test_what_nobody_can_learn_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        LearntQuantile(**options)  # type: ignore[arg-type]

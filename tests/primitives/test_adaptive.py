"""The adaptive limit: what raises it, what lowers it, and that constant timeouts do not raise it."""

import pytest

from faultproof.errors import InvalidInput
from faultproof.primitives.adaptive import AdaptiveLimit, AdaptivePolicy


class Dependency:
    """Calls of a second each, one round after the other."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self.now = 0.0

    def round(self, *, took_s: float = 0.1, overload: float = 0.0, in_flight: int | None = None) -> int:
        """As many calls as a round has, of which a part fails."""
        calls = max(self.limit.limit, self.limit.policy.round)
        used = self.limit.limit if in_flight is None else in_flight
        self.now += took_s
        for call in range(calls):
            failed = call < overload * calls
            self.limit.ended(now=self.now, took_s=took_s, in_flight=used, overload=failed)
        return self.limit.limit


def lowered(to: int = 20, **policy: float) -> Dependency:
    limit = AdaptiveLimit(AdaptivePolicy(**policy), most=100)  # type: ignore[arg-type]
    limit.limit = to
    return Dependency(limit)


def test_it_rises_by_one_a_round_while_it_is_used_and_not_above_the_most() -> None:
    dependency = lowered()
    assert [dependency.round() for _ in range(3)] == [21, 22, 23]
    for _ in range(200):
        dependency.round()
    assert dependency.limit.limit == 100


def test_what_is_not_used_says_nothing() -> None:
    dependency = lowered()
    assert [dependency.round(in_flight=9) for _ in range(5)] == [20] * 5
    assert dependency.round(in_flight=10) == 21


def test_refusals_and_timeouts_lower_it_by_a_part_down_to_the_least() -> None:
    dependency = lowered(least=3)
    assert [dependency.round(overload=1.0) for _ in range(8)] == [14, 9, 6, 4, 3, 3, 3, 3]


def test_a_few_failures_are_tolerated() -> None:
    dependency = lowered(tolerance=0.1)
    assert dependency.round(overload=0.1) == 21
    assert dependency.round(overload=0.2) == 14


def test_constant_timeouts_end_at_the_least_and_stay_there() -> None:
    """Their latency never changes, which is all that a gradient sees."""
    dependency = lowered(to=100, latency=0.5)
    assert [dependency.round(took_s=2.0) for _ in range(40)][-30:] == [1] * 30


def test_what_had_begun_before_a_decrease_says_nothing_about_the_new_limit() -> None:
    dependency = lowered(to=100)
    limit = dependency.limit
    for _ in range(200):  # they all began at the same time, and all time out
        limit.ended(now=2.0, took_s=2.0, in_flight=100, overload=True)
    assert limit.limit == 70
    assert dependency.round(overload=1.0) == 70, "began at 0, too"


def test_it_recovers_when_the_dependency_does() -> None:
    dependency = lowered(to=40, latency=0.5)
    for _ in range(5):
        dependency.round(took_s=2.0)
    least = dependency.limit.limit
    for _ in range(30):
        dependency.round()
    assert least <= 7
    assert dependency.limit.limit == least + 30


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"latency": 0}, "`latency` must be a number of seconds"),
        ({"latency": float("nan")}, "`latency` must be a number of seconds"),
        ({"tolerance": 1.0}, "`tolerance` must be a number from 0 to 0.99"),
        ({"decrease": 1.0}, "`decrease` must be a number from 0.1 to 0.99"),
        ({"least": 0}, "`least` must be a whole number from 1"),
        ({"round": 0}, "`round` must be a whole number from 1"),
    ],
)
def test_a_policy_that_nobody_can_have_meant_is_refused(given: dict[str, float], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        AdaptivePolicy(**given)  # type: ignore[arg-type]


def test_at_least_more_than_at_most_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`least` is 8, and there are at most 4 permits"):
        AdaptiveLimit(AdaptivePolicy(least=8), most=4)

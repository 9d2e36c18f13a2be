"""Outlier ejection: who is ejected, for how long, and how many may be. Time is the test's."""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultproof.errors import InvalidInput
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.primitives.outliers import OutlierPolicy, Outliers
from faultproof.signals import ENDPOINT_EJECTED, Signals
from tests.fakes import FixedRng, ManualClock, Recorder, env_of


class Group:
    """Endpoints with names from a, what judges them, and the calls to them."""

    def __init__(self, count: int, draw: float = 0.0, **policy: Any) -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        env = env_of(clock=self.clock, rng=FixedRng(draw), signals=Signals(sinks=[self.recorder]))
        self.endpoints = Endpoints(env, [Endpoint(chr(97 + number)) for number in range(count)], name="tills")
        self.outliers = Outliers(env, self.endpoints, OutlierPolicy(**policy))

    def call(self, name: str, *, ok: int = 0, failed: int = 0, began_ago: float = 0.0) -> None:
        endpoint = next(one for one in self.endpoints.all if one.name == name)
        for is_ok in [True] * ok + [False] * failed:
            self.outliers.ended(endpoint, is_ok, self.clock.now - began_ago, self.clock.now)

    def mixed(self, name: str, *, ok: int, failed: int) -> None:
        """Failures among successes, never two in a row."""
        assert ok >= failed
        for number in range(ok):
            self.call(name, ok=1, failed=int(number < failed))

    def ejected(self) -> str:
        """The names of those that are."""
        return "".join(one.name for one in self.endpoints.all if one.ejected_until > self.clock.now)

    def next_interval(self) -> None:
        self.clock.now += 10.0
        self.call(self.endpoints.all[0].name, ok=1)


# --- who --------------------------------------------------------------------------------------------------------------


def test_who_fails_so_often_in_a_row_is_ejected_and_gets_nothing() -> None:
    group = Group(3, in_a_row=5)
    group.call("b", failed=4)
    group.call("b", ok=1)
    group.call("b", failed=4)
    assert group.ejected() == ""
    group.call("b", failed=1)
    assert group.ejected() == "b"
    assert [one.name for one in group.endpoints.usable(group.clock.now)] == ["a", "c"]
    assert group.recorder.values(ENDPOINT_EJECTED, group="tills", endpoint="b", why="in a row") == [1]


def test_who_fails_far_more_often_than_all_others_is_ejected_when_the_interval_is_over() -> None:
    group = Group(3, in_a_row=5, gap=0.3, interval=10.0, minimum_calls=20)
    group.mixed("a", ok=100, failed=5)
    group.mixed("b", ok=13, failed=7)
    group.mixed("c", ok=100, failed=5)
    assert group.ejected() == ""
    group.next_interval()
    assert group.ejected() == "b"
    assert group.recorder.values(ENDPOINT_EJECTED, group="tills", endpoint="b", why="rate") == [1]


def test_where_all_fail_equally_often_nobody_is_an_outlier() -> None:
    group = Group(4)
    for name in "abcd":
        group.mixed(name, ok=50, failed=50)
    group.next_interval()
    assert group.ejected() == ""


def test_too_few_calls_are_no_rate_neither_its_own_nor_the_others() -> None:
    group = Group(3, minimum_calls=20)
    group.mixed("a", ok=100, failed=0)
    group.mixed("b", ok=10, failed=9)
    group.next_interval()
    assert group.ejected() == ""
    group.mixed("b", ok=20, failed=20)
    group.mixed("a", ok=10, failed=0)
    group.mixed("c", ok=19, failed=0)
    group.next_interval()
    assert group.ejected() == ""


def test_each_interval_is_judged_by_its_own_calls() -> None:
    group = Group(3)
    group.mixed("a", ok=50, failed=0)
    group.mixed("b", ok=10, failed=9)
    group.next_interval()
    group.mixed("a", ok=50, failed=0)
    group.mixed("b", ok=10, failed=9)
    group.next_interval()
    assert group.ejected() == ""


def test_one_bad_endpoint_of_two_is_found() -> None:
    """By mean and standard deviation it would never be."""
    group = Group(2)
    group.mixed("a", ok=50, failed=1)
    group.mixed("b", ok=50, failed=50)
    group.next_interval()
    assert group.ejected() == "b"


def test_of_several_the_worst_go_first() -> None:
    group = Group(4, share=0.25, gap=0.05)
    for name, failed in zip("abcd", (0, 35, 50, 40), strict=True):
        group.mixed(name, ok=50, failed=failed)
    group.next_interval()
    assert group.ejected() == "c"


# --- how many ---------------------------------------------------------------------------------------------------------


def test_at_most_the_share_is_ejected_and_another_when_one_is_back() -> None:
    group = Group(5, share=0.5, eject_for=5.0)
    for name in "abcde":
        group.call(name, failed=50)
    assert group.ejected() == "ab"
    group.clock.now += 5.0
    group.call("c", failed=4)
    assert group.ejected() == ""
    group.call("c", failed=1)
    assert group.ejected() == "c"


@pytest.mark.parametrize(("count", "share"), [(1, 1.0), (2, 1.0), (3, 1.0), (2, 0.5), (3, 0.2), (5, 0.0)])
def test_the_last_ones_are_never_ejected(count: int, share: float) -> None:
    group = Group(count, share=share)
    for one in group.endpoints.all:
        group.call(one.name, failed=50)
    assert len(group.ejected()) == min(int(share * count), count - 1)
    assert not group.endpoints.is_panicking(group.clock.now)


def test_what_gets_no_calls_anyway_is_no_reason_to_eject_the_rest() -> None:
    group = Group(4, share=0.75)
    _, b, c, d = group.endpoints.all
    c.is_draining = True
    b.is_healthy = False
    d.is_healthy = False
    group.call("a", failed=50)
    assert group.ejected() == ""  # nobody else is usable
    d.is_healthy = True
    group.call("a", failed=5)
    assert group.ejected() == "a"


def test_the_share_is_of_those_that_do_not_drain() -> None:
    group = Group(5, share=0.5)
    for draining in group.endpoints.all[3:]:
        draining.is_draining = True
    for name in "abc":
        group.call(name, failed=50)
    assert group.ejected() == "a"


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 6),
    share=st.floats(0, 1),
    calls=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([0.0, 0.1, 4.0])), max_size=120),
)
def test_whatever_happens_the_share_is_kept_and_somebody_is_left(
    count: int, share: float, calls: list[tuple[int, bool, float]]
) -> None:
    group = Group(count, share=share, in_a_row=2, minimum_calls=2, interval=1.0, gap=0.1)
    for which, is_ok, wait in calls:
        group.clock.now += wait
        group.call(group.endpoints.all[which % count].name, ok=int(is_ok), failed=int(not is_ok))
        assert len(group.ejected()) <= share * count
        assert len(group.ejected()) < count


# --- for how long -----------------------------------------------------------------------------------------------------


def test_each_further_time_is_twice_as_long_up_to_the_most() -> None:
    group = Group(2, eject_for=5.0, eject_most=30.0, interval=1_000.0)
    for seconds in (5.0, 10.0, 20.0, 30.0, 30.0):
        group.call("b", failed=5)
        group.clock.now += seconds - 0.001
        assert group.ejected() == "b"
        group.clock.now += 0.001
        assert group.ejected() == ""


@pytest.mark.parametrize(("rest", "next_time"), [(39.9, 10.0), (40.1, 5.0), (1_000.0, 5.0)])
def test_each_interval_without_an_ejection_takes_one_time_back(rest: float, next_time: float) -> None:
    """Four times have been; after three intervals in peace one is left, after four none. Calls need not have come."""
    group = Group(2, eject_for=5.0, interval=10.0)
    for seconds in (5.0, 10.0, 20.0, 40.0):
        group.call("b", failed=5)
        group.clock.now += seconds
    group.clock.now += rest
    group.call("a", ok=1)
    group.call("b", failed=5)
    group.clock.now += next_time - 0.001
    assert group.ejected() == "b"
    group.clock.now += 0.001
    assert group.ejected() == ""


def test_the_jitter_is_taken_off() -> None:
    draw, lasted = random.Random(4), []
    for _ in range(300):
        group = Group(2, draw=draw.random(), eject_for=10.0, jitter=0.2)
        group.call("a", failed=5)
        lasted.append(group.endpoints.all[0].ejected_until - group.clock.now)
    assert all(8.0 < seconds <= 10.0 for seconds in lasted)
    assert min(lasted) < 8.05
    assert max(lasted) > 9.95


def test_calls_from_before_the_end_of_an_ejection_say_nothing() -> None:
    group = Group(2, eject_for=5.0)
    group.call("a", failed=5)
    group.call("a", failed=50, began_ago=1.0)
    group.clock.now += 6.0
    group.call("a", failed=50, began_ago=1.001)
    assert group.ejected() == ""
    group.call("a", failed=5, began_ago=1.0)
    assert group.ejected() == "a"


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        *({option: value} for option in ("in_a_row", "minimum_calls") for value in (0, 1.5, 10**30, True)),
        *(
            {option: value}
            for option in ("interval", "eject_for", "eject_most")
            for value in (0, -1, math.nan, math.inf)
        ),
        *({option: value} for option in ("share", "jitter", "gap") for value in (-0.1, 1.1, math.nan, "1", True)),
        {"gap": 0},
        {"eject_most": 1.0, "eject_for": 2.0},
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"`{next(iter(wrong))}` must be"):
        OutlierPolicy(**wrong)

"""Deadlines: absolute, ambient, and sent on as what is left."""

import asyncio
import math

import pytest

from faultproof.errors import DeadlineExceeded, InvalidInput
from faultproof.primitives.deadline import Deadline, ambient, from_header, within
from tests.fakes import ManualClock

pytestmark = pytest.mark.anyio


def test_what_is_left_shrinks_as_time_passes_and_nothing_is_begun_without_any() -> None:
    clock = ManualClock()
    with within(2.0, clock) as deadline:
        clock.now += 1.5
        assert deadline.left() == pytest.approx(0.5)
        deadline.check("a call")
        clock.now += 0.5
        with pytest.raises(DeadlineExceeded, match="no time is left for a call: nothing of it was done"):
            deadline.check("a call")


def test_of_nested_deadlines_the_earliest_counts_and_the_outer_one_comes_back() -> None:
    clock = ManualClock()
    assert ambient() is None
    with within(2.0, clock) as outer:
        with within(5.0, clock):
            assert ambient() is outer
        with within(1.0, clock) as inner:
            assert ambient() is inner
            assert inner.left() == 1.0
        assert ambient() is outer
    assert ambient() is None


async def test_tasks_that_are_started_inside_have_it_and_those_outside_have_not() -> None:
    clock = ManualClock()

    async def look() -> Deadline | None:
        return ambient()

    outside = asyncio.create_task(look())
    with within(1.0, clock) as deadline:
        assert await asyncio.create_task(look()) is deadline
        assert await outside is None


def test_it_travels_as_what_is_left_rounded_down_and_clocks_may_differ() -> None:
    here, there = ManualClock(), ManualClock()
    there.now = 77.0
    with within(1.2345, here) as deadline:
        assert deadline.header() == "1234"
        assert from_header(deadline.header(), there).at == pytest.approx(78.234)
        here.now += 5
        assert deadline.header() == "0"
        assert from_header("0", there).left() == 0


@pytest.mark.parametrize("text", ["", "-5", "1.5", "1e3", "soon", "٣", "9" * 13, "12 "])
def test_a_header_that_is_no_number_of_milliseconds_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="whole number of milliseconds"):
        from_header(text, ManualClock())


def test_a_caller_that_waits_for_ever_waits_ten_years() -> None:
    assert from_header("9" * 12, ManualClock()).left() <= 315_360_000


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidInput, match="`seconds`"), within(seconds, ManualClock()):
        pass


def test_without_a_clock_it_is_the_machine_s() -> None:
    with within(60.0) as deadline:
        assert 59.0 < deadline.left() <= 60.0
        assert ambient() is deadline

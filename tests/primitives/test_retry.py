"""Retry: what is repeated, when, how often, and who pays for it. Time is the test's."""

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest

from faultproof.errors import (
    Busy,
    ConstraintViolated,
    DeadlineExceeded,
    Failed,
    InvalidInput,
    LeaseLost,
    Misuse,
    OutcomeUnknown,
    Overloaded,
    Repair,
    RetriesExhausted,
    TryAgain,
)
from faultproof.primitives.retry import Retry, RetryBudget, RetryPolicy, full_jitter
from faultproof.signals import BUDGET_SPENT, RETRY, Signals
from tests.fakes import FixedRng, ManualClock, Recorder, env_of

pytestmark = pytest.mark.anyio


class Flaky:
    """A call that fails with each of these errors in turn, then succeeds; it keeps the times it was made."""

    def __init__(self, clock: ManualClock, *errors: Exception, takes: float = 0.0) -> None:
        self._clock = clock
        self._errors = list(errors)
        self._takes = takes
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(self._clock.now - 1_000.0)
        self._clock.now += self._takes
        if self._errors:
            raise self._errors.pop(0)
        return "done"


def retrying(
    *errors: Exception, random: float = 1.0, takes: float = 0.0, **policy: Any
) -> tuple[Retry, Flaky, Recorder]:
    clock, recorder = ManualClock(flows=True), Recorder()
    env = env_of(clock=clock, rng=FixedRng(random), signals=Signals(sinks=[recorder]))
    return Retry(env, RetryPolicy(**policy)), Flaky(clock, *errors, takes=takes), recorder


def busy(times: int) -> list[Exception]:
    return [Busy(f"locked {number}") for number in range(1, times + 1)]


# --- the pauses -------------------------------------------------------------------------------------------------------


def test_full_jitter_is_uniform_from_nothing_to_the_exponential_bound_and_its_cap() -> None:
    rng = random.Random(7)
    for tries in range(12):
        bound = min(2.0, 0.05 * 2**tries)
        drawn = [full_jitter(tries, base=0.05, cap=2.0, rng=rng) for _ in range(500)]
        assert all(0 <= seconds < bound for seconds in drawn)
        assert min(drawn) < 0.05 * bound
        assert max(drawn) > 0.95 * bound
        assert 0.4 * bound < sum(drawn) / 500 < 0.6 * bound
    assert full_jitter(10_000, base=0.05, cap=2.0, rng=FixedRng(0.5)) == 1.0  # no overflow


async def test_pauses_double_up_to_the_cap() -> None:
    retry, call, recorder = retrying(*busy(6), attempts=7, base=0.1, cap=0.5)
    assert await retry.call(call) == "done"
    assert call.times == pytest.approx([0.0, 0.1, 0.3, 0.7, 1.2, 1.7, 2.2])
    assert recorder.values(RETRY) == [1] * 6


async def test_retry_after_is_obeyed_where_it_is_longer() -> None:
    retry, call, _ = retrying(Overloaded("a", retry_after=3.0), Overloaded("b", retry_after=0.01), base=0.5)
    await retry.call(call)
    assert call.times == pytest.approx([0.0, 3.0, 4.0])


# --- the ends ---------------------------------------------------------------------------------------------------------


async def test_attempts_are_counted_with_the_first_and_the_last_error_is_the_cause() -> None:
    retry, call, recorder = retrying(*busy(9), attempts=3)
    with pytest.raises(RetriesExhausted, match="locked 3") as gave_up:
        await retry.call(call)
    assert gave_up.value.attempts == len(call.times) == 3
    assert str(gave_up.value.__cause__) == "locked 3"
    assert recorder.values(RETRY) == [1, 1]
    assert recorder.values(BUDGET_SPENT) == []


async def test_no_attempt_begins_after_the_deadline_and_nobody_waits_for_it_in_vain() -> None:
    retry, call, _ = retrying(*busy(99), attempts=99, base=1.0, cap=1.0, deadline=3.5)
    with pytest.raises(DeadlineExceeded) as late:
        await retry.call(call)
    assert call.times == [0.0, 1.0, 2.0, 3.0]
    assert str(late.value.__cause__) == "locked 4"
    assert call._clock.now == 1_003.0  # gave up at once instead of sleeping past the deadline


async def test_the_deadline_counts_what_the_attempts_themselves_take() -> None:
    retry, call, _ = retrying(*busy(9), attempts=9, base=0.0, cap=0.0, deadline=5.0, takes=2.0)
    with pytest.raises(DeadlineExceeded):
        await retry.call(call)
    assert call.times == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "error",
    [
        Misuse("x"),
        InvalidInput("x"),
        Failed("x"),
        ConstraintViolated("x"),
        LeaseLost("x"),
        Repair("x"),
        OutcomeUnknown("x"),
        ValueError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_repeating_cannot_help_is_raised_as_it_is(error: Exception) -> None:
    retry, call, recorder = retrying(error)
    with pytest.raises(type(error)) as raised:
        await retry.call(call)
    assert raised.value is error
    assert len(call.times) == 1
    assert recorder.emitted == []


async def test_an_unknown_outcome_is_repeated_where_the_call_carries_a_key() -> None:
    retry, call, _ = retrying(OutcomeUnknown("lost"), Busy("locked"), repeat_unknown=True)
    assert await retry.call(call) == "done"
    assert len(call.times) == 3


@pytest.mark.parametrize("policy", [{"attempts": 2}, {"attempts": 9, "base": 1.0, "deadline": 0.5}], ids=str)
async def test_an_unknown_outcome_stays_unknown_when_the_attempts_or_the_time_end(policy: dict[str, Any]) -> None:
    """It must not turn into "it did not happen" on the way."""
    last = OutcomeUnknown("lost")
    retry, call, _ = retrying(*[last] * 9, repeat_unknown=True, **policy)
    with pytest.raises(OutcomeUnknown) as raised:
        await retry.call(call)
    assert raised.value is last


# --- the budget -------------------------------------------------------------------------------------------------------


async def always_busy() -> None:
    raise Busy("locked")


async def test_one_budget_bounds_all_who_share_it() -> None:
    recorder = Recorder()
    env = env_of(clock=ManualClock(flows=True), rng=FixedRng(0.5), signals=Signals(sinks=[recorder]))
    budget = RetryBudget(ratio=0.1, burst=10.0)
    two = [Retry(env, RetryPolicy(attempts=4), budget) for _ in range(2)]
    full_length = 0
    for number in range(200):
        with pytest.raises(RetriesExhausted) as gave_up:
            await two[number % 2].call(always_busy)
        full_length += "attempts" in str(gave_up.value)
    # It begins full (10), and 200 first attempts earn a tenth of a retry each, the first while it is full.
    assert len(recorder.values(RETRY)) == pytest.approx(10 + 0.1 * 199, abs=1)
    assert recorder.values(BUDGET_SPENT) == [1] * (200 - full_length)
    assert 3 <= full_length <= 10
    assert budget.tokens < 1


async def test_a_spent_budget_ends_the_call_at_once_and_says_so() -> None:
    clock, recorder = ManualClock(flows=True), Recorder()
    env = env_of(clock=clock, rng=FixedRng(1.0), signals=Signals(sinks=[recorder]))
    budget = RetryBudget(ratio=0.0, burst=1.0)
    retry = Retry(env, RetryPolicy(attempts=5, base=0.1), budget)
    with pytest.raises(RetriesExhausted, match="budget") as spent:
        await retry.call(always_busy)
    assert spent.value.attempts == 2
    assert clock.slept == [0.1]
    assert (recorder.values(RETRY), recorder.values(BUDGET_SPENT)) == ([1], [1])


async def test_a_budget_refills_with_traffic_up_to_its_burst_and_not_by_itself() -> None:
    budget = RetryBudget(ratio=0.25, burst=2.0)
    assert [budget.try_spend() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.first_attempt()
    assert [budget.try_spend() for _ in range(2)] == [True, False]
    for _ in range(1_000):
        budget.first_attempt()
    assert budget.tokens == 2.0


async def test_a_call_that_succeeds_or_cannot_be_helped_spends_nothing() -> None:
    budget = RetryBudget(ratio=0.0, burst=3.0)
    retry = Retry(env_of(clock=ManualClock(flows=True)), RetryPolicy(deadline=1.0), budget)

    async def succeed() -> None: ...

    async def fail() -> None:
        raise Failed("no")

    async def come_back_tomorrow() -> None:
        raise TryAgain("later", retry_after=86_400.0)

    calls: list[tuple[Callable[[], Awaitable[None]], type[Exception] | None]] = [
        (succeed, None),
        (fail, Failed),
        (come_back_tomorrow, DeadlineExceeded),
    ]
    for call, expected in calls:
        with nullcontext() if expected is None else pytest.raises(expected):
            await retry.call(call)
        assert budget.tokens == 3.0


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        *({"attempts": value} for value in (0, 1.5, 10**30, True)),
        *({option: value} for option in ("base", "cap", "deadline") for value in (-1, math.nan, math.inf, "1")),
        {"cap": 2.0, "base": 3.0},
        {"deadline": 0},
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"`{next(iter(wrong))}` must be"):
        RetryPolicy(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"ratio": value} for value in (-0.1, 1.1, math.nan, True)),
        *({"burst": value} for value in (0.5, math.inf, math.nan)),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    (option,) = wrong
    with pytest.raises(InvalidInput, match=f"`{option}` must be"):
        RetryBudget(**wrong)

"""Attempts: numbered, ambient, and repeated by one layer only."""

import asyncio

import pytest

from faultproof.errors import InvalidInput, OutcomeUnknown, RetriesExhausted, TryAgain
from faultproof.primitives.attempts import Attempt, ambient, arrived, from_header, is_repeated_above, numbered
from faultproof.primitives.retry import Retry, RetryBudget, RetryPolicy
from tests.fakes import ManualClock, env_of

pytestmark = pytest.mark.anyio


def test_an_attempt_is_known_inside_and_nowhere_else() -> None:
    assert ambient() is None
    with numbered(2, 5):
        assert ambient() == (2, 5)
        assert is_repeated_above()
    assert ambient() is None
    assert not is_repeated_above()


async def test_tasks_that_are_started_inside_know_it() -> None:
    async def asked() -> bool:
        return is_repeated_above()

    with numbered(1, 3):
        task = asyncio.ensure_future(asked())
    assert await task


def test_whoever_repeats_above_is_the_one_who_counts() -> None:
    with numbered(2, 5), numbered(1, 3):
        assert ambient() == (2, 5)
    with numbered(1, 1), numbered(1, 3):
        assert ambient() == (1, 3), "the outer one makes one attempt: it repeats nothing"


def test_one_that_nobody_repeats_leaves_it_to_those_below() -> None:
    with numbered(1, 1):
        assert not is_repeated_above()
    with arrived(Attempt(1)):
        assert not is_repeated_above()
    with arrived(Attempt(2)):
        assert is_repeated_above(), "it was repeated already"


@pytest.mark.parametrize(
    ("text", "attempt"), [("1", (1, 1)), ("2", (2, 1)), ("1/5", (1, 5)), ("999999/999999", (999_999,) * 2)]
)
def test_it_travels_in_a_header(text: str, attempt: tuple[int, int]) -> None:
    assert from_header(text) == attempt
    assert from_header(text).header() == text


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1/0", "3/2", "1/", "/1", "1.0", "1 ", "1000000", "²", "1/5/2", "x" * 9_999]
)
def test_what_is_no_attempt_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^`attempt` is a number, or a number of how many \(2/5\), got "):
        from_header(text)


@pytest.mark.parametrize("numbers", [(0, 1), (2, 1), (1, 0)])
def test_numbers_that_cannot_be_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput), numbered(*numbers):
        pass


async def test_retries_do_not_multiply_through_layers() -> None:
    env = env_of(clock=ManualClock(flows=True))
    seen: list[Attempt | None] = []

    async def fails() -> None:
        seen.append(ambient())
        raise TryAgain("no")

    async def middle() -> None:
        await Retry(env, RetryPolicy(attempts=4)).call(fails)

    with pytest.raises(RetriesExhausted):
        await Retry(env, RetryPolicy(attempts=3)).call(middle)
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def test_the_layer_that_does_not_repeat_raises_what_was_raised_and_fills_the_budget() -> None:
    budget = RetryBudget(ratio=0.5, burst=2.0)
    budget.try_spend()

    async def fails() -> None:
        raise OutcomeUnknown("perhaps")

    with numbered(1, 2), pytest.raises(OutcomeUnknown, match="perhaps"):
        await Retry(env_of(), RetryPolicy(repeat_unknown=True), budget).call(fails)
    assert budget.tokens == 1.5

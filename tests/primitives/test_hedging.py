"""Hedging: when a second attempt is made, who wins, who pays, and that nobody waits for a loser."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from faultproof.errors import InvalidInput
from faultproof.primitives.apart import Escaped
from faultproof.primitives.hedging import HedgePolicy, Hedging, Raced
from faultproof.primitives.reaper import Reaper
from faultproof.primitives.retry import RetryBudget
from tests.fakes import ManualClock, env_of

pytestmark = pytest.mark.anyio

Outcome = str | Exception


class Dependency:
    """Attempts that take so long, and then give or raise what they are told to; some take as long to clean up."""

    def __init__(self, clock: ManualClock, *plan: tuple[float, Outcome], clean_up: float = 0.0) -> None:
        self.clock = clock
        self.plan = plan
        self.clean_up = clean_up
        self.begun: list[float] = []
        self.cancelled: list[int] = []
        self.cleaned: list[int] = []

    async def __call__(self, number: int) -> str:
        self.begun.append(round(self.clock.now - 1_000, 3))
        takes, outcome = self.plan[number - 1]
        try:
            await self.clock.sleep(takes)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            await self.clock.sleep(self.clean_up)
            self.cleaned.append(number)
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def stubborn(clock: ManualClock) -> None:
    """It cleans up for very long."""
    try:
        await clock.sleep(0.5)
    finally:
        await clock.sleep(10_000.0)


async def race(
    hedging: Hedging, attempt: Callable[[int], Coroutine[Any, Any, str]], is_acceptable: Callable[[str], bool] = bool
) -> Raced[str]:
    """As a caller does it."""
    race = hedging.begin(attempt, is_acceptable=is_acceptable)
    try:
        return await race.decided
    finally:
        race.end()


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def played(
    hedging: Hedging,
    dependency: Dependency,
    seconds: float = 1_000.0,
    is_acceptable: Callable[[str], bool] = lambda value: True,
) -> tuple[Raced[str] | Exception, float]:
    """What came of it, and when."""
    clock, ended = dependency.clock, list[float]()
    task = asyncio.create_task(race(hedging, dependency, is_acceptable))
    task.add_done_callback(lambda _: ended.append(round(clock.now - 1_000, 3)))
    for _ in range(round(seconds)):
        await settle()
        if ended:
            break
        clock.advance(1.0)
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert not isinstance(result, BaseException) or isinstance(result, Exception)
    return result, ended[0]


def hedging_on(clock: ManualClock, **options: object) -> Hedging:
    policy = HedgePolicy(at_first=10.0, **options)  # type: ignore[arg-type]
    return Hedging(env_of(clock=clock), policy, RetryBudget(ratio=0.1))


async def test_an_answer_before_the_delay_is_not_hedged() -> None:
    dependency = Dependency(ManualClock(), (9.0, "a"), (0.0, "b"))
    assert await played(hedging_on(dependency.clock), dependency) == (Raced("a", 1, 1), 9.0)
    assert dependency.begun == [0.0]


async def test_the_first_answer_wins_and_the_loser_is_cancelled() -> None:
    dependency = Dependency(ManualClock(), (200.0, "slow"), (5.0, "quick"))
    assert await played(hedging_on(dependency.clock), dependency) == (Raced("quick", 2, 2), 15.0)
    await settle()
    assert dependency.begun == [0.0, 10.0]
    assert dependency.cancelled == [1]


async def test_the_winner_does_not_wait_until_the_loser_has_cleaned_up() -> None:
    dependency = Dependency(ManualClock(), (200.0, "slow"), (5.0, "quick"), clean_up=20.0)
    hedging = hedging_on(dependency.clock)
    assert await played(hedging, dependency) == (Raced("quick", 2, 2), 15.0)
    await settle()
    assert dependency.cancelled == [1]
    assert dependency.cleaned == []
    assert len(hedging._reaper) == 1
    dependency.clock.advance(20.0)
    await settle()
    assert dependency.cleaned == [1]
    assert len(hedging._reaper) == 0


async def test_a_hedge_that_fails_at_once_does_not_beat_a_primary_that_succeeds() -> None:
    dependency = Dependency(ManualClock(), (30.0, "late"), (0.0, ConnectionError("refused")))
    assert await played(hedging_on(dependency.clock), dependency) == (Raced("late", 2, 1), 30.0)


async def test_a_primary_that_fails_waits_for_the_hedge() -> None:
    dependency = Dependency(ManualClock(), (20.0, ConnectionError("reset")), (30.0, "saved"))
    assert await played(hedging_on(dependency.clock), dependency) == (Raced("saved", 2, 2), 40.0)


async def test_what_failed_before_the_delay_is_not_hedged() -> None:
    failure = ConnectionError("refused")
    dependency = Dependency(ManualClock(), (1.0, failure), (0.0, "b"))
    assert await played(hedging_on(dependency.clock), dependency) == (failure, 1.0)
    assert dependency.begun == [0.0]


async def test_where_all_fail_it_is_the_first_s_failure_that_is_told() -> None:
    failure = ConnectionError("the first")
    dependency = Dependency(ManualClock(), (20.0, failure), (30.0, ValueError("the second")))
    assert await played(hedging_on(dependency.clock), dependency) == (failure, 40.0)


async def test_an_answer_that_is_not_acceptable_waits_for_one_that_is_and_is_better_than_none() -> None:
    dependency = Dependency(ManualClock(), (15.0, "503"), (20.0, "200"))
    raced, _ = await played(hedging_on(dependency.clock), dependency, is_acceptable="200".__eq__)
    assert raced == Raced("200", 2, 2)
    dependency = Dependency(ManualClock(), (15.0, "503"), (20.0, "500"))
    raced, _ = await played(hedging_on(dependency.clock), dependency, is_acceptable="200".__eq__)
    assert raced == Raced("503", 2, 1)


async def test_a_caller_that_is_cancelled_cancels_every_attempt() -> None:
    dependency = Dependency(ManualClock(), (200.0, "a"), (200.0, "b"))
    task = asyncio.create_task(race(hedging_on(dependency.clock), dependency))
    for _ in range(12):
        await settle()
        dependency.clock.advance(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert sorted(dependency.cancelled) == [1, 2]


async def test_an_attempt_that_cancels_itself_has_failed_and_nobody_waits_for_ever() -> None:
    clock = ManualClock()

    async def attempt(number: int) -> str:
        raise asyncio.CancelledError

    with pytest.raises(Escaped):
        await race(hedging_on(clock), attempt)


@pytest.mark.parametrize("missing", ["budget", "room", "reaper"])
async def test_no_hedge_without_a_budget_without_room_or_with_too_many_losers_left(missing: str) -> None:
    clock = ManualClock()
    budget, reaper = RetryBudget(ratio=0.0, burst=1.0), Reaper(most=1)
    if missing == "budget":
        assert budget.try_spend()
    if missing == "reaper":
        task = asyncio.create_task(stubborn(clock))
        await settle()
        reaper.take(task)
    hedging = Hedging(
        env_of(clock=clock),
        HedgePolicy(at_first=10.0),
        budget,
        has_room=lambda: missing != "room",
        reaper=reaper,
    )
    dependency = Dependency(clock, (50.0, "a"), (0.0, "b"))
    if missing == "reaper":
        assert reaper.is_full
    assert await played(hedging, dependency) == (Raced("a", 1, 1), 50.0)


async def test_three_attempts_one_delay_after_the_other() -> None:
    dependency = Dependency(ManualClock(), (900.0, "a"), (900.0, "b"), (5.0, "c"))
    assert await played(hedging_on(dependency.clock, attempts=3), dependency) == (Raced("c", 3, 3), 25.0)
    assert dependency.begun == [0.0, 10.0, 20.0]


async def test_the_delay_is_learnt_losers_included_and_none_before() -> None:
    clock = ManualClock()
    hedging = Hedging(env_of(clock=clock), HedgePolicy(quantile=0.9), RetryBudget(ratio=1.0, burst=1_000))
    assert hedging.delay is None
    for number in range(640):
        takes = 20.0 if number % 20 == 0 else 2.0
        dependency = Dependency(clock, (takes, "a"), (2.0, "b"))
        clock_began = clock.now
        result, _ = await played(hedging, dependency)
        assert isinstance(result, Raced)
        assert clock.now - clock_began <= 20.0
    assert hedging.delay == pytest.approx(2.0, rel=0.1)


async def test_closing_waits_for_losers_but_not_for_ever() -> None:
    clock = ManualClock()
    dependency = Dependency(clock, (200.0, "slow"), (5.0, "quick"), clean_up=20.0)
    hedging = hedging_on(clock)
    await played(hedging, dependency)
    await settle()
    closing = asyncio.create_task(hedging._reaper.close(clock, timeout=30.0))
    await settle()
    assert not closing.done()
    clock.advance(20.0)
    assert await closing == 0
    stuck = Reaper()
    task = asyncio.create_task(stubborn(clock))
    await settle()
    stuck.take(task)
    closing = asyncio.create_task(stuck.close(clock, timeout=1.0))
    await settle()
    clock.advance(1.0)
    assert await closing == 1


@pytest.mark.parametrize(
    "options", [{"quantile": 1.0}, {"least": 0.0}, {"attempts": 1}, {"at_first": 0.0001}, {"at_first": -1.0}]
)
def test_a_policy_that_cannot_be_meant_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        HedgePolicy(**options)  # type: ignore[arg-type]

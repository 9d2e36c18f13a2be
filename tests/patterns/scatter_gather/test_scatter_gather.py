"""Scatter-gather: who answered, who did not, and that neither a loser nor a deadline holds anybody up. Time is the test's."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from faultproof.errors import DeadlineExceeded, InvalidInput
from faultproof.patterns.scatter_gather import Answer, GatherPolicy, Incomplete, Missing, ScatterGather
from faultproof.patterns.scatter_gather.gathering import Gathering, Means, gathered
from faultproof.primitives.deadline import within
from faultproof.primitives.hedging import HedgePolicy, Hedging
from faultproof.primitives.retry import RetryBudget
from faultproof.primitives.timeouts import Alarms
from faultproof.signals import SHARDS_MISSING, Signals
from tests.fakes import ManualClock, Recorder, env_of

pytestmark = pytest.mark.anyio

SHARDS = ("a", "b", "c", "d")


class Shards:
    """Each takes its seconds at each attempt, and answers with its name, or raises."""

    def __init__(
        self, clock: ManualClock, clean_up: float = 0.0, **takes: float | Exception | tuple[float, ...]
    ) -> None:
        self.clock = clock
        self.clean_up = clean_up
        self.takes = takes
        self.asked: list[tuple[str, float]] = []
        self.at_once = self.most = 0
        self.cancelled: list[str] = []

    async def ask(self, shard: str, number: int) -> str:
        self.asked.append((shard, self.clock.now - 1_000))
        takes = self.takes[shard]
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if isinstance(takes, Exception):
                raise takes
            await self.clock.sleep(takes[number - 1] if isinstance(takes, tuple) else takes)
        except asyncio.CancelledError:
            self.cancelled.append(shard)
            await self.clock.sleep(self.clean_up)
            raise
        finally:
            self.at_once -= 1
        return shard.upper()


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def played(clock: ManualClock, work: Any, seconds: int = 200) -> tuple[Any, float]:
    """What came of it, and when."""
    task, ended = asyncio.ensure_future(work), list[float]()
    task.add_done_callback(lambda _: ended.append(clock.now - 1_000))
    for _ in range(seconds):
        await settle()
        if ended:
            break
        clock.advance(1.0)
    assert ended, "it has no end"
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return result, ended[0]


def scattering(clock: ManualClock, recorder: Recorder | None = None, **policy: Any) -> ScatterGather:
    env = env_of(clock=clock, signals=Signals(sinks=[recorder] if recorder else []))
    return ScatterGather(GatherPolicy(**{"deadline": 50.0, **policy}), env=env)


async def test_all_are_asked_at_once_and_the_answer_is_there_with_the_last() -> None:
    shards = Shards(ManualClock(), a=3.0, b=1.0, c=7.0, d=2.0)
    gathered, at = await played(shards.clock, scattering(shards.clock).gather(SHARDS, shards.ask))
    assert at == 7.0
    assert gathered.is_complete
    assert gathered.coverage == 1.0
    assert list(gathered.values.items()) == [("a", "A"), ("b", "B"), ("c", "C"), ("d", "D")]
    assert gathered.answers["c"] == Answer("C", 1, 7.0)


async def test_where_all_have_to_answer_fewer_are_an_error_that_holds_the_others_and_the_reasons() -> None:
    refused = ConnectionError("refused")
    shards, recorder = Shards(ManualClock(), a=3.0, b=refused, c=90.0, d=2.0), Recorder()
    incomplete, at = await played(shards.clock, scattering(shards.clock, recorder).gather(SHARDS, shards.ask))
    assert isinstance(incomplete, Incomplete)
    assert at == 50.0
    assert str(incomplete) == "2 of 4 shards answered, 4 have to: b failed: ConnectionError: refused"
    assert incomplete.gathered.values == {"a": "A", "d": "D"}
    assert incomplete.gathered.missing == {"b": Missing("failed", refused), "c": Missing("late")}
    assert shards.cancelled == ["c"]
    assert recorder.values(SHARDS_MISSING) == [2]


async def test_best_effort_gives_what_there_is_and_says_what_there_is_not() -> None:
    shards = Shards(ManualClock(), a=3.0, b=ValueError("broken"), c=90.0, d=2.0)
    gathered, at = await played(shards.clock, scattering(shards.clock, at_least=0).gather(SHARDS, shards.ask))
    assert at == 50.0
    assert not gathered.is_complete
    assert gathered.coverage == 0.5
    assert {name: str(missing) for name, missing in gathered.missing.items()} == {
        "b": "failed: ValueError: broken",
        "c": "late",
    }


async def test_a_quorum_is_enough_and_the_others_are_cut_off_and_said_to_be() -> None:
    shards = Shards(ManualClock(), a=3.0, b=1.0, c=7.0, d=90.0)
    scatter = scattering(shards.clock, at_least=2, until_enough=True)
    gathered, at = await played(shards.clock, scatter.gather(SHARDS, shards.ask))
    assert at == 3.0
    assert gathered.values == {"a": "A", "b": "B"}
    assert gathered.missing == {"c": Missing("cut off"), "d": Missing("cut off")}


async def test_a_quorum_that_is_not_to_end_it_waits_for_the_others() -> None:
    shards = Shards(ManualClock(), a=3.0, b=1.0, c=7.0, d=90.0)
    gathered, at = await played(shards.clock, scattering(shards.clock, at_least=2).gather(SHARDS, shards.ask))
    assert at == 50.0
    assert gathered.values == {"a": "A", "b": "B", "c": "C"}


async def test_each_shard_has_a_time_of_its_own() -> None:
    shards = Shards(ManualClock(), a=3.0, b=1.0, c=90.0, d=2.0)
    gathered, at = await played(shards.clock, scattering(shards.clock, each=5.0, at_least=0).gather(SHARDS, shards.ask))
    assert at == 5.0
    assert gathered.missing == {"c": Missing("late")}


async def test_the_time_of_one_begins_when_it_is_asked_and_only_so_many_are_asked_at_once() -> None:
    shards = Shards(ManualClock(), a=4.0, b=3.0, c=4.0, d=4.0)
    scatter = scattering(shards.clock, each=5.0, at_once=2)
    gathered, at = await played(shards.clock, scatter.gather(SHARDS, shards.ask))
    assert shards.most == 2
    assert shards.asked == [("a", 0.0), ("b", 0.0), ("c", 3.0), ("d", 4.0)]
    assert at == 8.0
    assert gathered.is_complete


async def test_who_never_came_to_its_turn_was_not_asked() -> None:
    shards = Shards(ManualClock(), a=90.0, b=1.0, c=1.0, d=1.0)
    gathered, _ = await played(shards.clock, scattering(shards.clock, at_once=1, at_least=0).gather(SHARDS, shards.ask))
    assert gathered.missing["a"] == Missing("late")
    assert {name for name, missing in gathered.missing.items() if missing.why == "not asked"} == {"b", "c", "d"}
    assert [shard for shard, _ in shards.asked] == ["a"]


async def test_the_caller_s_own_deadline_counts_where_it_is_earlier() -> None:
    shards = Shards(ManualClock(), a=3.0, b=1.0, c=90.0, d=2.0)
    scatter = scattering(shards.clock, at_least=0)
    with within(4.0, shards.clock):
        work = asyncio.ensure_future(scatter.gather(SHARDS, shards.ask))
    gathered, at = await played(shards.clock, work)
    assert at == 4.0
    assert gathered.missing == {"c": Missing("late")}
    with within(0.0, shards.clock), pytest.raises(DeadlineExceeded):
        await scatter.gather(SHARDS, shards.ask)


async def test_a_straggler_is_hedged_and_the_answer_says_so() -> None:
    shards = Shards(ManualClock(), a=(40.0, 1.0), b=1.0, c=1.0, d=1.0)
    scatter = scattering(shards.clock, hedge=HedgePolicy(at_first=10.0))
    gathered, at = await played(shards.clock, scatter.gather(SHARDS, shards.ask))
    assert at == 11.0
    assert gathered.answers["a"] == Answer("A", 2, 11.0)
    assert shards.cancelled == ["a"]


async def test_hedges_are_paid_from_the_budget_that_shards_asked_add_to() -> None:
    clock = ManualClock()
    budget = RetryBudget(ratio=0.25, burst=1.0)
    assert budget.try_spend()
    shards = Shards(clock, a=(40.0, 1.0), b=(40.0, 1.0), c=1.0, d=1.0)
    policy = GatherPolicy(deadline=50.0, hedge=HedgePolicy(at_first=10.0))
    gathered, _ = await played(
        clock, ScatterGather(policy, env=env_of(clock=clock), budget=budget).gather(SHARDS, shards.ask)
    )
    assert sorted(answer.attempts for answer in gathered.answers.values()) == [1, 1, 1, 2]


async def test_whoever_cleans_up_for_long_holds_nobody_up() -> None:
    shards = Shards(ManualClock(), clean_up=100.0, a=3.0, b=1.0, c=90.0, d=2.0)
    scatter = scattering(shards.clock, each=5.0, at_least=0)
    _, at = await played(shards.clock, scatter.gather(SHARDS, shards.ask))
    assert at == 5.0
    closed, at = await played(shards.clock, scatter.close())
    assert (closed, at) == (1, 15.0)


async def test_a_caller_that_is_cancelled_cancels_all() -> None:
    shards = Shards(ManualClock(), a=90.0, b=90.0, c=90.0, d=90.0)
    task = asyncio.ensure_future(scattering(shards.clock).gather(SHARDS, shards.ask))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert sorted(shards.cancelled) == ["a", "b", "c", "d"]


async def test_attempts_run_in_their_caller_s_context_those_also_that_an_alarm_begins() -> None:
    who: ContextVar[str] = ContextVar("who")
    clock, seen = ManualClock(), list[tuple[str, str, int]]()
    scatter = scattering(clock, hedge=HedgePolicy(at_first=10.0), at_once=1)

    async def ask(shard: str, number: int) -> str:
        seen.append((who.get(), shard, number))
        await clock.sleep(20.0 if number == 1 else 1.0)
        return shard

    async def caller(name: str) -> None:
        who.set(name)
        await scatter.gather(["x", "y"], ask)

    await played(clock, asyncio.gather(caller("one"), caller("two")))
    assert sorted(seen) == [(name, shard, number) for name in ("one", "two") for shard in "xy" for number in (1, 2)]


async def test_a_stream_gives_each_shard_once_as_it_comes_and_the_late_at_the_end() -> None:
    shards = Shards(ManualClock(), a=3.0, b=1.0, c=90.0, d=ValueError("broken"))
    scatter = scattering(shards.clock, each=10.0)

    async def read() -> list[tuple[str, str, float]]:
        return [
            (name, str(outcome) if isinstance(outcome, Missing) else outcome.value, shards.clock.now - 1_000)
            async for name, outcome in scatter.stream(SHARDS, shards.ask)
        ]

    read_, _ = await played(shards.clock, read())
    assert read_ == [("d", "failed: ValueError: broken", 0.0), ("b", "B", 1.0), ("a", "A", 3.0), ("c", "late", 10.0)]


async def test_a_stream_that_is_closed_cancels_the_rest() -> None:
    shards = Shards(ManualClock(), a=3.0, b=1.0, c=90.0, d=90.0)

    async def first() -> str:
        async with aclosing(scattering(shards.clock).stream(SHARDS, shards.ask)) as stream:
            async for name, _ in stream:
                return name
        return "none"

    assert await played(shards.clock, first()) == ("b", 1.0)
    await settle()
    assert sorted(shards.cancelled) == ["a", "c", "d"]


# -- merging ------------------------------------------------------------------------------------------------------------


async def numbers(
    clock: ManualClock, *items: float, end: Exception | None = None, pause: float = 0.0
) -> AsyncIterator[float]:
    for item in items:
        if pause:
            await clock.sleep(pause)
        yield item
    if end is not None:
        raise end


async def read(merged: AsyncIterator[float], into: list[float]) -> None:
    async for item in merged:
        into.append(item)


async def test_sorted_streams_are_merged_in_order_and_equal_items_in_that_of_the_shards() -> None:
    clock, given = ManualClock(), list[Any]()
    streams = {"a": numbers(clock, 1, 4, 9), "b": numbers(clock), "c": numbers(clock, 2, 4, 5)}
    merged = scattering(clock).merge(streams, key=float)
    await played(clock, read(aiter(merged), given))
    assert given == [1, 2, 4, 4, 5, 9]
    assert merged.missing == {}


async def test_a_stream_that_breaks_is_missing_from_then_on_and_an_error_where_all_are_needed() -> None:
    broken = ConnectionError("reset")
    for at_least, expected in ((0, [1, 2, 3, 9]), (None, [1, 2])):
        clock, given = ManualClock(), list[float]()
        streams = {"a": numbers(clock, 1, 3, 9), "b": numbers(clock, 2, end=broken)}
        merged = scattering(clock, at_least=at_least).merge(streams, key=float)
        result, _ = await played(clock, read(aiter(merged), given))
        assert given == expected
        assert merged.missing == {"b": Missing("failed", broken)}
        assert isinstance(result, Incomplete) == (at_least is None)


async def test_a_stream_that_hangs_is_late() -> None:
    clock, given = ManualClock(), list[float]()
    streams = {"a": numbers(clock, 1, 3), "b": numbers(clock, 2, 4, pause=90.0)}
    merged = scattering(clock, each=5.0, at_least=0).merge(streams, key=float)
    _, at = await played(clock, read(aiter(merged), given))
    assert (given, at) == ([1, 3], 5.0)
    assert merged.missing == {"b": Missing("late")}


async def test_a_stream_that_is_not_sorted_is_told_so() -> None:
    clock = ManualClock()
    merged = scattering(clock).merge({"a": numbers(clock, 3, 1)}, key=float)
    result, _ = await played(clock, read(aiter(merged), []))
    assert isinstance(result, InvalidInput)
    assert "'a' is not sorted" in str(result)


def test_streams_cannot_be_hedged() -> None:
    clock = ManualClock()
    with pytest.raises(InvalidInput, match="taken off a stream twice"):
        scattering(clock, hedge=HedgePolicy()).merge({"a": numbers(clock, 1)}, key=float)


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"deadline": 0}, "`deadline`"),
        ({"each": 60.0}, "`each` must be at most `deadline`"),
        ({"at_least": -1}, "`at_least`"),
        ({"at_least": True}, "`at_least`"),
        ({"at_once": 0}, "`at_once`"),
        ({"until_enough": True}, "`until_enough` needs `at_least`"),
        ({"until_enough": True, "at_least": 0}, "`until_enough` needs `at_least`"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        GatherPolicy(**{"deadline": 50.0, **policy})


def test_a_policy_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GatherPolicy().deadline = 9.0  # type: ignore[misc]


async def test_one_name_is_not_taken_for_as_many_shards_as_it_has_letters() -> None:
    asked = Shards(ManualClock(), a=1.0, b=1.0)
    with pytest.raises(InvalidInput, match="each of its letters"):
        await scattering(asked.clock).gather("ab", asked.ask)


@pytest.mark.parametrize(
    ("shards", "says"),
    [
        ((), "`shards`"),
        (("a", "b", "a"), "'a' is named twice"),
        (("a",), "`at_least` 2 have to answer, and there are 1"),
    ],
)
async def test_shards_that_cannot_be_asked_so_are_refused_before_anybody_is(shards: tuple[str, ...], says: str) -> None:
    asked = Shards(ManualClock(), a=1.0, b=1.0)
    with pytest.raises(InvalidInput, match=says):
        await scattering(asked.clock, at_least=2).gather(shards, asked.ask)
    assert asked.asked == []


async def test_who_has_less_time_than_one_before_is_cut_off_in_time() -> None:
    shards = Shards(ManualClock(), a=90.0, b=90.0, c=90.0, d=90.0)
    scatter, ended = scattering(shards.clock, at_least=0), dict[float, float]()

    async def gather(seconds: float) -> None:
        with within(seconds, shards.clock):
            await scatter.gather(SHARDS, shards.ask)
        ended[seconds] = shards.clock.now - 1_000

    await played(shards.clock, asyncio.gather(*(gather(seconds) for seconds in (20.0, 5.0, 9.0))))
    assert ended == {20.0: 20.0, 5.0: 5.0, 9.0: 9.0}


async def test_whoever_is_told_may_stop_it_and_then_nobody_else_is_asked() -> None:
    shards = Shards(ManualClock(), a=1.0, b=2.0, c=3.0, d=4.0)
    env = env_of(clock=shards.clock)
    hedging = Hedging(env, None, RetryBudget())
    means = Means(shards.clock, lambda name: hedging, Alarms(shards.clock), Alarms(shards.clock), 2)
    told = dict[str, object]()

    def stops(name: str, outcome: object) -> None:
        told[name] = outcome
        gathering.stop("cut off")

    gathering = Gathering(means, shards.ask, stops, at=shards.clock.now + 50, each=None, enough=4)
    await played(shards.clock, gathered(gathering, SHARDS))
    assert list(told) == ["a", "b", "c", "d"]
    assert [told[name] for name in "bcd"] == [Missing("cut off"), Missing("not asked"), Missing("not asked")]
    assert [name for name, _ in shards.asked] == ["a", "b"]

"""A shadow's candidate may do what it likes: whoever calls gets the primary's answer, when the primary gives it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Failed, InvalidInput, Overloaded
from faultproof.patterns.shadow.shadow import LEFT_MAX
from faultproof.primitives.deadline import ambient, within
from faultproof.primitives.flags import FeatureFlag
from faultproof.signals import SHADOW_DROPPED, Signals
from tests.fakes import FixedRng, ManualClock, Recorder, env_of, settle
from tests.fakes import within as in_time

pytestmark = pytest.mark.anyio

EVERY = {"share": 1.0, "is_safe": lambda request: True}


class Gate:
    """A candidate that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.cancelled: list[Any] = []
        self._open = asyncio.Event()

    async def __call__(self, request: Any) -> Any:
        self.asked.append(request)
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        return request

    def open(self) -> None:
        self._open.set()


async def echo(request: Any) -> Any:
    return request


def shadow_of(candidate: Callable[[Any], Awaitable[Any]], **given: Any) -> fp.Shadow[Any, Any]:
    return fp.Shadow(candidate, **{"env": env_of(clock=ManualClock()), **EVERY, **given})


async def test_the_primary_s_answer_is_given_while_the_candidate_hangs() -> None:
    gate = Gate()
    shadow = shadow_of(gate)
    assert await in_time(shadow.call(echo, "a")) == "a"
    await settle()
    assert gate.asked == ["a"]
    gate.open()
    assert await shadow.drain()
    report = shadow.report()
    assert (report.offered, report.mirrored, report.same, report.differing) == (1, 1, 1, 0)


async def test_the_primary_s_error_is_raised_as_it_is_and_compared_by_its_class() -> None:
    async def fails(request: Any) -> Any:
        raise error

    async def fails_too(request: Any) -> Any:
        raise Failed("otherwise")

    error = Failed("no")
    shadow = shadow_of(fails_too)
    with pytest.raises(Failed) as raised:
        await shadow.call(fails, "a")
    assert raised.value is error
    await shadow.drain()
    assert (shadow.report().same, shadow.report().candidate.errors) == (1, {"Failed": 1})


# -- bounded ----------------------------------------------------------------------------------------------------------


async def test_the_newest_is_dropped_when_the_queue_is_full_and_those_that_wait_keep_their_turn() -> None:
    gate = Gate()
    shadow = shadow_of(gate, policy=fp.ShadowPolicy(concurrency=2, queue=3))
    assert [shadow.offer(n, n) for n in range(8)] == [True] * 5 + [False] * 3
    await settle()
    assert gate.asked == [0, 1]
    assert [shadow.offer(8, 8)] == [False]
    gate.open()
    await shadow.drain()
    assert gate.asked == [0, 1, 2, 3, 4]
    assert shadow.report().dropped == {"queue is full": 4}


async def test_what_has_waited_for_too_long_is_dropped() -> None:
    gate, clock = Gate(), ManualClock()
    shadow = shadow_of(gate, env=env_of(clock=clock), policy=fp.ShadowPolicy(concurrency=1, timeout=100.0, age=5.0))
    for n in range(3):
        shadow.offer(n, n)
    await settle()
    clock.advance(5.1)
    shadow.offer(3, 3)
    gate.open()
    await shadow.drain()
    assert gate.asked == [0, 3]
    assert shadow.report().dropped == {"waited too long": 2}


@pytest.mark.parametrize(
    ("request_", "answer", "reason"),
    [
        ("x" * 2_000, "a", "request too large"),
        ("a", {"rows": list(range(100))}, "answer too large"),
        ("a", {"rows": [b"x" * 999]}, "answer too large"),
        ("large", "a", "candidate's answer too large"),
    ],
)
async def test_what_is_too_large_is_neither_cut_nor_compared_but_reported(
    request_: str, answer: Any, reason: str
) -> None:
    async def candidate(request: str) -> str:
        return "y" * 2_000 if request == "large" else request

    shadow = shadow_of(candidate, policy=fp.ShadowPolicy(size=1_000))
    shadow.offer(request_, answer)
    await shadow.drain()
    report = shadow.report()
    assert (report.dropped, report.compared) == ({reason: 1}, 0)


async def test_what_is_not_sampled_is_not_copied_and_what_is_refused_neither() -> None:
    class Untouchable(dict[str, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("looked into")

        items = keys = values = __iter__

    gate = Gate()
    shadow = shadow_of(gate, policy=fp.ShadowPolicy(concurrency=1, queue=0))
    shadow.offer(1, 1)
    assert not shadow.offer(Untouchable(a=1), Untouchable(a=1))
    assert not shadow_of(gate, share=0.0).offer(Untouchable(a=1), Untouchable(a=1))
    assert shadow.report().dropped == {"queue is full": 1}
    await shadow.close()


async def test_changes_of_the_caller_s_to_what_it_offered_are_not_compared() -> None:
    shadow = shadow_of(echo)
    request, answer = {"items": [1, 2]}, {"items": [1, 2]}
    shadow.offer(request, answer)
    request["items"].append(3)
    answer.clear()
    await shadow.drain()
    assert shadow.report().same == 1


async def test_a_request_that_the_primary_changes_reaches_the_candidate_as_it_was() -> None:
    async def changes(request: dict[str, int]) -> int:
        return request.pop("n")

    async def reads(request: dict[str, int]) -> int:
        return request["n"]

    shadow = shadow_of(reads)
    assert await shadow.call(changes, {"n": 3}) == 3
    await shadow.drain()
    assert shadow.report().same == 1


# -- off the caller's path --------------------------------------------------------------------------------------------

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody's")


async def test_the_candidate_has_a_context_of_its_own_and_is_marked() -> None:
    seen: list[Any] = []

    async def candidate(request: Any) -> None:
        seen.append((TENANT.get(), ambient(), fp.is_shadow()))
        TENANT.set("the candidate's")

    clock = ManualClock()
    shadow = shadow_of(candidate, env=env_of(clock=clock))
    TENANT.set("the caller's")
    with within(1.0, clock):
        shadow.offer("a")
        await shadow.drain()
    shadow.offer("b")
    await shadow.drain()
    assert seen == [("nobody's", None, True)] * 2
    assert (TENANT.get(), fp.is_shadow()) == ("the caller's", False)


async def test_a_caller_that_is_cancelled_cancels_no_candidate() -> None:
    gate = Gate()
    shadow = shadow_of(gate)

    async def caller() -> None:
        shadow.offer("a", "a")
        await asyncio.Event().wait()

    task = asyncio.create_task(caller())
    await settle()
    task.cancel()
    await settle()
    gate.open()
    await shadow.drain()
    assert (gate.cancelled, shadow.report().same) == ([], 1)


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), asyncio.CancelledError(), GeneratorExit(), RecursionError()]
)
async def test_whatever_the_candidate_raises_is_counted_and_nothing_else(error: BaseException) -> None:
    async def candidate(request: Any) -> None:
        raise error

    shadow = shadow_of(candidate)
    for _ in range(3):
        assert await shadow.call(echo, "a") == "a"
    await shadow.drain()
    report = shadow.report()
    assert (report.candidate.errors, report.different) == ({type(error).__name__: 3}, 3)


async def test_a_candidate_that_hangs_is_cancelled_and_its_place_is_free() -> None:
    gate, clock = Gate(), ManualClock()
    shadow = shadow_of(gate, env=env_of(clock=clock), policy=fp.ShadowPolicy(concurrency=1, timeout=2.0))
    shadow.offer(1, 1)
    shadow.offer(2, 2)
    await settle()
    clock.advance(2.0)
    await settle()
    assert (gate.cancelled, gate.asked) == ([1], [1, 2])
    report = shadow.report()
    assert (report.candidate.timeouts, report.compared, report.running) == (1, 0, 1)
    await shadow.close()


async def test_a_candidate_that_ignores_its_cancel_gets_nothing_more_when_enough_of_it_is_left() -> None:
    async def candidate(request: Any) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                ignored.append(request)

    ignored, over, clock = list[Any](), asyncio.Event(), ManualClock()
    shadow = shadow_of(candidate, env=env_of(clock=clock), policy=fp.ShadowPolicy(concurrency=4, timeout=2.0))
    for n in range(LEFT_MAX + 10):
        shadow.offer(n, n)
        await settle()
        clock.advance(2.0)
        await settle()
    report = shadow.report()
    assert (report.left, report.candidate.timeouts) == (LEFT_MAX, LEFT_MAX)
    assert report.dropped == {"candidate is stuck": 10}
    over.set()
    assert await shadow.close() == 0


async def test_a_candidate_that_has_no_room_says_so_and_is_not_compared() -> None:
    async def candidate(request: Any) -> None:
        raise Overloaded("full")

    shadow = shadow_of(candidate)
    shadow.offer(1, 1)
    await shadow.drain()
    assert (shadow.report().dropped, shadow.report().mirrored) == ({"no room at the candidate": 1}, 0)


async def test_offering_never_raises() -> None:
    def refuses(request: Any) -> bool:
        raise PermissionError("no")

    shadow = shadow_of(echo, is_safe=refuses)
    assert shadow.offer(1, 1) is False
    assert await shadow.call(echo, 1) == 1
    assert shadow.report().dropped == {"failed before (PermissionError)": 2}
    broken = shadow_of(echo)
    await asyncio.to_thread(broken.offer, 1, 1)
    assert broken.report().dropped == {"failed before (RuntimeError)": 1}, "no event loop there"
    await broken.close()
    assert broken.offer(1, 1) is False


async def test_what_cannot_be_compared_is_reported() -> None:
    async def candidate(request: Any) -> Any:
        return object()

    shadow = shadow_of(candidate)
    shadow.offer(1, object())
    await shadow.drain()
    assert (shadow.report().dropped, shadow.report().compared) == ({"cannot be compared": 1}, 0)


def test_a_candidate_that_would_block_the_event_loop_is_refused() -> None:
    def candidate(request: Any) -> Any:
        return request

    with pytest.raises(InvalidInput, match="must be an `async def`"):
        fp.Shadow(candidate)


# -- side effects -----------------------------------------------------------------------------------------------------


class Http:
    def __init__(self, method: str) -> None:
        self.method = method


async def test_only_requests_that_are_said_to_be_safe_are_mirrored() -> None:
    asked = list[Any]()

    async def candidate(request: Any) -> None:
        asked.append(request)

    shadow = fp.Shadow[Any, Any](candidate, share=1.0, env=env_of())
    offered = [
        Http("GET"),
        {"method": "HEAD"},
        Http("get"),
        Http("POST"),
        {"method": "DELETE"},
        Http("PUT"),
        {"a": 1},
        "x",
        None,
    ]
    assert [shadow.offer(request, None) for request in offered] == [True] * 3 + [False] * 6
    await shadow.drain()
    assert (asked, shadow.report().dropped) == (offered[:3], {"not safe": 6})


# -- flags ------------------------------------------------------------------------------------------------------------


async def test_a_flag_turns_it_off_at_once_with_what_waits_and_runs_and_on_again() -> None:
    gate, flag, recorder = Gate(), FeatureFlag("on", True), Recorder()
    env = env_of(clock=ManualClock(), signals=Signals(sinks=[recorder]))
    shadow = shadow_of(gate, flag=flag, env=env, policy=fp.ShadowPolicy(concurrency=2))
    for n in range(5):
        shadow.offer(n, n)
    await settle()
    flag.set(False)
    assert not shadow.offer(5, 5)
    assert (shadow.report().waiting, shadow.report().running) == (0, 0)
    await settle()
    assert (gate.asked, gate.cancelled) == ([0, 1], [0, 1])
    assert shadow.report().dropped == {"off": 5}
    assert recorder.values(SHADOW_DROPPED, reason="off") == [5]
    flag.set(True)
    gate.open()
    assert shadow.offer(6, 6)
    await shadow.drain()
    assert (gate.asked, shadow.report().same) == ([0, 1, 6], 1)


async def test_a_flag_that_goes_off_while_the_primary_answers_counts() -> None:
    async def primary(request: Any) -> Any:
        flag.set(False)
        return request

    flag, gate = FeatureFlag("on", True), Gate()
    shadow = shadow_of(gate, flag=flag)
    assert await shadow.call(primary, 1) == 1
    await settle()
    assert (gate.asked, shadow.report().dropped) == ([], {"off": 1})


async def test_a_flag_that_is_changed_in_another_thread_stops_it_too() -> None:
    gate, flag = Gate(), FeatureFlag("on", True)
    shadow = shadow_of(gate, flag=flag)
    shadow.offer(1, 1)
    await settle()
    await asyncio.to_thread(flag.set, False)
    await settle()
    assert (gate.cancelled, shadow.offer(2, 2)) == ([1], False)


async def test_the_share_may_be_a_flag() -> None:
    share = FeatureFlag("share", 0.0)
    shadow = shadow_of(echo, share=share)
    assert not shadow.offer(1, 1)
    share.set(1.0)
    assert shadow.offer(1, 1)
    await shadow.drain()


async def test_the_share_is_mirrored_no_more_and_no_less() -> None:
    import random

    shadow = shadow_of(echo, share=0.05, env=env_of(clock=ManualClock(), rng=random.Random(3)))
    chosen = sum(shadow._is_chosen(None) for _ in range(20_000))
    assert chosen == pytest.approx(1_000, abs=120)


async def test_with_a_key_it_is_always_the_same_ones() -> None:
    shadow = shadow_of(echo, share=0.2, policy=fp.ShadowPolicy(queue=10_000))
    first, second = ({n for n in range(200) if shadow.offer(n, n, key=f"c{n}")} for _ in range(2))
    assert first == second
    assert len(first) == pytest.approx(40, abs=20)
    await shadow.close()


# -- noise ------------------------------------------------------------------------------------------------------------


async def test_what_the_primary_does_differently_by_itself_is_noise_and_what_the_candidate_does_is_not() -> None:
    numbers = iter(range(10_000))

    async def primary(request: int) -> Any:
        return {"id": f"r-{next(numbers)}", "lines": [{"price": request, "at": next(numbers) // 3}]}

    async def candidate(request: int) -> Any:
        answer = await primary(request)
        answer["lines"][0]["price"] += request % 10 == 0
        return answer

    shadow = shadow_of(candidate, control=primary, env=env_of(clock=ManualClock(), rng=FixedRng(0.05, 0.9)))
    for n in range(100):
        await shadow.call(primary, n)
        await shadow.drain()
    report = shadow.report()
    assert (report.compared, report.differing, report.different) == (100, 100, 10)
    assert (report.controlled, report.noisy) == (50, 50)
    assert {each.path: (each.differences, each.noise, each.is_noise) for each in report.paths} == {
        "$.id": (100, 50, True),
        "$.lines[*].at": (report.paths[1].differences, report.paths[1].noise, True),
        "$.lines[*].price": (10, 0, False),
    }
    without = shadow_of(candidate)
    await without.call(primary, 1)
    await without.drain()
    assert without.report().different == 1, "nobody knows what is noise"


async def test_what_the_candidate_does_to_a_request_the_control_does_not_see() -> None:
    async def spoils(request: dict[str, int]) -> int:
        return request.pop("n")

    async def reads(request: dict[str, int]) -> int:
        return request["n"]

    shadow = shadow_of(spoils, control=reads, policy=fp.ShadowPolicy(control=1.0))
    shadow.offer({"n": 3}, 3)
    await shadow.drain()
    assert (shadow.report().same, shadow.report().controlled, shadow.report().noisy) == (1, 1, 0)


async def test_the_control_runs_apart_as_well_and_its_failures_are_its_own() -> None:
    async def control(request: Any) -> Any:
        marks.append(fp.is_shadow())
        raise SystemExit(1)

    marks = list[bool]()
    shadow = shadow_of(echo, control=control, policy=fp.ShadowPolicy(control=1.0))
    assert await shadow.call(echo, {"n": 1}) == {"n": 1}
    await shadow.drain()
    assert (marks, shadow.report().same, shadow.report().noisy) == ([True], 1, 1)


async def test_latencies_of_both_are_reported_and_a_timeout_is_longer_than_any() -> None:
    clock = ManualClock()

    async def slow(request: float) -> float:
        await clock.sleep(request)
        return request

    shadow = shadow_of(slow, env=env_of(clock=clock), policy=fp.ShadowPolicy(timeout=2.0))
    for request in (0.5, 1.0, 1.5, 9.0):
        shadow.offer(request, request, took_s=0.1)
        await settle()
        clock.advance(min(request, 2.0))
        await settle()
    report = shadow.report()
    assert (report.primary.p50_s, report.primary.p99_s) == (0.1, 0.1)
    assert report.candidate.p50_s == pytest.approx(1.5)
    assert report.candidate.p99_s == float("inf")
    assert (report.candidate.answers, report.candidate.timeouts) == (3, 1)

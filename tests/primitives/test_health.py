"""Active health checks: when endpoints are asked, what it takes to go down and up, and checks that misbehave."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from faultproof.errors import InvalidInput
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.primitives.health import HealthChecks, HealthPolicy
from faultproof.primitives.worker import Worker
from faultproof.signals import ENDPOINT_DOWN, Signals
from tests.fakes import FixedRng, ManualClock, Recorder, env_of, settle, within

pytestmark = pytest.mark.anyio


class Ward:
    """Two endpoints, a and b, that are asked every 10 s for at most 2 s; what they answer is the test's."""

    def __init__(self, *, draw: float = 0.0, **policy: Any) -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        env = env_of(clock=self.clock, rng=FixedRng(draw), signals=Signals(sinks=[self.recorder]))
        self.a, self.b = Endpoint("a"), Endpoint("b")
        self.endpoints = Endpoints(env, [self.a, self.b], name="tills")
        self.asked: list[str] = []
        self.answers: dict[str, Callable[[], Any]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.checks = HealthChecks(env, self.endpoints, self.check, HealthPolicy(**{"interval": 10.0, **policy}))
        self.env = env

    async def check(self, endpoint: Endpoint) -> object:
        self.asked.append(endpoint.name)
        if endpoint.name in self.gates:
            await within(self.gates[endpoint.name].wait())
        return self.answers.get(endpoint.name, lambda: None)()

    async def rounds(self, count: int, *, seconds: float = 10.0) -> None:
        """So many steps, one every ten seconds; what has not answered after two is given up."""
        for _ in range(count):
            await self.checks.step()
            await settle()
            self.clock.advance(min(2.0, seconds))
            await settle()
            self.clock.advance(max(0.0, seconds - 2.0))

    def healthy(self) -> str:
        return "".join(one.name for one in self.endpoints.all if one.is_healthy)


def failing() -> object:
    raise ConnectionRefusedError("nobody there")


# --- down and up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [failing, lambda: False], ids=["raises", "says False"])
async def test_an_endpoint_is_down_after_so_many_failures_in_a_row_and_up_after_so_many_successes(
    answer: Callable[[], object],
) -> None:
    ward = Ward(fall=3, rise=2)
    ward.answers["a"] = answer
    await ward.rounds(2)
    assert ward.healthy() == "ab"
    await ward.rounds(1)
    assert ward.healthy() == "b"
    assert ward.endpoints.usable(ward.clock.now) == [ward.b]
    assert ward.recorder.values(ENDPOINT_DOWN, group="tills", endpoint="a") == [1]
    del ward.answers["a"]
    await ward.rounds(1)
    assert ward.healthy() == "b"
    await ward.rounds(1)
    assert ward.healthy() == "ab"
    assert len(ward.recorder.values(ENDPOINT_DOWN)) == 1


async def test_an_answer_between_begins_the_count_anew() -> None:
    ward = Ward(fall=3, rise=2)
    for answer, healthy in [
        *[(failing, "ab")] * 2, (None, "ab"), *[(failing, "ab")] * 2, (failing, "b"),
        (None, "b"), (failing, "b"), (None, "b"), (None, "ab"),
    ]:  # fmt: skip
        ward.answers["a"] = answer or (lambda: "well")
        await ward.rounds(1)
        assert ward.healthy() == healthy


async def test_a_check_that_takes_longer_than_the_timeout_has_failed_and_holds_up_no_other() -> None:
    ward = Ward(fall=1, timeout=2.0)
    ward.gates["a"] = asyncio.Event()
    await ward.checks.step()
    await settle()
    assert sorted(ward.asked) == ["a", "b"]
    ward.clock.advance(1.999)
    await settle()
    assert ward.healthy() == "ab"
    ward.clock.advance(0.001)
    await settle()
    assert ward.healthy() == "b"


async def test_a_check_that_ignores_its_cancel_is_not_doubled_and_counts_as_failed_each_time() -> None:
    ward = Ward(fall=3)
    gate, begun = asyncio.Event(), []

    async def stubborn(endpoint: Endpoint) -> None:
        begun.append(endpoint.name)
        while endpoint.name == "a" and not gate.is_set():
            try:
                await within(gate.wait())
            except asyncio.CancelledError:
                continue

    ward.checks = HealthChecks(ward.env, ward.endpoints, stubborn, HealthPolicy(interval=10.0, fall=3))
    await ward.rounds(2)
    assert ward.healthy() == "ab"
    await ward.rounds(1)
    assert ward.healthy() == "b"
    assert begun.count("a") == 1
    assert begun.count("b") == 3
    gate.set()
    await settle()
    await ward.rounds(2)
    assert begun.count("a") == 3
    assert ward.healthy() == "ab"


async def test_a_check_that_cancels_itself_has_failed() -> None:
    ward = Ward(fall=1)

    def cancel() -> None:
        raise asyncio.CancelledError

    ward.answers["b"] = cancel
    await ward.checks.step()
    await settle()
    assert ward.healthy() == "a"  # at once: nothing has timed out yet


async def test_a_check_that_just_takes_its_interval_counts_once() -> None:
    """The step that is due at the same moment comes first, and leaves it to the alarm."""
    ward = Ward(fall=2, timeout=10.0, jitter=0.0)
    ward.gates["a"] = asyncio.Event()
    await ward.checks.step()
    await settle()
    ward.clock.now += 10.0
    await ward.checks.step()
    ward.clock.advance(0.0)
    await settle()
    assert ward.healthy() == "ab"


# --- when -------------------------------------------------------------------------------------------------------------


async def test_the_first_checks_are_spread_over_an_interval_and_the_next_jittered() -> None:
    ward = Ward(draw=0.5, jitter=0.2)
    assert await ward.checks.step() == pytest.approx(5.0)
    assert ward.asked == []
    ward.clock.advance(5.0)
    assert await ward.checks.step() == pytest.approx(9.0)
    await settle()
    assert sorted(ward.asked) == ["a", "b"]
    ward.clock.advance(8.9)
    assert await ward.checks.step() == pytest.approx(0.1)
    await settle()
    assert len(ward.asked) == 2


async def test_a_worker_runs_it_and_its_stop_cancels_what_is_under_way() -> None:
    ward = Ward(fall=1)
    ward.gates["a"] = asyncio.Event()
    worker = Worker(ward.env, ward.checks)
    running = asyncio.create_task(worker.run())
    await settle()
    assert sorted(ward.asked) == ["a", "b"]
    (health,) = worker.health()
    assert (health.name, health.running, health.error) == ("tills-health", True, None)
    for seconds in (2.0, 8.0):
        ward.clock.advance(seconds)
        await settle()
    assert sorted(ward.asked) == ["a", "a", "b", "b"]
    assert ward.healthy() == "b"
    ward.a.is_healthy = True
    worker.stop()
    await within(running)
    await settle()
    assert ward.healthy() == "ab"  # a check that was cancelled by the stop says nothing
    assert [task for task in asyncio.all_tasks() if task.get_name() == "tills-health"] == []


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        *({option: value} for option in ("interval", "timeout") for value in (0, -1, math.nan, math.inf, "1", True)),
        *({option: value} for option in ("rise", "fall") for value in (0, 1.5, 10**30, True)),
        *({"jitter": value} for value in (-0.1, 1.0, math.nan)),
        {"timeout": 4.1, "interval": 5.0, "jitter": 0.2},
    ],
    ids=str,
)
async def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"`{next(iter(wrong))}` must be"):
        HealthPolicy(**wrong)


async def test_a_check_that_could_only_fail_is_refused() -> None:
    async def takes_nothing() -> None: ...

    def blocks(endpoint: Endpoint) -> None: ...

    for check in (takes_nothing, blocks, "ping"):
        with pytest.raises(InvalidInput, match="health check"):
            HealthChecks(env_of(), Endpoints(env_of(), [Endpoint("a")], name="g"), check)  # type: ignore[arg-type]

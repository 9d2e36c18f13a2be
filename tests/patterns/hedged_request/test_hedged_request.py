"""Hedged requests: to whom the second one goes, who pays, when there is none, and when it is over. Time is the test's."""

import asyncio
from typing import Any

import pytest

from faultproof.errors import DeadlineExceeded, InvalidInput, OutcomeUnknown, Overloaded
from faultproof.patterns.hedged_request import Hedged, HedgedRequest
from faultproof.primitives.deadline import within
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.retry import RetryBudget
from tests.fakes import FixedRng, ManualClock, env_of
from tests.patterns.scatter_gather.test_scatter_gather import played, settle

pytestmark = pytest.mark.anyio


class Replicas:
    """Each request's attempts take so many seconds, one after the other, and answer with the endpoint's name."""

    def __init__(self, clock: ManualClock, *takes: float) -> None:
        self.clock = clock
        self.takes = takes
        self.sent: list[str] = []
        self.cancelled: list[str] = []

    async def send(self, endpoint: Endpoint, attempt: int) -> str:
        self.sent.append(endpoint.name)
        try:
            await self.clock.sleep(self.takes[attempt - 1])
        except asyncio.CancelledError:
            self.cancelled.append(endpoint.name)
            raise
        return f"{endpoint.name} at {attempt}"


def hedged(clock: ManualClock, names: str = "ab", **options: Any) -> HedgedRequest:
    endpoints = [Endpoint(name) for name in names]
    options = {"timeout": 100.0, "budget": RetryBudget(ratio=0.2), **options}
    return HedgedRequest(endpoints, HedgePolicy(at_first=10.0), env=env_of(clock=clock), **options)


async def test_a_slow_request_is_sent_to_another_endpoint_too_and_the_first_answer_counts() -> None:
    replicas = Replicas(ManualClock(), 90.0, 3.0)
    for _ in range(5):
        replicas.sent.clear()
        began = replicas.clock.now - 1_000
        answer, at = await played(replicas.clock, hedged(replicas.clock).call(replicas.send))
        assert at - began == 13.0
        assert sorted(replicas.sent) == ["a", "b"]
        assert answer == Hedged(f"{replicas.sent[1]} at 2", answer.endpoint, 2, 13.0)
        assert answer.endpoint.name == replicas.sent[1]
        assert answer.was_hedged
    assert len(replicas.cancelled) == 5


async def test_a_quick_one_is_sent_once() -> None:
    replicas = Replicas(ManualClock(), 3.0)
    answer, _ = await played(replicas.clock, hedged(replicas.clock).call(replicas.send))
    assert (answer.attempts, answer.was_hedged, len(replicas.sent)) == (1, False, 1)


async def test_with_one_endpoint_there_is_no_other() -> None:
    replicas = Replicas(ManualClock(), 90.0, 3.0)
    answer, _ = await played(replicas.clock, hedged(replicas.clock, "a").call(replicas.send))
    assert (answer.attempts, replicas.sent) == (2, ["a", "a"])


async def test_endpoints_know_what_is_in_flight_and_losers_leave_them() -> None:
    clock = ManualClock()
    replicas, requests = Replicas(clock, 90.0, 3.0), hedged(clock)
    task = asyncio.ensure_future(requests.call(replicas.send))
    await settle()
    assert sorted(one.in_flight for one in requests._endpoints.all) == [0, 1]
    await played(clock, task)
    await settle()
    assert [one.in_flight for one in requests._endpoints.all] == [0, 0]


async def test_where_the_time_is_over_the_outcome_is_unknown_and_nothing_goes_on() -> None:
    replicas = Replicas(ManualClock(), 900.0, 900.0)
    error, at = await played(replicas.clock, hedged(replicas.clock).call(replicas.send))
    assert isinstance(error, OutcomeUnknown)
    assert str(error) == "no answer after 100 s, of 2 requests that may have arrived"
    assert at == 100.0
    await settle()
    assert sorted(replicas.cancelled) == ["a", "b"]


async def test_the_caller_s_own_deadline_counts_where_it_is_earlier() -> None:
    replicas = Replicas(ManualClock(), 900.0, 900.0)
    requests = hedged(replicas.clock)
    with within(4.0, replicas.clock):
        work = asyncio.ensure_future(requests.call(replicas.send))
    error, at = await played(replicas.clock, work)
    assert (type(error), at) == (OutcomeUnknown, 4.0)
    with within(0.0, replicas.clock), pytest.raises(DeadlineExceeded):
        await requests.call(replicas.send)


@pytest.mark.parametrize(("room", "attempts"), [(2, 2), (1, 1)])
async def test_nothing_is_hedged_where_more_are_in_flight_than_there_is_room_for(room: int, attempts: int) -> None:
    clock = ManualClock()
    replicas, requests = Replicas(clock, 20.0, 3.0), hedged(clock, room=room)
    requests._endpoints.all[0].begin()  # somebody else's
    answer, _ = await played(clock, requests.call(replicas.send))
    assert answer.attempts == attempts


@pytest.mark.parametrize(
    ("takes", "draw", "hedges"),
    [
        pytest.param((30.0, 1.0), 0.99, range(30, 31), id="they win"),
        pytest.param((12.0, 30.0), 0.99, range(10, 13), id="they lose, and that is known after a dozen"),
        pytest.param((12.0, 30.0), 0.0, range(30, 31), id="now and then one is tried again"),
    ],
)
async def test_hedges_that_lose_are_made_no_more_but_now_and_then(
    takes: tuple[float, float], draw: float, hedges: range
) -> None:
    clock = ManualClock()
    replicas, requests = Replicas(clock, *takes), hedged(clock, budget=RetryBudget(ratio=1.0, burst=100.0))
    requests._worth._env = env_of(clock=clock, rng=FixedRng(draw))
    for _ in range(30):
        await played(clock, requests.call(replicas.send))
    assert len(replicas.sent) - 30 in hedges


async def test_draining_endpoints_get_nothing() -> None:
    clock = ManualClock()
    replicas, requests = Replicas(clock, 90.0, 3.0), hedged(clock)
    requests._endpoints.all[0].is_draining = True
    answer, _ = await played(clock, requests.call(replicas.send))
    assert replicas.sent == ["b", "b"]
    assert answer.endpoint.name == "b"
    requests._endpoints.all[1].is_draining = True
    error, _ = await played(clock, requests.call(replicas.send))
    assert isinstance(error, Overloaded)


def test_a_budget_that_would_starve_itself_is_refused() -> None:
    endpoints = [Endpoint("a")]
    with pytest.raises(InvalidInput, match=r"a budget of 0\.05 is not more than the share that takes longer"):
        HedgedRequest(endpoints, HedgePolicy(quantile=0.95), budget=RetryBudget(ratio=0.05))
    HedgedRequest(endpoints, HedgePolicy(quantile=0.95), budget=RetryBudget(ratio=0.06))


@pytest.mark.parametrize(
    ("options", "says"), [({"timeout": 0}, "`seconds`"), ({"room": 0}, "`room`"), ({"names": ""}, "`endpoints`")]
)
def test_nonsense_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        hedged(ManualClock(), **options)

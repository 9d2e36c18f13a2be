"""The client: what each part does to a call, in which order, and what its error says. Time is the test's."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from faultproof.errors import (
    DeadlineExceeded,
    Failed,
    Misuse,
    OutcomeUnknown,
    Overloaded,
    RetriesExhausted,
    TryAgain,
)
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response import Budget, Client, Policy
from faultproof.primitives import attempts
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.deadline import ambient, within
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff, RetryBudget
from faultproof.signals import BUDGET_SPENT, CALLS_SHED, HEDGE, HEDGE_WON, RETRY, Signals
from tests.fakes import FixedRng, ManualClock, Recorder, env_of
from tests.patterns.scatter_gather.test_scatter_gather import played, settle

pytestmark = pytest.mark.anyio

NOT_NOW = TryAgain("not now")
WHO_KNOWS = OutcomeUnknown("who knows")
NEVER = Failed("never")


class Dependency:
    """Answers attempt after attempt as it is told to: with a value, an error, or after so many seconds."""

    def __init__(self, clock: ManualClock, *script: object) -> None:
        self.clock = clock
        self.script = list(script)
        self.sent: list[str] = []
        self.cancelled = 0

    async def __call__(self, endpoint: Endpoint, attempt: int) -> object:
        self.sent.append(endpoint.name)
        answer = self.script.pop(0) if self.script else "ok"
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            try:
                await self.clock.sleep(answer)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return answer


def client_on(clock: ManualClock, names: str = "ab", **policy: Any) -> Client:
    seen = policy.pop("seen", None)
    budget = policy.pop("budget_object", None)
    env = env_of(clock=clock, rng=FixedRng(0.5), **({"signals": Signals([seen])} if seen else {}))
    return Client([Endpoint(name) for name in names], Policy(**policy), env=env, budget=budget, name="shop")


async def outcome(clock: ManualClock, awaitable: Any) -> object:
    """What came of it, an error included."""

    async def caught() -> object:
        try:
            return await awaitable
        except Exception as error:
            return error

    return (await played(clock, caught()))[0]


# -- what is sent again, and what it comes to ------------------------------------------------------------------------


@pytest.mark.parametrize("is_idempotent", [False, True])
async def test_what_did_not_happen_is_sent_again_to_another_endpoint(is_idempotent: bool) -> None:
    for _ in range(10):
        clock, seen = ManualClock(), Recorder()
        dependency = Dependency(clock, NOT_NOW)
        result = await outcome(clock, client_on(clock, seen=seen, idempotent=is_idempotent).call(dependency))
        assert (result.value, result.attempts, result.hedged, result.coverage) == ("ok", 2, False, 1.0)  # type: ignore[attr-defined]
        assert sorted(dependency.sent) == ["a", "b"]
        assert result.endpoint.name == dependency.sent[1]  # type: ignore[attr-defined]
        assert sum(seen.values(RETRY)) == 1


async def test_what_may_have_happened_is_sent_again_only_if_it_is_idempotent() -> None:
    clock = ManualClock()
    client = client_on(clock)
    dependency = Dependency(clock, WHO_KNOWS, WHO_KNOWS)
    assert await outcome(clock, client.call(dependency)) is WHO_KNOWS
    assert len(dependency.sent) == 1
    result = await outcome(clock, client.call(dependency, idempotent=True))
    assert (result.value, len(dependency.sent)) == ("ok", 3)  # type: ignore[attr-defined]


async def test_a_refusal_is_an_answer_and_is_not_sent_again() -> None:
    clock = ManualClock()
    dependency = Dependency(clock, NEVER)
    assert await outcome(clock, client_on(clock, idempotent=True).call(dependency)) is NEVER
    assert len(dependency.sent) == 1


@pytest.mark.parametrize("script", [[WHO_KNOWS, NOT_NOW, NOT_NOW], [NOT_NOW, WHO_KNOWS, NOT_NOW], [WHO_KNOWS] * 3])
async def test_nothing_happened_is_said_only_if_it_is_true_of_every_attempt(script: list[Exception]) -> None:
    clock = ManualClock()
    dependency = Dependency(clock, *script)
    error = await outcome(clock, client_on(clock, idempotent=True).call(dependency))
    assert isinstance(error, OutcomeUnknown)
    assert len(dependency.sent) == 3
    dependency = Dependency(clock, *[NOT_NOW] * 3)
    error = await outcome(clock, client_on(clock, idempotent=True).call(dependency))
    assert isinstance(error, RetriesExhausted)
    assert (error.attempts, error.__cause__) == (3, NOT_NOW)


async def test_a_retry_that_finds_every_breaker_open_does_not_make_an_unknown_outcome_a_known_one() -> None:
    clock = ManualClock()
    breaker = BreakerPolicy(minimum_calls=1)
    client = client_on(clock, "a", idempotent=True, breaker=breaker, retry=Backoff(attempts=3, base=0.0, cap=0.0))
    dependency = Dependency(clock, WHO_KNOWS)
    error = await outcome(clock, client.call(dependency))
    assert isinstance(error, OutcomeUnknown)
    assert len(dependency.sent) == 1
    error = await outcome(clock, client.call(dependency))  # of this one nothing was sent
    assert isinstance(error, Overloaded)
    assert error.retry_after is not None
    assert error.retry_after > 0
    assert len(dependency.sent) == 1


async def test_a_foreign_error_is_raised_as_what_it_means_with_its_cause() -> None:
    clock = ManualClock()
    refused, lost, bug = ConnectionRefusedError("nobody"), ConnectionResetError("gone"), KeyError("x")
    assert (await outcome(clock, client_on(clock).call(Dependency(clock, refused)))).attempts == 2  # type: ignore[attr-defined]
    error = await outcome(clock, client_on(clock).call(Dependency(clock, lost)))
    assert isinstance(error, OutcomeUnknown)
    assert error.__cause__ is lost
    assert await outcome(clock, client_on(clock, idempotent=True).call(Dependency(clock, bug))) is bug


# -- retry-after, budget, deadline ---------------------------------------------------------------------------------


async def test_nobody_comes_back_before_retry_after_nor_when_that_is_too_late() -> None:
    clock = ManualClock()
    client = client_on(clock, deadline=10.0)
    began = clock.now
    dependency = Dependency(clock, Overloaded("busy", retry_after=4.0))
    result, ended = await played(clock, client.call(dependency))
    assert result.value == "ok"
    assert 4.0 <= ended + 1_000 - began <= 5.0
    dependency = Dependency(clock, Overloaded("busy", retry_after=11.0))
    began = clock.now
    error = await outcome(clock, client.call(dependency))
    assert isinstance(error, DeadlineExceeded)
    assert (len(dependency.sent), clock.now - began) == (1, 0.0)


async def test_retries_stay_within_the_budget_however_many_callers_fail() -> None:
    clock, seen = ManualClock(), Recorder()
    client = client_on(
        clock, seen=seen, budget=Budget(ratio=0.1, burst=10.0), breaker=None, outliers=None, calls=1_000_000
    )
    dependency = Dependency(clock, *[NOT_NOW] * 100_000)
    for _ in range(1_000):
        assert isinstance(await outcome(clock, client.call(dependency)), RetriesExhausted)
    assert 1_000 + 100 <= len(dependency.sent) <= 1_000 + 10 + 100
    assert sum(seen.values(BUDGET_SPENT)) > 0


async def test_one_budget_pays_for_what_several_clients_repeat() -> None:
    clock = ManualClock()
    budget = RetryBudget(ratio=0.0, burst=3.0)
    clients = [client_on(clock, budget_object=budget) for _ in range(2)]
    dependency = Dependency(clock, *[NOT_NOW] * 100)
    for client in clients:
        assert isinstance(await outcome(clock, client.call(dependency)), RetriesExhausted)
    assert len(dependency.sent) == 5


async def test_an_attempt_that_takes_too_long_is_cut_off_and_its_outcome_is_unknown() -> None:
    clock = ManualClock()
    client = client_on(clock, deadline=10.0, attempt_timeout=2.0)
    dependency = Dependency(clock, 5.0)
    began = clock.now
    error = await outcome(clock, client.call(dependency))
    assert isinstance(error, OutcomeUnknown)
    assert (clock.now - began, dependency.cancelled) == (2.0, 1)
    dependency = Dependency(clock, 5.0)
    assert (await outcome(clock, client.call(dependency, idempotent=True))).attempts == 2  # type: ignore[attr-defined]


async def test_the_earliest_deadline_counts_and_is_known_below() -> None:
    clock = ManualClock()
    client, left = client_on(clock, deadline=10.0), list[float]()

    async def send(endpoint: Endpoint, attempt: int) -> None:
        deadline = ambient()
        assert deadline is not None
        left.append(deadline.left())

    await client.call(send)
    await client.call(send, timeout=3.0)
    await client.call(send, timeout=30.0)
    with within(4.0, clock):
        await client.call(send)
        await client.call(send, timeout=3.0)
    assert left == [10.0, 3.0, 10.0, 4.0, 3.0]
    assert ambient() is None
    with within(0.0, clock), pytest.raises(DeadlineExceeded):
        await client.call(send)
    assert len(left) == 5


async def test_a_caller_in_a_hurry_does_not_open_the_breaker_of_an_endpoint_that_is_well() -> None:
    clock = ManualClock()
    client = client_on(clock, "a", attempt_timeout=2.0, breaker=BreakerPolicy(minimum_calls=1), retry=None)
    for _ in range(20):
        error = await outcome(clock, client.call(Dependency(clock, 1.0), timeout=0.5))
        assert isinstance(error, OutcomeUnknown)
    assert (await outcome(clock, client.call(Dependency(clock)))).value == "ok"  # type: ignore[attr-defined]
    await outcome(clock, client.call(Dependency(clock, 100.0)))
    assert isinstance(await outcome(clock, client.call(Dependency(clock))), Overloaded)


async def test_one_layer_repeats_and_those_below_know_it() -> None:
    clock = ManualClock()
    below, sent = client_on(clock, "x"), list[str]()

    async def send(endpoint: Endpoint, attempt: int) -> object:
        sent.append(str(attempts.ambient()))
        return (await below.call(dependency)).value

    dependency = Dependency(clock, *[NOT_NOW] * 2)
    assert (await outcome(clock, client_on(clock).call(send))).value == "ok"  # type: ignore[attr-defined]
    assert sent == [str(attempts.Attempt(number, 3)) for number in (1, 2, 3)]
    assert len(dependency.sent) == 3
    assert attempts.ambient() is None
    dependency = Dependency(clock, *[NOT_NOW] * 9)
    with attempts.arrived(attempts.from_header("1/4")):
        assert await outcome(clock, client_on(clock).call(dependency)) is NOT_NOW
    assert len(dependency.sent) == 1
    with attempts.arrived(attempts.from_header("1")):
        assert isinstance(await outcome(clock, client_on(clock).call(dependency)), RetriesExhausted)
    assert len(dependency.sent) == 4


# -- shed, breaker, bulkhead, balance ---------------------------------------------------------------------------------


async def test_what_comes_while_too_many_calls_are_under_way_is_shed_at_once() -> None:
    clock, seen = ManualClock(), Recorder()
    client = client_on(clock, seen=seen, calls=3, bulkhead=None)
    dependency = Dependency(clock, *[5.0] * 3)
    running = [asyncio.create_task(client.call(dependency)) for _ in range(3)]
    await settle()
    with pytest.raises(Overloaded) as refused:
        await client.call(dependency)
    assert refused.value.retry_after is not None
    assert (len(dependency.sent), sum(seen.values(CALLS_SHED))) == (3, 1)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert (await client.call(Dependency(clock))).value == "ok"


async def test_an_open_breaker_sends_calls_to_the_other_endpoints() -> None:
    clock = ManualClock()
    client = client_on(clock, "abc", breaker=BreakerPolicy(minimum_calls=1), outliers=None, retry=None)

    async def send(endpoint: Endpoint, attempt: int) -> str:
        if endpoint.name == "a":
            raise WHO_KNOWS
        return endpoint.name

    failed = 0
    for _ in range(200):
        failed += isinstance(await outcome(clock, client.call(send)), OutcomeUnknown)
    assert failed == 1


async def test_a_thousand_at_recovery_are_as_many_calls_as_there_are_probes() -> None:
    clock = ManualClock()
    policy = BreakerPolicy(minimum_calls=1, probes=3, open_for=1.0, open_most=1.0)
    client = client_on(clock, "a", breaker=policy, outliers=None, retry=None, calls=5_000, bulkhead=None)
    await outcome(clock, client.call(Dependency(clock, WHO_KNOWS)))
    clock.advance(1.0)
    dependency = Dependency(clock, *[0.5] * 1_000)
    tasks = [asyncio.create_task(client.call(dependency)) for _ in range(1_000)]
    await settle()
    assert len(dependency.sent) == 3
    clock.advance(0.5)
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, Overloaded) for one in got) == 997
    assert (await client.call(Dependency(clock))).value == "ok"


async def test_a_call_without_a_permit_is_refused_and_not_repeated_and_its_probe_goes_to_another() -> None:
    clock, seen = ManualClock(), Recorder()
    client = client_on(clock, "a", seen=seen, bulkhead=BulkheadPolicy(concurrency=1, queue=0))
    dependency = Dependency(clock, 5.0)
    running = asyncio.create_task(client.call(dependency))
    await settle()
    with pytest.raises(Overloaded):
        await client.call(dependency)
    assert (len(dependency.sent), sum(seen.values(RETRY))) == (1, 0)
    clock.advance(5.0)
    await running


async def test_what_waits_for_a_permit_is_gone_when_its_deadline_is() -> None:
    clock = ManualClock()
    client = client_on(clock, bulkhead=BulkheadPolicy(concurrency=1, queue=5, wait=50.0), deadline=100.0)
    dependency = Dependency(clock, 20.0)
    running = asyncio.create_task(client.call(dependency))
    await settle()
    error = await outcome(clock, client.call(dependency, timeout=3.0))
    assert isinstance(error, DeadlineExceeded)
    assert len(dependency.sent) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await client.call(Dependency(clock))).value == "ok"


async def test_tenants_have_their_own_part_of_the_permits() -> None:
    clock = ManualClock()
    client = client_on(clock, bulkhead=BulkheadPolicy(concurrency=2, queue=0))
    dependency = Dependency(clock, 5.0)
    running = asyncio.create_task(client.call(dependency, tenant="loud"))
    await settle()
    with pytest.raises(Overloaded):
        await client.call(dependency, tenant="loud")
    assert (await client.call(Dependency(clock), tenant="quiet")).value == "ok"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_endpoint_whose_calls_all_fail_is_ejected_and_one_that_drains_gets_none() -> None:
    clock = ManualClock()
    client = client_on(clock, "abcd", breaker=None, outliers=OutlierPolicy(in_a_row=3), retry=None)

    async def send(endpoint: Endpoint, attempt: int) -> str:
        if endpoint.name == "a":
            raise NOT_NOW
        return endpoint.name

    results = [await outcome(clock, client.call(send)) for _ in range(200)]
    assert results.count(NOT_NOW) == 3
    client.endpoints.all[1].is_draining = True
    for _ in range(50):
        assert (await client.call(send)).value in ("c", "d")
    for endpoint in client.endpoints.all:
        endpoint.is_draining = True
    with pytest.raises(Overloaded, match="draining"):
        await client.call(send)


@pytest.mark.parametrize(("balance", "calls"), [("round-robin", ["a", "b"] * 4), ("ring", None)])
async def test_the_policy_says_who_is_picked(balance: str, calls: list[str] | None) -> None:
    clock = ManualClock()
    client = client_on(clock, balance=balance)
    dependency = Dependency(clock)
    for _ in range(8):
        await client.call(dependency, key="customer-1")
    assert sorted(dependency.sent) == sorted(calls) if calls else len(set(dependency.sent)) == 1


# -- hedges ------------------------------------------------------------------------------------------------------------


async def test_a_slow_call_is_hedged_at_another_endpoint_if_it_may_be_made_twice() -> None:
    clock, seen = ManualClock(), Recorder()
    client = client_on(clock, seen=seen, idempotent=True, hedge=HedgePolicy(at_first=1.0), deadline=50.0)
    dependency = Dependency(clock, 20.0, 2.0)
    result, _ = await played(clock, client.call(dependency))
    assert (result.attempts, result.hedged, result.took_s) == (2, True, 3.0)
    assert result.endpoint.name == dependency.sent[1]
    assert sorted(dependency.sent) == ["a", "b"]
    assert (sum(seen.values(HEDGE)), sum(seen.values(HEDGE_WON)), dependency.cancelled) == (1, 1, 1)
    dependency = Dependency(clock, 20.0, 2.0)
    result, _ = await played(clock, client.call(dependency, idempotent=False))
    assert (result.attempts, result.hedged) == (1, False)
    assert await client.close() == 0


async def test_no_hedge_without_a_permit_to_spare() -> None:
    clock = ManualClock()
    client = client_on(
        clock, idempotent=True, hedge=HedgePolicy(at_first=1.0), bulkhead=BulkheadPolicy(concurrency=1), deadline=50.0
    )
    dependency = Dependency(clock, 20.0, 2.0)
    result, _ = await played(clock, client.call(dependency))
    assert (result.attempts, result.took_s) == (1, 20.0)


# -- cancelling, and building -------------------------------------------------------------------------------------


async def test_ten_thousand_cancels_leave_nothing_behind() -> None:
    clock = ManualClock()
    client = client_on(
        clock, "abc", idempotent=True, hedge=HedgePolicy(at_first=0.2), bulkhead=BulkheadPolicy(concurrency=5, queue=50)
    )
    dependency = Dependency(clock, *[0.7, 0.1, NOT_NOW, WHO_KNOWS, 3.0] * 5_000)
    for _ in range(100):
        tasks = [asyncio.create_task(client.call(dependency)) for _ in range(100)]
        for number, task in enumerate(tasks):
            if number % 10 == 0:
                await settle()
                clock.advance(0.05)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert client._bulkhead is not None
    assert client._bulkhead.snapshot()[1:3] == (0, 0)
    assert (client._calls, client.endpoints.in_flight) == (0, 0)
    clock.advance(60.0)
    assert (await outcome(clock, client.call(Dependency(clock)))).value == "ok"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Client([]), "endpoints"),
        (lambda: Client([Endpoint("a"), Endpoint("a")]), "twice"),
        (lambda: Client([Endpoint("a", "nowhere")]), "url"),
        (lambda: Client([Endpoint("a")], name="a b"), "named"),
        (lambda: Client([Endpoint("a")], Policy(health=HealthPolicy())), "check"),
    ],
)
async def test_what_cannot_work_is_refused_before_the_first_call(build: Callable[[], object], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        build()


async def test_explain_names_every_part_in_its_order() -> None:
    client = client_on(ManualClock(), idempotent=True, hedge=HedgePolicy())
    parts = [line.split()[0] for line in client.explain().splitlines()[1:] if line[2] != " "]
    assert parts == ["deadline", "shed", "retry", "hedge", "pick", "breaker", "bulkhead", "attempt"]
    off = client_on(ManualClock(), retry=None, breaker=None, bulkhead=None).explain()
    assert [line.split()[0] for line in off.splitlines() if line.endswith(" off")] == [
        "retry",
        "hedge",
        "breaker",
        "bulkhead",
    ]

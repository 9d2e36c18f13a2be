"""What the client must not lose: each is a line of it that was broken once, with no other test that noticed."""

import asyncio
import contextlib

import pytest

from faultproof.errors import (
    DeadlineExceeded,
    Failed,
    InvalidInput,
    OutcomeUnknown,
    Overloaded,
    TryAgain,
)
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response import Budget
from faultproof.primitives import attempts
from faultproof.primitives.adaptive import AdaptivePolicy
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.deadline import ambient, within
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff
from faultproof.signals import HEDGE
from tests.fakes import ManualClock, Recorder
from tests.patterns.request_response.test_client import (
    NEVER,
    NOT_NOW,
    WHO_KNOWS,
    Dependency,
    client_on,
    outcome,
)
from tests.patterns.scatter_gather.test_scatter_gather import played, settle

pytestmark = pytest.mark.anyio

ONE_IS_ENOUGH = BreakerPolicy(minimum_calls=1)
AT_ONCE = Backoff(attempts=2, base=0.0, cap=0.0)


async def test_a_hedge_that_cancelled_itself_may_have_happened() -> None:
    clock, sent = ManualClock(), list[int]()
    client = client_on(clock, idempotent=True, hedge=HedgePolicy(at_first=1.0), retry=None, deadline=50.0)

    async def send(endpoint: Endpoint, attempt: int) -> None:
        sent.append(attempt)
        await clock.sleep(2.0 if attempt == 1 else 0.5)
        raise NOT_NOW if attempt == 1 else asyncio.CancelledError

    assert isinstance(await outcome(clock, client.call(send)), OutcomeUnknown)
    assert sent == [1, 2]


async def test_what_this_client_refuses_says_nothing_about_the_endpoint_and_is_nobody_elses_to_translate() -> None:
    clock = ManualClock()
    client = client_on(clock, "a", breaker=ONE_IS_ENOUGH, bulkhead=BulkheadPolicy(concurrency=1, queue=0))
    translated = list[Exception]()
    client._translate = lambda error: translated.append(error) or error  # type: ignore[func-returns-value]
    running = asyncio.create_task(client.call(Dependency(clock, 1.0)))
    await settle()
    for _ in range(5):
        with pytest.raises(Overloaded, match="permit"):
            await client.call(Dependency(clock))
    clock.advance(1.0)
    await running
    assert (await client.call(Dependency(clock))).value == "ok"
    assert translated == []


async def test_an_endpoint_that_has_no_time_left_is_not_asked_again() -> None:
    clock = ManualClock()
    dependency = Dependency(clock, DeadlineExceeded("too late for that"))
    assert isinstance(await outcome(clock, client_on(clock).call(dependency)), DeadlineExceeded)
    assert len(dependency.sent) == 1


async def test_a_limit_that_adapts_is_told_of_each_call() -> None:
    clock = ManualClock()
    bulkhead = BulkheadPolicy(concurrency=10, adaptive=AdaptivePolicy())
    client = client_on(clock, bulkhead=bulkhead, breaker=None, outliers=None, retry=None)
    assert client._bulkhead is not None
    before = client._bulkhead.permits.limit
    for _ in range(20):
        await outcome(clock, client.call(Dependency(clock, Overloaded("busy"))))
        clock.advance(1.0)
    assert client._bulkhead.permits.limit < before


async def test_callers_that_give_up_eject_nobody() -> None:
    clock = ManualClock()
    client = client_on(clock, "abc", outliers=OutlierPolicy(in_a_row=1), breaker=ONE_IS_ENOUGH)
    for _ in range(20):
        task = asyncio.create_task(client.call(Dependency(clock, 5.0)))
        await settle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert all(endpoint.is_usable(clock.monotonic()) for endpoint in client.endpoints.all)
    assert (await client.call(Dependency(clock))).value == "ok"


async def test_retry_after_counts_although_an_earlier_attempt_may_have_happened() -> None:
    clock = ManualClock()
    dependency = Dependency(clock, WHO_KNOWS, Overloaded("busy", retry_after=4.0))
    result, _ = await played(clock, client_on(clock, idempotent=True, deadline=20.0).call(dependency))
    assert (result.value, result.attempts) == ("ok", 3)
    assert result.took_s >= 4.0


async def test_an_answer_that_is_an_error_opens_no_breaker_and_ejects_nobody() -> None:
    clock = ManualClock()
    client = client_on(clock, breaker=ONE_IS_ENOUGH, outliers=OutlierPolicy(in_a_row=1))
    for error in (NEVER, InvalidInput("not that")) * 5:
        assert await outcome(clock, client.call(Dependency(clock, error))) is error
    assert all(endpoint.is_usable(clock.monotonic()) for endpoint in client.endpoints.all)
    assert (await client.call(Dependency(clock))).value == "ok"


async def test_hedges_that_always_lose_are_not_made_for_long() -> None:
    clock, seen = ManualClock(), Recorder()
    client = client_on(
        clock,
        seen=seen,
        idempotent=True,
        hedge=HedgePolicy(at_first=1.0),
        budget=Budget(ratio=1.0, burst=1_000),
        deadline=50.0,
    )
    for _ in range(40):
        assert (await outcome(clock, client.call(Dependency(clock, 2.0, 5.0)))).value == 2.0  # type: ignore[attr-defined]
    assert sum(seen.values(HEDGE)) == 11, "the last of those of which fewer than half won"


async def test_a_quantile_that_a_policy_may_have_a_client_may_have() -> None:
    client_on(ManualClock(), idempotent=True, hedge=HedgePolicy(quantile=0.9999))


async def test_the_time_in_the_queue_is_not_the_attempts() -> None:
    clock = ManualClock()
    client = client_on(clock, "a", attempt_timeout=2.0, bulkhead=BulkheadPolicy(concurrency=1, wait=5.0))
    first = asyncio.create_task(client.call(Dependency(clock, 1.5)))
    await settle()
    second = asyncio.create_task(client.call(Dependency(clock, 1.5)))
    await settle()
    for _ in range(2):
        clock.advance(1.5)
        await settle()
    assert [(await first).value, (await second).value] == [1.5, 1.5]


async def test_the_time_before_a_retry_is_not_the_attempts() -> None:
    clock = ManualClock()
    client = client_on(clock, attempt_timeout=2.0)
    result, _ = await played(clock, client.call(Dependency(clock, Overloaded("busy", retry_after=1.5), 1.5)))
    assert (result.value, result.attempts) == (1.5, 2)


async def test_a_call_that_is_over_leaves_no_attempt_and_no_deadline_behind() -> None:
    clock = ManualClock()
    client = client_on(clock, retry=AT_ONCE)
    with within(50.0, clock) as above:
        for script in ([], [NEVER], [NOT_NOW], [NOT_NOW, NOT_NOW]):
            with contextlib.suppress(Failed, TryAgain):
                await client.call(Dependency(clock, *script))
            assert (attempts.ambient(), ambient()) == (None, above)


async def test_a_priority_that_there_is_not_is_refused_while_permits_are_free_too() -> None:
    with pytest.raises(InvalidInput, match="priority"):
        await client_on(ManualClock()).call(Dependency(ManualClock()), priority=99)


async def test_whoever_finds_all_breakers_open_comes_back_when_the_first_may_be_probed() -> None:
    clock = ManualClock()
    breaker = BreakerPolicy(minimum_calls=1, open_for=8.0, jitter=0.0)
    client = client_on(clock, breaker=breaker, retry=None, outliers=None)
    await outcome(clock, client.call(Dependency(clock, WHO_KNOWS)))
    clock.advance(5.0)
    await outcome(clock, client.call(Dependency(clock, WHO_KNOWS)))
    refused = await outcome(clock, client.call(Dependency(clock)))
    assert isinstance(refused, Overloaded)
    assert refused.retry_after == 3.0


async def test_an_answer_that_nobody_wants_does_not_beat_a_hedge() -> None:
    clock = ManualClock()
    client = client_on(clock, idempotent=True, hedge=HedgePolicy(at_first=1.0), deadline=50.0)
    call = client.call(Dependency(clock, 2.0, 4.0), is_acceptable=lambda value: value != 2.0)
    result, _ = await played(clock, call)
    assert (result.value, result.attempts, result.hedged) == (4.0, 2, True)
    result, _ = await played(clock, client.call(Dependency(clock, 0.5)))
    assert (result.attempts, result.hedged) == (1, False)


async def test_every_endpoint_is_tried_before_a_call_is_refused_for_open_breakers() -> None:
    clock = ManualClock()
    client = client_on(clock, "abcd", breaker=ONE_IS_ENOUGH, retry=None, outliers=None)

    async def only_d(endpoint: Endpoint, attempt: int) -> str:
        if endpoint.name != "d":
            raise WHO_KNOWS
        return endpoint.name

    got = [await outcome(clock, client.call(only_d)) for _ in range(30)]
    assert sum(one is WHO_KNOWS for one in got) == 3
    assert not any(isinstance(one, TryAgain) for one in got)


async def test_a_retry_whose_only_other_endpoint_is_refused_goes_where_it_was() -> None:
    clock = ManualClock()
    client = client_on(clock, breaker=BreakerPolicy(minimum_calls=2), outliers=None, retry=AT_ONCE)
    client.endpoints.all[1].is_draining = True
    dependency = Dependency(clock, NOT_NOW)
    result = await outcome(clock, client.call(dependency))
    assert (result.value, dependency.sent) == ("ok", ["a", "a"])  # type: ignore[attr-defined]

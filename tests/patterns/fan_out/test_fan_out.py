"""Fan-out: what is required and what is not, each service's part or the reason for none. Time is the test's."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from faultproof.errors import DeadlineExceeded, InvalidInput
from faultproof.patterns.fan_out import FanOut, Source
from faultproof.patterns.scatter_gather import Incomplete, Missing
from faultproof.primitives.deadline import within
from faultproof.primitives.hedging import HedgePolicy
from tests.fakes import ManualClock, env_of
from tests.patterns.scatter_gather.test_scatter_gather import played, settle

pytestmark = pytest.mark.anyio


class Services:
    """Each part takes its seconds, or raises."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.called: list[str] = []
        self.cancelled: list[str] = []

    def part(self, name: str, *takes: float | Exception) -> Callable[[str], Coroutine[Any, Any, str]]:
        """As long as that at each call."""
        calls = iter(takes)

        async def call(request: str) -> str:
            self.called.append(name)
            one = next(calls)
            if isinstance(one, Exception):
                raise one
            try:
                await self.clock.sleep(one)
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            return f"{name} of {request}"

        return call


def fan_out(services: Services, deadline: float = 50.0, **parts: Source[str]) -> FanOut[str]:
    return FanOut(parts, deadline=deadline, env=env_of(clock=services.clock))


async def test_services_are_called_at_once_each_with_the_request_and_all_parts_are_there() -> None:
    services = Services(ManualClock())
    page = fan_out(
        services, price=Source(call=services.part("price", 3.0)), stock=Source(call=services.part("stock", 5.0))
    )
    parts, at = await played(services.clock, page.ask("bread"))
    assert at == 5.0
    assert parts.is_complete
    assert parts.values == {"price": "price of bread", "stock": "stock of bread"}


async def test_what_is_not_required_may_fail_or_be_late_and_the_answer_says_so() -> None:
    services, broken = Services(ManualClock()), ValueError("broken")
    page = fan_out(
        services,
        price=Source(call=services.part("price", 3.0)),
        reviews=Source(call=services.part("reviews", broken), is_required=False),
        photos=Source(call=services.part("photos", 90.0), is_required=False),
    )
    parts, at = await played(services.clock, page.ask("bread"))
    assert at == 50.0
    assert parts.values == {"price": "price of bread"}
    assert parts.missing == {"reviews": Missing("failed", broken), "photos": Missing("late")}
    assert parts.coverage == pytest.approx(1 / 3)


async def test_without_what_is_required_there_is_no_answer_and_nobody_waits_for_the_rest() -> None:
    services = Services(ManualClock())
    page = fan_out(
        services,
        stock=Source(call=services.part("stock", 90.0)),
        price=Source(call=services.part("price", ValueError("no price"))),
        photos=Source(call=services.part("photos", 90.0), is_required=False),
    )
    incomplete, at = await played(services.clock, page.ask("bread"))
    assert at == 0.0
    assert isinstance(incomplete, Incomplete)
    assert str(incomplete) == "'price' is required, and is missing: failed: ValueError: no price"
    assert {name: missing.why for name, missing in incomplete.gathered.missing.items()} == {
        "stock": "cut off",
        "price": "failed",
        "photos": "cut off",
    }
    await settle()
    assert sorted(services.cancelled) == ["photos", "stock"]


async def test_only_what_may_be_called_twice_is_hedged() -> None:
    services = Services(ManualClock())
    page = fan_out(
        services,
        price=Source(call=services.part("price", 40.0, 1.0), hedge=HedgePolicy(at_first=10.0)),
        stock=Source(call=services.part("stock", 40.0, 1.0)),
    )
    parts, at = await played(services.clock, page.ask("bread"))
    assert at == 40.0
    assert (parts.answers["price"].attempts, parts.answers["price"].took_s) == (2, 11.0)
    assert parts.answers["stock"].attempts == 1
    assert sorted(services.called) == ["price", "price", "stock"]
    assert await page.close() == 0


async def test_the_caller_s_own_deadline_and_each_service_s_time_count() -> None:
    services = Services(ManualClock())
    slow = {"photos": Source(call=services.part("photos", 90.0, 90.0), is_required=False)}
    with within(4.0, services.clock):
        work = asyncio.ensure_future(fan_out(services, **slow).ask("bread"))
    parts, at = await played(services.clock, work)
    assert (parts.missing["photos"], at) == (Missing("late"), 4.0)
    page = FanOut(slow, deadline=50.0, each=2.0, env=env_of(clock=services.clock))
    parts, at = await played(services.clock, page.ask("bread"))
    assert (parts.missing["photos"], at) == (Missing("late"), 6.0)
    with within(0.0, services.clock), pytest.raises(DeadlineExceeded):
        await page.ask("bread")


def test_services_that_could_only_fail_are_refused() -> None:
    with pytest.raises(InvalidInput, match="`async def`"):
        Source(call=lambda request: request)
    with pytest.raises(InvalidInput, match="called with the request"):
        Source(call=settle)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="`services`"):
        FanOut({})
    one = {"one": Source(call=Services(ManualClock()).part("one"))}
    with pytest.raises(InvalidInput, match="`deadline`"):
        FanOut(one, deadline=-1.0)
    with pytest.raises(InvalidInput, match="`each` must be at most `deadline`"):
        FanOut(one, each=2.0)

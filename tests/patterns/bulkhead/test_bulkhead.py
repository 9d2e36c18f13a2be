"""A bulkhead: permits around calls, threads in a pool of its own, a limit that finds itself, synchronous callers."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Closed, DeadlineExceeded, InvalidInput, Misuse, OutcomeUnknown, Overloaded
from faultproof.primitives import deadline
from faultproof.primitives.deadline import Deadline
from tests.fakes import ManualClock, env_of, eventually, settle, within

pytestmark = pytest.mark.anyio


class Blocked:
    """A blocking function whose calls end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[object] = []
        self.threads: set[int] = set()
        self._gate = threading.Semaphore(0)
        self._began = threading.Semaphore(0)

    def __call__(self, what: object = None) -> object:
        self.begun.append(what)
        self.threads.add(threading.get_ident())
        self._began.release()
        assert self._gate.acquire(timeout=20)
        if isinstance(what, BaseException):
            raise what
        return what

    def end(self, calls: int = 1) -> None:
        self._gate.release(calls)

    async def has_begun(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert await asyncio.to_thread(self._began.acquire, timeout=20)


@pytest.fixture
def bulkheads() -> Iterator[Callable[..., fp.Bulkhead]]:
    """Makes some that are closed at the end."""
    made: list[fp.Bulkhead] = []

    def make(clock: Any = None, **policy: Any) -> fp.Bulkhead:
        env = env_of(clock=clock) if clock is not None else env_of()
        made.append(fp.Bulkhead(env, fp.BulkheadPolicy(**policy), name="payments"))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., fp.Bulkhead]


def in_flight(bulkhead: fp.Bulkhead) -> int:
    return bulkhead.snapshot().in_flight


async def test_a_permit_is_held_inside_and_given_back_however_it_ends(bulkheads: Make) -> None:
    bulkhead = bulkheads(concurrency=1, queue=0)
    async with bulkhead.permit(tenant="a"):
        assert bulkhead.snapshot().tenants == {"a": (1, 0, 1)}
        with pytest.raises(Overloaded):
            async with bulkhead.permit():
                raise AssertionError("there was one")
    with pytest.raises(ZeroDivisionError):
        async with bulkhead.permit(priority=3):
            raise ZeroDivisionError
    assert in_flight(bulkhead) == 0


async def test_run_gives_what_the_function_gives_and_lets_others_wait_meanwhile(bulkheads: Make) -> None:
    bulkhead = bulkheads(concurrency=1)
    order: list[str] = []
    gate = asyncio.Event()

    async def work(name: str) -> str:
        order.append(name)
        await within(gate.wait())
        return name

    tasks = [asyncio.create_task(bulkhead.run(work, name)) for name in ("first", "low")]
    await settle()
    tasks.append(asyncio.create_task(bulkhead.run(work, "high", priority=1)))
    await settle()
    assert order == ["first"]
    gate.set()
    assert await within(asyncio.gather(*tasks)) == ["first", "low", "high"]
    assert order == ["first", "high", "low"]


async def test_the_ambient_deadline_ends_the_wait_unless_another_is_given(bulkheads: Make) -> None:
    clock = ManualClock()
    bulkhead = bulkheads(clock, concurrency=1, wait=5.0)

    async def enter(**given: Any) -> str:
        async with bulkhead.permit(**given):
            return "entered"

    async with bulkhead.permit():
        with deadline.within(1.0, clock):
            ambient = asyncio.create_task(enter())
            given = asyncio.create_task(enter(deadline=Deadline(clock.now + 3, clock)))
        await settle()
        clock.advance(1.0)
        with pytest.raises(DeadlineExceeded):
            await within(ambient)
    assert await within(given) == "entered"
    with deadline.within(0.0, clock), pytest.raises(DeadlineExceeded):
        await enter()
    assert in_flight(bulkhead) == 0


async def test_a_permit_is_for_one_entry(bulkheads: Make) -> None:
    bulkhead = bulkheads()
    permit = bulkhead.permit()
    async with permit:
        with pytest.raises(Misuse, match="held already"):
            await permit.__aenter__()
    with pytest.raises(Misuse, match="not held"):
        await permit.__aexit__(None, None, None)
    assert in_flight(bulkhead) == 0


async def test_a_full_tenant_leaves_the_others_their_part(bulkheads: Make) -> None:
    bulkhead = bulkheads(concurrency=4, queue=0)
    gate = asyncio.Event()
    noisy = [asyncio.create_task(bulkhead.run(gate.wait, tenant="noisy")) for _ in range(10)]
    await settle()
    assert [type(task.exception()) for task in noisy if task.done()] == [Overloaded] * 8
    await within(bulkhead.run(asyncio.sleep, 0, tenant="quiet"))
    gate.set()
    await within(asyncio.gather(*noisy, return_exceptions=True))


# --- threads ----------------------------------------------------------------------------------------------------------


async def test_blocking_functions_run_in_threads_of_their_own_and_never_in_more_than_there_are_permits(
    bulkheads: Make,
) -> None:
    payments, other, blocked = bulkheads(concurrency=2), bulkheads(concurrency=1), Blocked()
    tasks = [asyncio.create_task(payments.threads(blocked, number)) for number in range(6)]
    await blocked.has_begun(2)
    assert payments.snapshot()[:3] == (2, 2, 4)
    assert await within(other.threads(lambda: "not held up")) == "not held up"
    blocked.end(6)
    assert await within(asyncio.gather(*tasks)) == [0, 1, 2, 3, 4, 5]
    assert len(blocked.threads) <= 2
    eventually(lambda: in_flight(payments) == 0, "permits are given back")


async def test_the_thread_of_a_caller_that_was_cancelled_holds_its_permit_until_it_ends(bulkheads: Make) -> None:
    bulkhead, blocked = bulkheads(concurrency=1), Blocked()
    given_up = asyncio.create_task(bulkhead.threads(blocked))
    await blocked.has_begun()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(given_up)
    assert in_flight(bulkhead) == 1
    after = asyncio.create_task(bulkhead.threads(blocked, "after"))
    await settle()
    assert blocked.begun == [None]
    blocked.end(2)
    assert await within(after) == "after"
    eventually(lambda: in_flight(bulkhead) == 0, "permits are given back")


async def test_an_error_in_a_thread_is_its_caller_s_and_context_variables_are_there(bulkheads: Make) -> None:
    bulkhead = bulkheads(concurrency=1)
    user: ContextVar[str] = ContextVar("user")
    user.set("ada")
    assert await within(bulkhead.threads(user.get)) == "ada"
    with pytest.raises(ZeroDivisionError):
        await within(bulkhead.threads(divmod, 1, 0, tenant="a"))
    eventually(lambda: in_flight(bulkhead) == 0, "permits are given back")


def test_synchronous_callers_share_the_bound_with_all_others(bulkheads: Make) -> None:
    bulkhead, blocked = bulkheads(concurrency=2, queue=10, wait=20.0), Blocked()
    answers: list[object] = []
    with fp.Blocking() as one, fp.Blocking() as other:
        callers = [
            threading.Thread(target=lambda b=b, n=n: answers.append(b.call(bulkhead.threads, blocked, n)))
            for n, b in enumerate([one, other] * 3)
        ]
        for caller in callers:
            caller.start()
        eventually(lambda: bulkhead.snapshot()[:3] == (2, 2, 4), "two run and four wait")
        assert len(blocked.begun) <= 2
        blocked.end(6)
        for caller in callers:
            caller.join(20)
    assert sorted(answers, key=str) == [0, 1, 2, 3, 4, 5]
    assert len(blocked.threads) <= 2


# --- the limit --------------------------------------------------------------------------------------------------------


async def rounds(
    bulkhead: fp.Bulkhead, clock: ManualClock, *, took_s: float, number: int = 1, error: Any = None
) -> int:
    """As many calls at once as there are permits, each as long."""
    for _ in range(number):
        permits = [bulkhead.permit() for _ in range(bulkhead.permits.limit)]
        for permit in permits:
            await permit.__aenter__()
        clock.now += took_s
        for permit in permits:
            await permit.__aexit__(type(error) if error else None, error, None)
    return bulkhead.permits.limit


async def test_the_limit_finds_what_the_dependency_bears(bulkheads: Make) -> None:
    clock = ManualClock()
    bulkhead = bulkheads(clock, concurrency=40, adaptive=fp.AdaptivePolicy(latency=0.5))
    assert await rounds(bulkhead, clock, took_s=2.0) == 28
    assert await rounds(bulkhead, clock, took_s=0.1) == 29
    assert await rounds(bulkhead, clock, took_s=0.1, number=20) == 40
    assert await rounds(bulkhead, clock, took_s=0.1, error=TimeoutError()) == 28
    assert await rounds(bulkhead, clock, took_s=0.1, error=OutcomeUnknown("")) == 19
    assert await rounds(bulkhead, clock, took_s=0.1, error=ValueError()) == 20, "it has answered"


async def test_constant_timeouts_end_at_the_least(bulkheads: Make) -> None:
    clock = ManualClock()
    bulkhead = bulkheads(clock, concurrency=40, adaptive=fp.AdaptivePolicy(latency=0.5, least=2))
    assert await rounds(bulkhead, clock, took_s=3.0, number=60, error=TimeoutError()) == 2


async def test_calls_that_their_callers_gave_up_say_nothing_unless_they_took_too_long(bulkheads: Make) -> None:
    clock = ManualClock()
    bulkhead = bulkheads(clock, concurrency=20, adaptive=fp.AdaptivePolicy(latency=0.5))
    assert await rounds(bulkhead, clock, took_s=0.6, error=asyncio.CancelledError()) == 14
    assert await rounds(bulkhead, clock, took_s=0.4, number=5, error=asyncio.CancelledError()) == 14


# --- the end, and bad input -------------------------------------------------------------------------------------------


async def test_a_closed_bulkhead_refuses_and_lets_what_runs_end(bulkheads: Make) -> None:
    bulkhead, blocked = bulkheads(concurrency=1), Blocked()
    running = asyncio.create_task(bulkhead.threads(blocked, "done"))
    await blocked.has_begun()
    waiting = asyncio.create_task(bulkhead.threads(blocked))
    await settle()
    bulkhead.close()
    for refused in (waiting, bulkhead.threads(blocked), bulkhead.run(asyncio.sleep, 0)):
        with pytest.raises(Closed, match="'payments'"):
            await within(refused)
    blocked.end()
    assert await within(running) == "done"


def test_bad_input_is_refused_before_the_first_call() -> None:
    with pytest.raises(InvalidInput, match="`least` is 9, and there are at most 8 permits"):
        fp.BulkheadPolicy(concurrency=8, adaptive=fp.AdaptivePolicy(least=9))
    with pytest.raises(InvalidInput, match="a compartment is named"):
        fp.Bulkhead(name="a b")

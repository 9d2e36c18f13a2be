"""One timer for many calls' times, and cutting off without mistaking anybody else's cancel for one's own."""

import asyncio
import random

import pytest

from faultproof.clock import SystemClock
from faultproof.errors import InvalidInput, Misuse
from faultproof.primitives.timeouts import Alarms, Timeouts
from tests.fakes import ManualClock

pytestmark = pytest.mark.anyio


class Bell:
    def __init__(self, at: float, heard: list[float]) -> None:
        self.at = at
        self._heard = heard

    def ring(self) -> None:
        self._heard.append(self.at)


class CountingClock(ManualClock):
    """How many alarms were set."""

    alarms = 0

    def alarm(self, *args, **options):  # type: ignore[no-untyped-def]
        self.alarms += 1
        return super().alarm(*args, **options)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_that_takes_too_long_is_cut_off_and_one_that_does_not_is_left_alone() -> None:
    clock = ManualClock()
    timeouts, seen = Timeouts(clock, 1.0), []

    async def call(takes: float) -> None:
        with timeouts.cut(clock.monotonic()) as cut:
            await clock.sleep(takes)
        seen.append((takes, cut.is_due))

    tasks = [asyncio.create_task(call(takes)) for takes in (0.9, 5.0, 0.5)]
    await settle()
    for _ in range(11):
        clock.advance(0.1)
        await settle()
    await asyncio.gather(*tasks)
    assert seen == [(0.5, False), (0.9, False), (5.0, True)]


async def test_a_cancel_from_outside_goes_on_upwards_also_when_the_time_runs_out_with_it() -> None:
    clock = ManualClock()
    timeouts = Timeouts(clock, 1.0)

    async def call() -> str:
        with timeouts.cut(clock.monotonic()):
            await clock.sleep(5.0)
        return "went on"

    for is_late in (False, True):
        task = asyncio.create_task(call())
        await settle()
        if is_late:
            clock.advance(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_the_call_raises_or_gives_although_its_time_is_over_reaches_its_caller() -> None:
    clock = ManualClock()
    timeouts = Timeouts(clock, 1.0)

    async def stubborn(how: str) -> str:
        with timeouts.cut(clock.monotonic()):
            try:
                await clock.sleep(5.0)
            except asyncio.CancelledError:
                if how == "raises":
                    raise ValueError("while cleaning up") from None
                return "given"
        return "cut off"

    tasks = [asyncio.create_task(stubborn(how)) for how in ("raises", "gives")]
    await settle()
    clock.advance(1.0)
    raised, given = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(raised, ValueError)
    assert given == "given"
    assert [task.cancelling() for task in tasks] == [0, 0]


async def test_thousands_of_calls_that_end_in_time_cost_one_timer_a_period() -> None:
    clock = CountingClock()
    timeouts = Timeouts(clock, 1.0)
    for _ in range(5_000):
        with timeouts.cut(clock.monotonic()):
            clock.advance(0.001)
            await asyncio.sleep(0)
    assert clock.alarms <= 6


async def test_no_more_is_kept_than_waits() -> None:
    alarms, heard = Alarms(ManualClock()), list[float]()
    for number in range(1_000):
        bell = Bell(1_001.0 + number, heard)
        alarms.set(bell, 1_000.0)
        alarms.unset(bell)
    assert len(alarms._waiting) == 0
    assert heard == []


async def test_each_rings_once_in_its_turn_whichever_were_unset() -> None:
    clock, draw = ManualClock(), random.Random(3)
    alarms, heard, expected = Alarms(clock), list[float](), list[float]()
    for _ in range(200):
        bell = Bell(clock.now + 1.0, heard)
        alarms.set(bell, clock.now)
        if draw.random() < 0.5:
            expected.append(bell.at)
        else:
            alarms.unset(bell)
        clock.advance(draw.random() / 10)
        await settle()
    clock.advance(2.0)
    await settle()
    assert heard == expected


async def test_on_the_machine_s_own_clock() -> None:
    clock = SystemClock()
    with Timeouts(clock, 0.01).cut(clock.monotonic()) as cut:
        await asyncio.Event().wait()
    assert cut.is_due


def test_an_event_loop_that_has_ended_takes_its_timer_with_it_and_the_next_one_gets_its_own() -> None:
    clock = SystemClock()
    timeouts = Timeouts(clock, 0.02)

    async def quick() -> None:
        with timeouts.cut(clock.monotonic()):
            await asyncio.sleep(0)

    async def slow() -> bool:
        with timeouts.cut(clock.monotonic()) as cut:
            await asyncio.Event().wait()
        return cut.is_due

    asyncio.run(quick())
    assert asyncio.run(slow())


async def test_two_event_loops_at_the_same_time_are_refused() -> None:
    clock = SystemClock()
    timeouts = Timeouts(clock, 5.0)

    async def use() -> None:
        with timeouts.cut(clock.monotonic()):
            await asyncio.sleep(0)

    await use()
    with pytest.raises(Misuse, match="another event loop"):
        await asyncio.to_thread(asyncio.run, use())


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`seconds`"):
        Timeouts(ManualClock(), 0)


@pytest.mark.parametrize("unset", [None, 1, 2])
async def test_what_is_to_ring_earlier_than_what_was_set_before_it_rings_in_time(unset: int | None) -> None:
    clock = ManualClock()
    alarms, heard = Alarms(clock), list[float]()
    bells = [Bell(clock.now + seconds, heard) for seconds in (5.0, 2.0, 9.0, 1.0, 9.0, 3.0)]
    for bell in bells:
        alarms.set(bell, clock.now)
    if unset is not None:
        alarms.unset(bells[unset])
    rung = list[tuple[float, float]]()
    for _ in range(10):
        clock.advance(1.0)
        await settle()
        rung += [(at, clock.now) for at in heard[len(rung) :]]
    assert all(at == now for at, now in rung)
    expected = [bell.at for n, bell in enumerate(bells) if n != unset]
    assert sorted(heard) == sorted(expected)


async def test_a_call_is_cut_off_by_the_earlier_of_its_times() -> None:
    clock = ManualClock()
    timeouts, ended = Timeouts(clock, 5.0), dict[float, float]()

    async def call(by: float) -> None:
        with timeouts.cut(clock.monotonic(), clock.now + by) as cut:
            await clock.sleep(50.0)
        assert cut.is_due
        ended[by] = clock.now

    began = clock.now
    tasks = [asyncio.create_task(call(by)) for by in (4.0, 9.0, 1.0, 2.0)]
    await settle()
    for _ in range(5):
        clock.advance(1.0)
        await settle()
    await asyncio.gather(*tasks)
    assert ended == {4.0: began + 4, 9.0: began + 5, 1.0: began + 1, 2.0: began + 2}

"""Workers: loops that fail are started again and harm nobody, and stopping gives everything back."""

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from faultproof.errors import InvalidInput
from faultproof.primitives.worker import RESTART_CAP_S, LoopHealth, Worker
from faultproof.signals import LOOP_RESTART, Signals
from tests.fakes import FixedRng, ManualClock, Recorder, env_of, settle, until, within
from tests.primitives.loops import Scripted
from tests.processes import running

pytestmark = pytest.mark.anyio


async def rest() -> float:
    return 60.0


def failing(*errors: BaseException | None) -> Callable[[], asyncio.Future[float]]:
    """Steps that fail with each in turn (None: one that succeeds), and then rest."""
    left = list(errors)

    def step() -> asyncio.Future[float]:
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        error = left.pop(0) if left else None
        if error is None:
            future.set_result(0.0 if left else 60.0)
        elif isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
        return future

    return step


class Running:
    """A worker at work on a clock that flows, with all that a test wants to look at."""

    def __init__(self, *loops: Scripted, clock: ManualClock | None = None, drain_timeout: float = 10.0) -> None:
        self.clock = clock or ManualClock(flows=True)
        self.recorder = Recorder()
        env = env_of(clock=self.clock, rng=FixedRng(1.0), signals=Signals(sinks=[self.recorder]))
        self.worker = Worker(env, *loops, drain_timeout=drain_timeout)
        self.task = asyncio.create_task(self.worker.run())

    def health(self, name: str) -> LoopHealth:
        (found,) = [health for health in self.worker.health() if health.name == name]
        return found

    async def stop(self) -> None:
        self.worker.stop()
        await within(self.task)


# --- failing ----------------------------------------------------------------------------------------------------------


async def test_a_loop_that_fails_is_started_again_after_growing_pauses() -> None:
    loop = Scripted("weak", failing(*[ValueError(f"no {n}") for n in range(1, 5)]))
    running = Running(loop)
    await until(lambda: loop.news.waits)
    assert running.clock.slept == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert loop.diary == ["open", "step", "ValueError"] * 4 + ["open", "step", "done"]
    assert running.health("weak")[:4] == ("weak", True, 4, "ValueError: no 4")
    restarts = [attributes for signal, _, attributes in running.recorder.emitted if signal is LOOP_RESTART]
    assert restarts == [{"loop": "weak", "error": "ValueError"}] * 4
    await running.stop()


async def test_pauses_are_capped_jittered_and_short_again_after_a_step_that_went_well() -> None:
    loop = Scripted("weak", failing(*[OSError("x")] * 11, None, OSError("y")))
    running = Running(loop)
    await until(lambda: loop.news.waits)
    assert running.clock.slept[8:11] == pytest.approx([25.6, RESTART_CAP_S, RESTART_CAP_S])
    assert running.clock.slept[11] == pytest.approx(0.1)
    await running.stop()

    jittered = Scripted("weak", failing(OSError("x"), OSError("y")))
    running = Running(jittered)
    running.worker._env = env_of(clock=running.clock, rng=FixedRng(0.25, 0.5))
    await until(lambda: jittered.news.waits)
    assert running.clock.slept == pytest.approx([0.025, 0.1])
    await running.stop()


async def test_a_loop_that_cannot_be_opened_is_opened_again() -> None:
    loop = Scripted("shut", rest)
    tries = iter([OSError("first"), OSError("second"), None])

    def opening() -> None:
        if error := next(tries):
            raise error

    loop.opening = opening
    running = Running(loop)
    await until(lambda: loop.news.waits)
    assert loop.diary == ["open", "open", "open", "step", "done"]
    assert running.health("shut")[1:4] == (True, 2, "OSError: second")
    await running.stop()


async def test_a_failing_loop_harms_no_other() -> None:
    clock = ManualClock()

    async def work() -> float:
        return 0.0

    weak, strong = Scripted("weak", failing(*[ValueError("no")] * 50)), Scripted("strong", work)
    running = Running(weak, strong, clock=clock)
    await settle()
    assert not running.health("weak").running
    before = len(strong.diary)
    await settle()
    assert len(strong.diary) > before
    assert running.health("strong")[1:4] == (True, 0, None)
    await running.stop()
    assert (weak.diary[-1], strong.diary[-1]) == ("close", "close")


async def test_a_cancel_that_a_step_brings_on_itself_is_a_failure_like_another() -> None:
    """Found: it ended the whole worker. A handler may well await a task that somebody cancelled."""
    loop, other = Scripted("weak", failing(asyncio.CancelledError())), Scripted("strong", rest)
    running = Running(loop, other)
    await until(lambda: loop.news.waits)
    assert not running.task.done()
    assert running.health("weak")[1:4] == (True, 1, "CancelledError: ")
    assert loop.diary == ["open", "step", "CancelledError", "open", "step", "done"]
    await running.stop()
    assert other.diary[-1] == "close"


class Odd(BaseException):
    """No `Exception`, and not to be printed."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")


async def cancels_itself() -> float:
    own_task().cancel()
    await asyncio.sleep(0)
    raise AssertionError


async def leaves_its_cancel_behind() -> float:
    own_task().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    other = asyncio.get_running_loop().create_future()
    other.cancel()
    return float(await other)


async def rests_with_a_cancel_before_it() -> float:
    own_task().cancel()
    return 60.0


async def is_odd() -> float:
    raise Odd


def own_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (cancels_itself, "CancelledError: "),
        (leaves_its_cancel_behind, "CancelledError: "),
        (rests_with_a_cancel_before_it, "CancelledError: "),
        (is_odd, "Odd: (an error that cannot be put into words)"),
    ],
)
async def test_a_step_that_does_odd_things_to_its_task_harms_no_other_and_is_taken_again(
    step: Callable[[], Awaitable[float]], error: str
) -> None:
    """Found: `run` raised, and all loops were over."""
    tries = iter([step, step, rest])
    loop, other = Scripted("weak", lambda: next(tries)()), Scripted("strong", rest)
    running = Running(loop, other)
    await until(lambda: running.task.done() or (running.health("weak").restarts == 2 and loop.diary[-1] == "done"))
    assert not running.task.done()
    assert running.health("weak")[1:4] == (True, 2, error)
    assert running.health("strong")[1:4] == (True, 0, None)
    loop.closing = other.closing = step_as_close(step)
    await running.stop()
    assert (loop.diary[-1], other.diary[-1]) == ("close", "close")


def step_as_close(step: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        await step()

    return close


@pytest.mark.parametrize("last", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_step_that_ends_the_process_ends_it(last: BaseException) -> None:
    async def step() -> float:
        raise last

    loops = [Scripted("last", step), Scripted("other", rest)]
    with pytest.raises(type(last)):
        asyncio.run(Worker(env_of(clock=ManualClock()), *loops).run())
    assert loops[0].diary == ["open", "step", type(last).__name__]


async def test_health_says_how_long_ago_a_step_went_well() -> None:
    clock = ManualClock()
    loop = Scripted("idle", rest)
    running = Running(loop, clock=clock)
    await settle()
    clock.advance(7.0)
    assert running.health("idle") == LoopHealth("idle", True, 0, None, 7.0)
    loop.news.rung.set()
    await settle()
    assert running.health("idle").last_step_s == 0.0
    await running.stop()
    assert not running.health("idle").running


async def test_endless_work_does_not_starve_another_loop() -> None:
    steps = {"busy": 0, "modest": 0}
    leads: list[int] = []

    def counting(name: str) -> Scripted:
        async def step() -> float:
            steps[name] += 1
            leads.append(abs(steps["busy"] - steps["modest"]))
            return 0.0 if steps[name] < 500 else 60.0

        return Scripted(name, step)

    running = Running(counting("busy"), counting("modest"))
    await until(lambda: min(steps.values()) == 500)
    assert max(leads) == 1
    await running.stop()


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_stop_lets_a_running_step_end_and_then_closes() -> None:
    go = asyncio.Event()

    async def step() -> float:
        await go.wait()
        return 0.0

    loop = Scripted("busy", step)
    running = Running(loop, clock=ManualClock())
    await settle()
    running.worker.stop()
    running.worker.stop()  # a second signal changes nothing
    await settle()
    assert loop.diary == ["open", "step"]
    go.set()
    await within(running.task)
    assert loop.diary == ["open", "step", "done", "close"]


async def test_stop_ends_a_rest_and_a_pause_at_once() -> None:
    resting, failed = Scripted("resting", rest), Scripted("failed", failing(*[ValueError("no")] * 9))
    running = Running(resting, failed, clock=ManualClock())
    await settle()
    assert running.clock.slept == [0.1]
    await running.stop()
    assert resting.diary == ["open", "step", "done", "close"]
    assert failed.diary == ["open", "step", "ValueError", "close"]


async def test_a_step_that_does_not_end_is_cut_short_after_the_drain_timeout_and_still_closed() -> None:
    async def hang() -> float:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    clock, loop = ManualClock(), Scripted("stuck", hang)
    running = Running(loop, clock=clock, drain_timeout=3.0)
    await settle()
    running.worker.stop()
    await settle()
    clock.advance(2.9)
    await settle()
    assert loop.diary == ["open", "step"]
    clock.advance(0.1)
    await within(running.task)
    assert loop.diary == ["open", "step", "CancelledError", "close"]


async def test_a_close_that_hangs_or_fails_is_left_behind() -> None:
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    async def fail() -> None:
        raise OSError("gone")

    hanging, broken, well = Scripted("hanging", rest), Scripted("broken", rest), Scripted("well", rest)
    hanging.closing, broken.closing = hang, fail
    running = Running(hanging, broken, well, clock=ManualClock(), drain_timeout=0.05)
    await settle()
    await running.stop()
    assert [loop.diary[-1] for loop in (hanging, broken, well)] == ["close"] * 3
    assert running.health("hanging").error == "TimeoutError: "
    assert running.health("broken").error == "OSError: gone"
    assert running.health("well").error is None


async def test_a_close_may_take_as_long_again_as_the_steps_had() -> None:
    clock = ManualClock()
    closed = asyncio.Event()

    async def slow() -> None:
        await asyncio.sleep(0)
        clock.advance(1.0)  # the time for steps is over while leases are being given back
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        closed.set()

    loop, other = Scripted("slow", rest), Scripted("other", rest)
    loop.closing = slow
    running = Running(loop, other, clock=clock, drain_timeout=0.5)
    await settle()
    await running.stop()
    assert closed.is_set()
    assert running.health("slow").error is None
    assert other.diary[-1] == "close"


async def test_a_worker_stopped_before_it_ran_does_nothing_and_leaves_nothing() -> None:
    loop = Scripted("late", rest)
    worker = Worker(env_of(clock=ManualClock()), loop)
    before = asyncio.all_tasks()
    worker.stop()
    await within(worker.run())
    assert loop.diary == ["close"]
    assert asyncio.all_tasks() == before


async def test_cancelling_the_run_ends_every_loop() -> None:
    loops = [Scripted("one", rest), Scripted("two", rest)]
    running = Running(*loops, clock=ManualClock())
    await settle()
    before = asyncio.all_tasks()
    running.task.cancel()
    with suppress(asyncio.CancelledError):
        await within(running.task)
    assert len(before - asyncio.all_tasks()) == 5


def test_a_worker_without_loops_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Worker(env_of())


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, "10", True], ids=repr)
def test_a_drain_timeout_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="`drain_timeout` must be"):
        Worker(env_of(), Scripted("one", rest), drain_timeout=value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_a_real_process(number: signal.Signals) -> None:
    async with running("tests.primitives.drained") as child:
        await child.says("working")
        child.send(number)
        await child.tell("go")
        assert [await child.line() for _ in range(4)] == ["worked", "closed", "over", ""]
        assert await child.ended() == 0

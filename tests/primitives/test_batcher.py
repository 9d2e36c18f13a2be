"""Batching: who shares a batch, what each caller is told, and that nothing is lost, doubled or leaked."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from faultproof.errors import Closed, DeadlineExceeded, Failed, InvalidInput, OutcomeUnknown, Overloaded
from faultproof.primitives.batcher import Batcher, BatchLimits
from tests.fakes import ManualClock, env_of, settle, within

pytestmark = pytest.mark.anyio


class Gate:
    """An `apply` that doubles numbers, keeps the batches it saw, and holds each until it is let through."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.permits = asyncio.Semaphore(1_000_000 if is_open else 0)
        self.answer: Callable[[Sequence[int]], Any] = lambda items: [2 * item for item in items]

    async def __call__(self, items: Sequence[int]) -> Any:
        self.batches.append(list(items))
        self.tasks.append(asyncio.current_task())
        await self.permits.acquire()
        return self.answer(items)

    def let(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.permits.release()


def submitting(batcher: Batcher[int, int], *items: int, **options: Any) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item, **options)) for item in items]


async def outcomes(tasks: Sequence[asyncio.Task[int]]) -> list[Any]:
    return await within(asyncio.gather(*tasks, return_exceptions=True))


async def behind_a_leader(
    gate: Gate, batcher: Batcher[int, int], *items: int, **options: Any
) -> list[asyncio.Task[int]]:
    """Item 0 is being applied, alone; the others wait."""
    tasks = submitting(batcher, 0)
    await settle()
    tasks += submitting(batcher, *items, **options)
    await settle()
    assert gate.batches == [[0]]
    return tasks


# --- who shares a batch -----------------------------------------------------------------------------------------------


async def test_a_lone_caller_runs_at_once_in_its_own_task() -> None:
    gate = Gate(is_open=True)
    batcher = Batcher(gate, env=env_of())
    before = asyncio.all_tasks()
    assert await batcher.submit(21) == 42
    assert gate.tasks == [asyncio.current_task()]
    assert asyncio.all_tasks() == before


async def test_what_arrives_during_a_batch_is_the_next_batch() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2, 3)
    gate.let()
    await settle()
    assert gate.batches == [[0], [1, 2, 3]]
    tasks += submitting(batcher, 4, 5)
    gate.let(2)
    assert await outcomes(tasks) == [0, 2, 4, 6, 8, 10]
    assert gate.batches == [[0], [1, 2, 3], [4, 5]]


async def test_a_batch_has_at_most_so_many_items() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of(), limits=BatchLimits(items=2))
    tasks = await behind_a_leader(gate, batcher, 1, 2, 3, 4, 5)
    gate.let(10)
    assert await outcomes(tasks) == [0, 2, 4, 6, 8, 10]
    assert gate.batches == [[0], [1, 2], [3, 4], [5]]


async def test_a_batch_has_at_most_so_much_weight_and_a_heavier_item_runs_alone() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of(), limits=BatchLimits(weight=10))
    tasks = await behind_a_leader(gate, batcher)
    for item, weight in ((1, 4.0), (2, 6.0), (3, 1.0), (4, 99.0), (5, 1.0), (6, 2.0)):
        tasks += submitting(batcher, item, weight=weight)
    await settle()
    gate.let(10)
    await outcomes(tasks)
    assert gate.batches == [[0], [1, 2], [3], [4], [5, 6]]


async def test_a_window_is_counted_from_the_oldest_item() -> None:
    clock, gate = ManualClock(), Gate(is_open=True)
    batcher = Batcher(gate, env=env_of(clock=clock), limits=BatchLimits(window=1.0))
    tasks = []
    for item in range(4):  # one more every 0.25 s: a window that each newcomer began anew would never end
        tasks += submitting(batcher, item)
        await settle()
        assert gate.batches == []
        clock.advance(0.25)
        await settle()
    assert gate.batches == [[0, 1, 2, 3]]
    assert await outcomes(tasks) == [0, 2, 4, 6]


@pytest.mark.parametrize("limits", [BatchLimits(window=1.0, items=2), BatchLimits(window=1.0, weight=2)], ids=str)
async def test_a_full_batch_does_not_wait_for_its_window(limits: BatchLimits) -> None:
    clock, gate = ManualClock(), Gate(is_open=True)
    batcher = Batcher(gate, env=env_of(clock=clock), limits=limits)
    tasks = submitting(batcher, 1, 2)
    await settle()
    clock.advance(0.25)
    await settle()
    assert gate.batches == [[1, 2]]
    await outcomes(tasks)


# --- what each caller is told -----------------------------------------------------------------------------------------


async def test_each_caller_gets_its_own_result_or_error() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2, 3)
    gate.answer = lambda items: [ValueError(str(item)) if item == 2 else item for item in items]
    gate.let(2)
    zero, one, two, three = await outcomes(tasks)
    assert (zero, one, three) == (0, 1, 3)
    assert isinstance(two, ValueError)
    assert str(two) == "2"


async def test_an_error_reaches_every_caller_of_its_batch_as_an_object_of_its_own_and_no_other_batch() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    original = Overloaded("no room", retry_after=3.0)

    def answer(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise original
        return list(items)

    gate.answer = answer
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    gate.let()
    await settle()
    tasks += submitting(batcher, 7)
    gate.let(5)
    zero, one, two, seven = await outcomes(tasks)
    assert (zero, seven) == (0, 7)
    for error in (one, two):
        assert type(error) is Overloaded
        assert (str(error), error.retry_after) == ("no room", 3.0)
        assert error.__cause__ is original
    assert one is not two


class Unusual(Exception):
    """Cannot be made from its `args`."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Unclonable(Exception):
    """Cannot be made by anybody else."""

    def __new__(cls, *args: object) -> "Unclonable":
        if args != ("the one",):
            raise TypeError("there is only one")
        return super().__new__(cls)

    @property
    def args(self) -> tuple[object, ...]:  # type: ignore[override]
        return ("no", "such", "thing")


async def test_an_error_that_cannot_be_copied_reaches_every_caller_as_the_cause() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    error = Unclonable("the one")

    def fail(items: Sequence[int]) -> list[int]:
        raise error

    tasks = await behind_a_leader(gate, batcher, 1, 2)
    gate.answer = fail
    gate.let(2)
    got = (await outcomes(tasks))[1:]
    assert [type(e) for e in got] == [Failed] * 2
    assert [e.__cause__ for e in got] == [error] * 2


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left", "/data"),
        ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        Unusual(code=7),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_any_shape_reaches_every_caller_whole(error: Exception) -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())

    def fail(items: Sequence[int]) -> list[int]:
        raise error

    tasks = await behind_a_leader(gate, batcher, 1, 2)
    gate.answer = fail
    gate.let(2)
    got = (await outcomes(tasks))[1:]
    assert [(type(e), str(e)) for e in got] == [(type(error), str(error))] * 2
    assert [vars(e) for e in got] == [vars(error)] * 2
    if isinstance(error, OSError):
        assert [e.errno for e in got] == [28, 28]
    assert got[0] is not got[1]


@pytest.mark.parametrize("answer", [[], [1], [1, 2, 3], None, 5], ids=repr)
async def test_the_wrong_number_of_results_is_an_unknown_outcome_for_all(answer: Any) -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    gate.answer = lambda items: answer if 1 in items else list(items)
    gate.let(3)
    zero, one, two = await outcomes(tasks)
    assert zero == 0
    assert (type(one), type(two)) == (OutcomeUnknown, OutcomeUnknown)
    gate.let()
    assert await within(batcher.submit(9)) == 9


async def test_a_cancel_inside_the_function_is_a_failure_and_cancels_nobody() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())

    def cancelled(items: Sequence[int]) -> list[int]:
        raise asyncio.CancelledError

    gate.answer = cancelled
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    gate.let(2)
    assert [type(got) for got in await outcomes(tasks)] == [Failed] * 3
    assert not any(task.cancelled() for task in tasks)


async def test_a_cancel_or_stop_handed_back_as_a_result_is_a_failure_and_ends_no_loop() -> None:
    # `asyncio.gather(…, return_exceptions=True)` inside the function hands such things back.
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2, 3)
    gate.answer = lambda items: [asyncio.CancelledError(), StopIteration(), 6] if 1 in items else list(items)
    gate.let(2)
    zero, one, two, three = await outcomes(tasks)
    assert (zero, three) == (0, 6)
    assert (type(one), type(two)) == (Failed, Failed)


async def test_the_batcher_goes_on_after_every_kind_of_failure() -> None:
    gate = Gate(is_open=True)
    batcher = Batcher(gate, env=env_of())
    for broken in (ZeroDivisionError("x"), asyncio.CancelledError(), TimeoutError("theirs")):

        def answer(items: Sequence[int], broken: BaseException = broken) -> list[int]:
            if 13 in items:
                raise broken
            return list(items)

        gate.answer = answer
        got = await outcomes(submitting(batcher, 1, 13, 2))
        assert got[0] == 1
        assert isinstance(got[1], Exception)
        assert await within(batcher.submit(3)) == 3
    assert batcher.pending == 0


# --- cancelled, expired, refused --------------------------------------------------------------------------------------


async def test_an_item_cancelled_while_it_waits_is_never_applied() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2, 3)
    tasks[2].cancel()
    await settle()
    assert batcher.pending == 2
    gate.let(2)
    await outcomes(tasks)
    assert gate.batches == [[0], [1, 3]]


async def test_a_cancel_after_the_batch_was_taken_harms_nobody_else() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    gate.let()
    await settle()
    tasks[1].cancel()
    await settle()
    gate.let()
    zero, one, two = await outcomes(tasks)
    assert (zero, two) == (0, 4)
    assert isinstance(one, asyncio.CancelledError)
    assert gate.batches == [[0], [1, 2]]


async def test_cancelling_the_one_who_leads_lets_the_others_go_on() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    tasks[0].cancel()
    gate.let(5)
    zero, one, two = await outcomes(tasks)
    assert isinstance(zero, asyncio.CancelledError)
    assert (one, two) == (2, 4)


async def test_what_is_posted_shares_a_batch_with_what_is_submitted_and_who_posted_is_told() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    told: list[object] = []
    tasks = await behind_a_leader(gate, batcher, 1)
    batcher.post(2, told.append)
    gate.answer = lambda items: [ValueError(item) if item == 2 else 2 * item for item in items]
    gate.let(2)
    assert await outcomes(tasks) == [0, 2]
    assert gate.batches == [[0], [1, 2]]
    assert [type(each) for each in told] == [ValueError]
    await batcher.close()
    with pytest.raises(Closed):
        batcher.post(3, told.append)


async def test_close_waits_for_what_was_posted() -> None:
    gate = Gate(is_open=True)
    batcher = Batcher(gate, env=env_of())
    told: list[object] = []
    for item in range(3):
        batcher.post(item, told.append)
    await within(batcher.close())
    assert told == [0, 2, 4]


async def test_whoever_is_told_hears_of_the_result_though_the_caller_has_gone() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    told: list[object] = []
    tasks = await behind_a_leader(gate, batcher, 1, 2, told=told.append)
    gate.let()
    await settle()
    tasks[1].cancel()
    await settle()
    gate.let()
    await outcomes(tasks)
    assert told == [2, 4]


async def test_whoever_is_told_hears_nothing_of_an_item_that_was_in_no_batch() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    told: list[object] = []
    tasks = await behind_a_leader(gate, batcher, 1, told=told.append)
    tasks[1].cancel()
    gate.let(2)
    await outcomes(tasks)
    assert (gate.batches, told) == ([[0]], [])


async def test_whoever_is_told_hears_of_a_batch_whose_leader_was_cut_short() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    told: list[object] = []
    (task,) = submitting(batcher, 1, told=told.append)
    await settle()
    task.cancel()
    await outcomes([task])
    assert [type(each) for each in told] == [OutcomeUnknown]


async def test_whoever_fails_at_being_told_harms_nobody_else() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    def fail(result: object) -> None:
        raise RuntimeError("told")

    tasks = await behind_a_leader(gate, batcher, 1)
    batcher.post(2, fail)
    tasks += submitting(batcher, 3)
    await settle()
    gate.let(2)
    assert await outcomes(tasks) == [0, 2, 6]
    assert [str(error) for error in reported] == ["told"]


async def test_an_item_that_expired_while_it_waited_is_never_applied() -> None:
    clock, gate = ManualClock(), Gate()
    batcher = Batcher(gate, env=env_of(clock=clock))
    tasks = await behind_a_leader(gate, batcher, 1, timeout=5.0)
    tasks += submitting(batcher, 2, timeout=50.0)
    await settle()
    clock.advance(5.0)
    gate.let(2)
    zero, one, two = await outcomes(tasks)
    assert (zero, two) == (0, 4)
    assert type(one) is DeadlineExceeded
    assert gate.batches == [[0], [2]]


async def test_time_that_runs_out_before_the_batch_means_nothing_happened_and_after_it_unknown() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    leader, waiting = await behind_a_leader(gate, batcher, 1, timeout=0.01)
    (got,) = await outcomes([waiting])
    assert type(got) is DeadlineExceeded
    assert batcher.pending == 0
    second = submitting(batcher, 2, timeout=0.05)
    gate.let()
    await outcomes([leader])
    (got,) = await outcomes(second)
    assert type(got) is OutcomeUnknown
    assert gate.batches == [[0], [2]]


async def test_time_that_runs_out_for_a_lone_caller_is_an_unknown_outcome() -> None:
    batcher = Batcher(Gate(), env=env_of())
    with pytest.raises(OutcomeUnknown):
        await within(batcher.submit(1, timeout=0.01))


async def test_no_time_at_all_is_refused_before_anything_happens() -> None:
    gate = Gate(is_open=True)
    with pytest.raises(DeadlineExceeded):
        await Batcher(gate, env=env_of()).submit(1, timeout=0)
    assert gate.batches == []


async def test_one_item_too_many_is_refused_and_a_cancel_makes_room() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of(), limits=BatchLimits(pending=2))
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    with pytest.raises(Overloaded) as refused:
        await batcher.submit(3)
    assert refused.value.retry_after is not None
    tasks[1].cancel()
    await settle()
    tasks += submitting(batcher, 4)
    gate.let(3)
    assert [got for got in await outcomes(tasks) if not isinstance(got, BaseException)] == [0, 4, 8]
    assert gate.batches == [[0], [2, 4]]


@pytest.mark.parametrize(
    "wrong",
    [
        *({option: value} for option in ("items", "pending") for value in (0, 1.0, 10**30, True, math.nan)),
        *({"weight": value} for value in (0, -1, math.inf, math.nan, True)),
        *({option: value} for option in ("window", "timeout") for value in (-1, math.inf, math.nan, "1", True)),
        {"timeout": 0},
    ],
    ids=str,
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    (option,) = wrong
    with pytest.raises(InvalidInput, match=f"`{option}` must be"):
        BatchLimits(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"weight": math.nan}, {"weight": "a"}, {"weight": -1}, {"timeout": math.nan}], ids=str
)
async def test_an_item_with_no_weight_or_time_that_can_be_harms_nobody_else(wrong: dict[str, Any]) -> None:
    """Found: a weight that is no number ended the loop, and everybody who waited waited until their time ran out."""
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1)
    with pytest.raises(InvalidInput, match=f"`{next(iter(wrong))}` must be"):
        await within(batcher.submit(2, **wrong))
    tasks += submitting(batcher, 3)
    gate.let(2)
    assert await outcomes(tasks) == [0, 2, 6]


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_close_waits_for_what_was_accepted_and_refuses_the_rest() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    closing = asyncio.create_task(batcher.close())
    await settle()
    with pytest.raises(Closed):
        await batcher.submit(3)
    assert not closing.done()
    gate.let()
    await settle()
    assert not closing.done()
    gate.let()
    await within(closing)
    assert all(task.done() for task in tasks)
    assert await outcomes(tasks) == [0, 2, 4]


async def test_close_waits_for_a_lone_caller_too() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of())
    (task,) = submitting(batcher, 1)
    await settle()
    closing = asyncio.create_task(batcher.close())
    await settle()
    assert not closing.done()
    gate.let()
    await within(closing)
    assert await task == 2


# --- a storm ----------------------------------------------------------------------------------------------------------

CANCELS = 100_000


async def test_a_hundred_thousand_cancels_lose_no_item_and_leak_no_slot() -> None:
    seed = 20_250_101
    rng = random.Random(seed)
    applied: Counter[int] = Counter()
    taken_before_cancel: set[int] = set()

    async def apply(items: Sequence[int]) -> list[int]:
        applied.update(items)
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        return [-item for item in items]

    batcher: Batcher[int, int] = Batcher(apply, env=env_of(), limits=BatchLimits(items=64, pending=2_000))
    cancelled: set[int] = set()
    answered = 0
    number = 0
    while len(cancelled) < CANCELS:
        alive = {i: asyncio.ensure_future(batcher.submit(i)) for i in range(number, number + 1_500)}
        number += 1_500
        victims = rng.sample(sorted(alive), 1_350)
        while victims:
            for _ in range(rng.randrange(1, 4)):
                await asyncio.sleep(0)
            for _ in range(min(len(victims), rng.randrange(1, 400))):
                victim = victims.pop()
                if not alive[victim].done():
                    if applied[victim]:
                        taken_before_cancel.add(victim)
                    alive[victim].cancel()
                    cancelled.add(victim)
        results = await within(asyncio.gather(*alive.values(), return_exceptions=True))
        for item, result in zip(alive, results, strict=True):
            if item in cancelled:
                assert isinstance(result, asyncio.CancelledError), (seed, item, result)
            else:
                assert result == -item, (seed, item, result)
                answered += 1
        assert batcher.pending == 0, seed
    assert max(applied.values()) == 1, seed
    # Applied are exactly those answered and those cancelled too late; never one cancelled while it waited.
    assert set(applied) == (set(range(number)) - cancelled) | taken_before_cancel, seed
    assert len(applied) == answered + len(taken_before_cancel)
    assert answered > 1_000
    assert await within(batcher.submit(1)) == -1


async def test_a_cancel_in_the_moment_of_the_answer_leaks_nothing() -> None:
    waiting: list[asyncio.Task[int]] = []

    async def apply(items: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        waiting.clear()
        return list(items)

    batcher: Batcher[int, int] = Batcher(apply, env=env_of())
    for round_ in range(100):
        tasks = submitting(batcher, *range(20))
        waiting += tasks
        results = await outcomes(tasks)
        for item, result in enumerate(results):
            assert result == item or isinstance(result, asyncio.CancelledError), round_
        assert batcher.pending == 0


async def test_what_would_wait_too_long_is_refused_and_told_for_how_long_and_later_let_in_again() -> None:
    clock = ManualClock()
    gate = Gate()
    limits = BatchLimits(items=2, shed_after=1.0)
    batcher = Batcher(gate, env=env_of(clock=clock), limits=limits)
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    clock.now += 0.4  # the batch that runs has taken so long: those behind a full one would wait twice that
    tasks += submitting(batcher, 3)
    await settle()
    clock.now += 0.4
    with pytest.raises(Overloaded) as refused:
        await batcher.submit(4)
    assert refused.value.retry_after == pytest.approx(1.6)
    gate.let(4)
    assert [got for got in await outcomes(tasks) if not isinstance(got, BaseException)] == [0, 2, 4, 6]
    assert await batcher.submit(4) == 8


async def test_a_second_batch_begins_beside_the_first_once_enough_wait_and_never_a_third() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of(), limits=BatchLimits(items=4, overlap=3))
    tasks = await behind_a_leader(gate, batcher, 1, 2)
    tasks += submitting(batcher, 3)
    await settle()
    assert gate.batches == [[0], [1, 2, 3]]
    tasks += submitting(batcher, *range(4, 12))
    await settle()
    assert len(gate.batches) == 2
    gate.let(1)  # either of the two makes room for one
    await settle()
    assert gate.batches[2:] == [[4, 5, 6, 7]]
    gate.let(20)
    assert await outcomes(tasks) == [2 * n for n in range(12)]
    await batcher.close()


async def test_few_that_are_left_when_two_batches_end_at_once_are_not_forgotten() -> None:
    gate = Gate()
    batcher = Batcher(gate, env=env_of(), limits=BatchLimits(items=2, overlap=2))
    tasks = await behind_a_leader(gate, batcher, 1)
    tasks += submitting(batcher, 2, 3, 4)
    await settle()
    gate.let()  # the one who leads
    await settle()
    assert gate.batches == [[0], [1, 2], [3, 4]]
    tasks += submitting(batcher, 5)
    assert await settled(tasks) == 1
    gate.let(2)
    await settle()
    assert gate.batches == [[0], [1, 2], [3, 4], [5]]
    gate.let()
    assert await outcomes(tasks) == [0, 2, 4, 6, 8, 10]
    await batcher.close()


async def settled(tasks: Sequence[asyncio.Task[int]]) -> int:
    await settle()
    return sum(task.done() for task in tasks)


async def test_those_who_wait_equally_long_each_run_out_of_time_in_their_turn() -> None:
    clock, gate = ManualClock(), Gate()
    batcher = Batcher(gate, env=env_of(clock=clock), limits=BatchLimits(items=1, timeout=10.0))
    tasks = await behind_a_leader(gate, batcher, 1)
    clock.advance(6.0)
    tasks += submitting(batcher, 2)
    await settle()
    clock.advance(4.5)
    assert await settled(tasks[1:]) == 1
    assert isinstance(tasks[1].exception(), DeadlineExceeded)
    tasks[2].cancel()
    tasks += submitting(batcher, 3)
    await settle()
    clock.advance(10.0)
    assert await settled(tasks[3:]) == 1
    assert isinstance(tasks[3].exception(), DeadlineExceeded)
    gate.let(9)
    await outcomes(tasks)
    assert gate.batches == [[0]]
    await batcher.close()

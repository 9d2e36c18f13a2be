"""Permits: never too many, none lost, nobody overtaken, nothing run too late; from several event loops, too."""

import asyncio
import gc
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from faultproof.errors import Closed, DeadlineExceeded, InvalidInput, Misuse, Overloaded
from faultproof.primitives.compartments import PermitsPolicy, TenantPolicy
from faultproof.primitives.deadline import Deadline
from faultproof.primitives.fair_queue import Tenant
from faultproof.primitives.permits import IDLE_TENANTS, Permits
from faultproof.signals import PERMITS_IN_FLIGHT, PERMITS_LIMIT, PERMITS_SHED, QUEUE_AGE, QUEUE_DEPTH, Signals
from tests.fakes import ManualClock, Recorder, env_of, settle, within

pytestmark = pytest.mark.anyio
CANCELS = 100_000


def permits_of(clock: Any = None, recorder: Recorder | None = None, **policy: Any) -> Permits:
    given: dict[str, Any] = {"clock": clock} if clock is not None else {}
    if recorder is not None:
        given["signals"] = Signals([recorder])
    return Permits(env_of(**given), PermitsPolicy(**policy), name="payments")


def held(permits: Permits, tenant: str = "") -> Tenant:
    permit = permits.try_enter(tenant)
    assert permit is not None
    return permit


async def waiting(permits: Permits, *tenants: str, **options: Any) -> list[asyncio.Task[Tenant]]:
    """Calls that wait, in this order."""
    tasks = []
    for tenant in tenants:
        tasks.append(asyncio.create_task(permits.enter(tenant, **options)))
        await asyncio.sleep(0)
        assert not tasks[-1].done()
    return tasks


def is_idle(permits: Permits) -> bool:
    standing = permits.standing()
    return (standing.in_flight, standing.waiting, standing.tenants) == (0, 0, {})


def usable(permits: Permits) -> int:
    """How many there really are."""
    taken = [permit for _ in range(permits.limit + 5) if (permit := permits.try_enter()) is not None]
    for permit in taken:
        permits.leave(permit)
    return len(taken)


# --- how many ---------------------------------------------------------------------------------------------------------


async def test_there_are_so_many_and_each_that_is_given_back_is_another_s() -> None:
    permits = permits_of(concurrency=3)
    mine = [held(permits) for _ in range(3)]
    assert permits.try_enter() is None
    permits.leave(mine.pop())
    assert permits.try_enter() is not None
    assert permits.standing()[:3] == (3, 3, 0)


async def test_who_waits_is_next_and_nobody_overtakes() -> None:
    permits = permits_of(concurrency=1)
    mine = held(permits)
    first, second = await waiting(permits, "", "")
    permits.leave(mine)
    assert permits.try_enter() is None, "it was given to the first, who does not know it yet"
    permits.leave(await within(first))
    permits.leave(await within(second))
    assert is_idle(permits)


async def test_a_tenant_has_its_part_and_the_others_what_is_left() -> None:
    policy: dict[str, Any] = {
        "tenants": {"big": TenantPolicy(concurrency=3, queue=1)},
        "others": TenantPolicy(concurrency=1),
    }
    permits = permits_of(concurrency=4, **policy)
    big = [held(permits, "big") for _ in range(3)]
    assert permits.try_enter("big") is None
    small = held(permits, "small")
    (next_big,) = await waiting(permits, "big")
    (next_small,) = await waiting(permits, "small")
    permits.leave(small)
    assert await within(next_small) is small, "although a call of the big one came first"
    permits.leave(big.pop())
    await within(next_big)
    assert permits.standing().tenants == {"big": (3, 0, 3), "small": (1, 0, 1)}


async def test_unless_told_otherwise_a_named_tenant_may_have_half_and_who_is_not_named_everything() -> None:
    permits = permits_of(concurrency=5, queue=3)
    for tenant, most in {"one": 3, "two": 2}.items():
        for _ in range(most):
            held(permits, tenant)
        assert permits.try_enter(tenant) is None
    permits = permits_of(concurrency=5)
    assert sum(permits.try_enter() is not None for _ in range(6)) == 5


async def test_a_permit_is_given_back_once() -> None:
    permits = permits_of()
    mine = held(permits)
    permits.leave(mine)
    with pytest.raises(Misuse, match="given back twice"):
        permits.leave(mine)
    assert is_idle(permits)


async def test_tenants_that_have_nothing_are_forgotten() -> None:
    permits = permits_of(concurrency=2, queue=2)
    busy = held(permits, "busy")
    for number in range(3 * IDLE_TENANTS):
        permits.leave(held(permits, f"t{number}"))
    assert len(permits._tenants) <= IDLE_TENANTS + 5
    assert permits.try_enter("busy") is None, "it has its half"
    permits.leave(busy)
    assert is_idle(permits)


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_a_waiter_that_is_cancelled_leaves_no_place_behind() -> None:
    permits = permits_of(concurrency=1)
    mine = held(permits)
    first, second = await waiting(permits, "", "")
    first.cancel()
    await settle()
    assert permits.standing().waiting == 1
    permits.leave(mine)
    permits.leave(await within(second))
    assert is_idle(permits)


async def test_a_waiter_that_is_cancelled_in_the_moment_it_is_given_the_permit_passes_it_on() -> None:
    permits = permits_of(concurrency=1)
    mine = held(permits)
    first, second = await waiting(permits, "", "")
    permits.leave(mine)
    first.cancel()  # it has the permit, and has not run since
    permits.leave(await within(second))
    assert first.cancelled()
    assert is_idle(permits)


async def test_a_waiter_that_was_cancelled_a_moment_before_is_not_given_it() -> None:
    permits = permits_of(concurrency=1)
    mine = held(permits)
    first, second = await waiting(permits, "", "")
    first.cancel()  # it does not know it yet
    permits.leave(mine)
    assert permits.standing()[1:3] == (1, 0), "the second has it"
    permits.leave(await within(second))
    await settle()
    assert is_idle(permits)


async def test_a_waiter_that_is_thrown_away_leaves_nothing_behind() -> None:
    permits = permits_of(concurrency=1)
    mine = held(permits)
    for given_before in (False, True):
        entering = permits.enter()
        future = entering.send(None)
        assert asyncio.isfuture(future)
        if given_before:
            permits.leave(mine)
        entering.close()
        assert permits.standing()[1:3] == (0 if given_before else 1, 0)


async def test_a_permit_may_come_back_in_the_middle_of_anything() -> None:
    """As when the garbage collector runs just then. Here it is the reading of a clock."""
    clock = ManualClock()
    permits = permits_of(clock, concurrency=2)
    mine, other = held(permits), held(permits)
    tasks = await waiting(permits, "", "", "")
    once = [other]
    real = clock.monotonic

    def monotonic() -> float:
        if once:
            permits.leave(once.pop())
        return real()

    clock.monotonic = monotonic  # type: ignore[method-assign]
    permits.leave(mine)
    assert permits.standing()[:3] == (2, 2, 1)
    for task in tasks:
        permits.leave(await within(task))
    assert is_idle(permits)


class ByHand:
    """Calls that are driven a step at a time, so that each can be cancelled between any two steps of others."""

    def __init__(self, permits: Permits, rng: random.Random) -> None:
        self.permits = permits
        self.rng = rng
        self.waiting: list[tuple[Coroutine[Any, Any, Tenant], asyncio.Future[None]]] = []
        self.inside: list[Tenant] = []
        self.cancelled = self.cancelled_with_a_permit = self.entered = 0

    def enter(self) -> None:
        call = self.permits.enter(self.rng.choice("abc"), priority=self.rng.randrange(2))
        try:
            self.waiting.append((call, call.send(None)))
        except StopIteration as entered:
            self.inside.append(entered.value)

    def leave(self) -> None:
        if self.inside:
            self.permits.leave(self.inside.pop(self.rng.randrange(len(self.inside))))

    def wake(self) -> None:
        """Whoever was given a permit, one of those that do not know it yet."""
        woken = [pair for pair in self.waiting if pair[1].done()]
        if woken:
            self.waiting.remove(pair := self.rng.choice(woken))
            with pytest.raises(StopIteration) as entered:
                pair[0].send(None)
            self.inside.append(entered.value.value)
            self.entered += 1

    def cancel(self) -> None:
        if self.waiting:
            call, future = self.waiting.pop(self.rng.randrange(len(self.waiting)))
            self.cancelled += 1
            self.cancelled_with_a_permit += future.done()
            try:
                call.throw(asyncio.CancelledError())
            except asyncio.CancelledError:
                return
            raise AssertionError("a cancel was swallowed")


async def test_a_hundred_thousand_cancels_lose_no_permit() -> None:
    seed = 20_250_601
    permits = permits_of(concurrency=4, queue=24, wait=60.0, others=TenantPolicy(concurrency=3, queue=24))
    calls = ByHand(permits, random.Random(seed))
    steps = [calls.enter] * 4 + [calls.cancel] * 4 + [calls.leave, calls.wake]
    while calls.cancelled < CANCELS:
        for step in calls.rng.choices(steps, k=50):
            if step != calls.enter or len(calls.waiting) < 24:
                step()
        given = sum(future.done() for _, future in calls.waiting)
        assert len(calls.inside) + given == permits.in_flight <= 4, seed
        await asyncio.sleep(0)  # timers that were unset are cleared away
    while calls.waiting or calls.inside:
        calls.leave()
        calls.wake()
    assert is_idle(permits), (seed, permits.standing())
    assert usable(permits) == 4
    assert calls.cancelled_with_a_permit > 3_000
    assert calls.entered > 3_000


async def test_tasks_that_are_cancelled_at_any_moment_lose_no_permit() -> None:
    seed = 20_250_602
    rng = random.Random(seed)
    limit, inside, most, cancelled, entered = 8, 0, 0, 0, 0
    permits = permits_of(concurrency=limit, queue=2_000, wait=60.0, others=TenantPolicy(queue=2_000, concurrency=6))

    async def call(tenant: str, priority: int) -> None:
        nonlocal inside, most, entered
        permit = permits.try_enter(tenant) or await permits.enter(tenant, priority=priority)
        try:
            inside += 1
            entered += 1
            most = max(most, inside)
            await asyncio.sleep(0)
        finally:
            inside -= 1
            permits.leave(permit)

    while cancelled < CANCELS / 20:
        alive = [asyncio.create_task(call(rng.choice("abc"), rng.randrange(2))) for _ in range(500)]
        rng.shuffle(alive)
        victims = alive[:450]
        while victims:
            for _ in range(rng.randrange(1, 4)):
                await asyncio.sleep(0)
            for _ in range(min(len(victims), rng.randrange(1, 200))):
                cancelled += victims.pop().cancel()
        await within(asyncio.gather(*alive, return_exceptions=True))
        assert is_idle(permits), (seed, permits.standing())
        assert usable(permits) == limit
    assert most == limit, seed
    assert entered > 500


# --- too late, too many -----------------------------------------------------------------------------------------------


async def test_who_waited_too_long_is_refused() -> None:
    clock, recorder = ManualClock(), Recorder()
    permits = permits_of(clock, recorder, concurrency=1, wait=0.5)
    mine = held(permits)
    (waiter,) = await waiting(permits, "")
    clock.advance(0.5)
    with pytest.raises(Overloaded, match=r"no permit of 'payments': none came free in 0\.5 s"):
        await within(waiter)
    permits.leave(mine)
    assert is_idle(permits)
    assert permits.standing()[4:6] == (1, 0)
    assert recorder.values(PERMITS_SHED, bulkhead="payments", tenant="") == [1]


async def test_who_waited_past_its_deadline_is_told_that_nothing_was_done() -> None:
    clock = ManualClock()
    permits = permits_of(clock, concurrency=1, wait=5.0)
    mine = held(permits)
    (waiter,) = await waiting(permits, "", deadline=Deadline(clock.now + 0.25, clock))
    clock.advance(0.25)
    with pytest.raises(DeadlineExceeded, match="nothing was done"):
        await within(waiter)
    permits.leave(mine)
    assert is_idle(permits)
    assert permits.standing()[4:6] == (0, 1)


async def test_what_has_expired_when_its_turn_comes_never_runs() -> None:
    """The event loop was busy: nobody has rung."""
    clock = ManualClock()
    permits = permits_of(clock, concurrency=1, wait=5.0)
    mine = held(permits)
    (late,) = await waiting(permits, "", deadline=Deadline(clock.now + 0.25, clock))
    (tired,) = await waiting(permits, "")
    clock.now += 4.9
    (fresh,) = await waiting(permits, "")
    clock.now += 0.2
    permits.leave(mine)
    permits.leave(await within(fresh))
    for task, error in ((late, DeadlineExceeded), (tired, Overloaded)):
        with pytest.raises(error):
            await within(task)
    assert is_idle(permits)


async def test_what_expires_between_its_turn_and_its_waking_never_runs() -> None:
    clock = ManualClock()
    permits = permits_of(clock, concurrency=1, wait=5.0)
    mine = held(permits)
    (late,) = await waiting(permits, "", deadline=Deadline(clock.now + 0.25, clock))
    permits.leave(mine)
    clock.now += 0.3  # the event loop is busy
    with pytest.raises(DeadlineExceeded):
        await within(late)
    assert is_idle(permits)


async def test_a_deadline_that_is_over_is_refused_although_a_permit_is_free() -> None:
    clock = ManualClock()
    permits = permits_of(clock)
    with pytest.raises(DeadlineExceeded):
        await permits.enter(deadline=Deadline(clock.now, clock))
    assert is_idle(permits)


async def test_who_finds_no_room_to_wait_is_refused_at_once_and_told_how_long_others_have_waited() -> None:
    clock = ManualClock()
    permits = permits_of(clock, concurrency=1, queue=2, wait=5.0)
    mine = held(permits)
    tasks = await waiting(permits, "", "")
    clock.now += 0.75
    with pytest.raises(Overloaded, match="2 calls wait already") as refused:
        await permits.enter()
    assert refused.value.retry_after == 0.75
    permits.leave(mine)
    for task in tasks:
        permits.leave(await within(task))


async def test_without_a_queue_nobody_waits() -> None:
    permits = permits_of(concurrency=1, queue=0)
    held(permits)
    with pytest.raises(Overloaded) as refused:
        await permits.enter()
    assert refused.value.retry_after == 0.1


async def test_a_higher_priority_pushes_out_a_lower_one_when_there_is_no_room() -> None:
    permits = permits_of(concurrency=1, queue=2)
    mine = held(permits)
    low, normal = (*await waiting(permits, "", priority=-1), *await waiting(permits, ""))
    (high,) = await waiting(permits, "", priority=1)
    with pytest.raises(Overloaded):
        await within(low)
    with pytest.raises(Overloaded):
        await permits.enter(priority=-1)
    permits.leave(mine)
    permits.leave(await within(high))
    permits.leave(await within(normal))
    assert is_idle(permits)


async def test_a_tenant_with_few_waiting_pushes_out_one_with_many() -> None:
    permits = permits_of(concurrency=1, queue=4, others=TenantPolicy(queue=4))
    mine = held(permits)
    many = await waiting(permits, *["greedy"] * 4)
    (one,) = await waiting(permits, "modest")
    with pytest.raises(Overloaded):
        await within(many[-1])
    with pytest.raises(Overloaded):
        await permits.enter("greedy")
    permits.leave(mine)
    order = []
    for task in (many[0], one, many[1], many[2]):
        permit = await within(task)
        order.append(permit.name)
        permits.leave(permit)
    assert order == ["greedy", "modest", "greedy", "greedy"]


async def test_a_tenant_with_a_queue_of_its_own_fills_no_more_than_that() -> None:
    permits = permits_of(concurrency=1, queue=4)
    held(permits)
    await_me = await waiting(permits, "one", "one")
    with pytest.raises(Overloaded, match="2 calls wait already"):
        await permits.enter("one")
    await_me += await waiting(permits, "two")
    permits.close()
    assert {type(each) for each in await asyncio.gather(*await_me, return_exceptions=True)} == {Closed}


# --- more and fewer ---------------------------------------------------------------------------------------------------


async def test_more_permits_go_to_those_who_wait_and_fewer_take_none_away() -> None:
    recorder = Recorder()
    permits = permits_of(None, recorder, concurrency=4)
    permits.resize(1)
    mine = held(permits)
    tasks = await waiting(permits, "", "", "")
    permits.resize(3)
    assert [task.done() for task in tasks] == [False] * 3
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    permits.resize(1)
    for permit in (mine, await tasks[0]):
        permits.leave(permit)
        await settle()
        assert not tasks[2].done(), "one is still held, and there is one"
    permits.leave(await tasks[1])
    permits.leave(await within(tasks[2]))
    permits.resize(99)
    assert permits.limit == 4
    assert recorder.values(PERMITS_LIMIT) == [1, 3, 1, 4]


async def test_a_tenant_s_part_shrinks_with_the_whole() -> None:
    permits = permits_of(concurrency=8, tenants={"a": TenantPolicy(concurrency=4), "b": TenantPolicy(concurrency=1)})
    mine = [held(permits, tenant) for tenant in ("a", "b", "c", "")]
    permits.resize(4)
    assert {name: each.most for name, each in permits.standing().tenants.items()} == {"a": 2, "b": 1, "c": 2, "": 4}
    for permit in mine:
        permits.leave(permit)


async def test_who_waits_when_it_is_closed_is_told_so_and_nobody_enters_after() -> None:
    permits = permits_of(concurrency=1)
    mine = held(permits)
    (waiter,) = await waiting(permits, "")
    permits.close()
    with pytest.raises(Closed):
        await within(waiter)
    permits.leave(mine)
    permits.resize(1)
    with pytest.raises(Closed):
        await permits.enter()
    assert is_idle(permits)


async def test_waiting_is_signalled() -> None:
    clock, recorder = ManualClock(), Recorder()
    permits = permits_of(clock, recorder, concurrency=1, wait=5.0, tenants={"known": TenantPolicy(queue=0)}, queue=1)
    mine = held(permits)
    (waiter,) = await waiting(permits, "")
    clock.now += 0.5
    standing = permits.standing()
    assert (standing.waiting, standing.oldest_s) == (1, 0.5)
    for tenant in ("known", "stranger"):
        with pytest.raises(Overloaded):
            await permits.enter(tenant)
    permits.leave(mine)
    permits.leave(await within(waiter))
    assert recorder.values(QUEUE_DEPTH, queue="payments") == [1]
    assert recorder.values(PERMITS_IN_FLIGHT, bulkhead="payments") == [1]
    assert recorder.values(QUEUE_AGE, queue="payments") == [0.5]
    assert recorder.values(PERMITS_SHED, tenant="known") == recorder.values(PERMITS_SHED, tenant="other") == [1]


# --- several event loops ----------------------------------------------------------------------------------------------


def in_threads(*works: Callable[[], Coroutine[Any, Any, None]]) -> list[BaseException]:
    """Each in an event loop and a thread of its own, at the same time."""
    failures: list[BaseException] = []

    def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            asyncio.run(within(work()))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return failures


def test_one_bound_holds_for_all_event_loops_and_threads() -> None:
    permits = permits_of(concurrency=5, queue=1_000, wait=20.0, others=TenantPolicy(concurrency=5, queue=1_000))
    lock, inside, most = threading.Lock(), 0, 0

    async def call(rng: random.Random) -> None:
        nonlocal inside, most
        permit = await permits.enter(rng.choice("ab"), priority=rng.randrange(2))
        try:
            with lock:
                inside += 1
                most = max(most, inside)
            await asyncio.sleep(0)
        finally:
            with lock:
                inside -= 1
            permits.leave(permit)

    def calls(seed: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def work() -> None:
            rng = random.Random(seed)
            for _ in range(5):
                tasks = [asyncio.create_task(call(rng)) for _ in range(100)]
                await asyncio.sleep(0)
                for task in rng.sample(tasks, 30):
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        return work

    assert in_threads(calls(1), calls(2), calls(3)) == []
    assert most == 5
    assert is_idle(permits)
    assert usable(permits) == 5


def test_a_permit_is_not_given_to_an_event_loop_that_is_closed() -> None:
    permits = permits_of(concurrency=1)
    mine = held(permits)
    loop = asyncio.new_event_loop()
    entering = loop.create_task(permits.enter())
    loop.run_until_complete(asyncio.sleep(0))
    assert permits.standing().waiting == 1
    loop.close()
    permits.leave(mine)
    assert is_idle(permits)
    assert usable(permits) == 1
    entering._log_destroy_pending = False  # type: ignore[attr-defined]  # nobody can end it any more
    del entering
    gc.collect()
    assert is_idle(permits)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"concurrency": 0}, "`concurrency` must be a whole number from 1"),
        ({"queue": -1}, "`queue` must be a whole number from 0"),
        ({"wait": float("inf")}, "`wait` must be a number of seconds"),
        ({"patience": 0.5}, "`patience` must be a whole number"),
        (
            {"tenants": {"a": TenantPolicy(concurrency=65)}},
            "`concurrency` of tenant 'a' is 65, and the whole compartment has 64",
        ),
        ({"others": TenantPolicy(queue=200)}, "`queue` of tenant 'others' is 200, and the whole compartment has 128"),
        ({"tenants": {"a": {"weight": 2}}}, "`tenants` has a `TenantPolicy` for each name"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        PermitsPolicy(**given)


@pytest.mark.parametrize("given", [{"weight": 0}, {"weight": float("nan")}, {"concurrency": 0}, {"queue": -1}])
def test_what_no_tenant_can_have_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        TenantPolicy(**given)


async def test_a_call_with_a_priority_or_a_tenant_that_is_none_is_refused_before_it_waits() -> None:
    permits = permits_of()
    with pytest.raises(InvalidInput, match="`priority` must be a whole number from -9 to 9"):
        await permits.enter(priority=10)
    with pytest.raises(InvalidInput, match="a tenant is named with a string"):
        permits.try_enter(7)  # type: ignore[arg-type]
    assert is_idle(permits)


def test_a_policy_does_not_change_with_what_it_was_made_of() -> None:
    tenants = {"a": TenantPolicy()}
    policy = PermitsPolicy(tenants=tenants)
    tenants["b"] = TenantPolicy()
    assert list(policy.tenants) == ["a"]

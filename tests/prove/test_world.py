"""The simulated world keeps what it says about crashes, frozen processes, time and escapes."""

import asyncio
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faultproof.errors import OutcomeUnknown, TryAgain
from faultproof.ports.script import Script, Wake, later, sql
from faultproof.prove.proof import Main
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.faults import CRASH, FREEZE, Fault
from faultproof.prove.simulated.lanes import MemoryStore
from faultproof.prove.simulated.loop import Escape, StepLimit
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.tape import Priorities, Tape
from faultproof.prove.simulated.world import EPOCH_US, Granularity, Limits, World


@sql("INSERT INTO seen (what) VALUES (:what)")
def _see(what: str) -> None: ...


@sql("SELECT count(*) FROM seen")
def _count() -> int: ...


def _two(first: str, second: str) -> Script[None]:
    yield from _see(first)
    yield from _see(second)


def _see_and_wake() -> Script[None]:
    yield from _see("news")
    yield Wake("topic")


_worlds: list[World] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _worlds:
        _worlds.pop().close()


def _world(tape: Tape | None = None, *, faults_max: int = 0, granularity: Granularity = "commit") -> World:
    store = MemoryStore()
    store.raw.execute("CREATE TABLE seen (n INTEGER PRIMARY KEY, what TEXT)")
    world = World(store, tape or Tape(), faults_max=faults_max, granularity=granularity, limits=Limits(steps=5_000))
    store.now = world.wall_us
    _worlds.append(world)
    return world


def _run(world: World) -> None:
    """Until ten virtual seconds have passed and nothing is under way."""
    over = []

    async def stopwatch(process: Process) -> None:
        await process.env.clock.sleep(10)
        over.append(True)

    world.spawn("stopwatch", stopwatch)
    world.run(lambda: bool(over))


def _seen(world: World) -> list[str]:
    return [what for (what,) in world.store.fetch("SELECT what FROM seen ORDER BY n")]


def _struck(main: Main, fault: int, *, at: Callable[[str, str], bool], granularity: Granularity = "commit") -> World:
    """A run in which `fault` strikes at the first point that `at(when, label)` accepts."""
    scout = _world(faults_max=1, granularity=granularity)
    scout.spawn("p", main)
    _run(scout)
    position = next(point.position for point in scout.points if at(point.when, point.label))
    world = _world(Tape({position: fault}), faults_max=1, granularity=granularity)
    world.spawn("p", main)
    _run(world)
    return world


def test_virtual_time_passes_without_waiting():
    ended = []

    async def main(process: Process) -> None:
        await process.env.clock.sleep(86_400 / 200)
        ended.append(process.env.clock.monotonic())

    world = _world()
    began = time.monotonic()
    world.spawn("p", main)
    world.run(lambda: bool(ended))
    world.close()
    assert ended == [432.0]
    assert time.monotonic() - began < 5


def test_callbacks_of_a_process_run_in_the_order_of_their_calls():
    order: list[int] = []

    async def main(process: Process) -> None:
        loop = asyncio.get_running_loop()
        for number in range(5):
            loop.call_soon(order.append, number)
        await process.env.clock.sleep(0)
        order.append(99)

    world = _world()
    world.spawn("p", main)
    world.run(lambda: 99 in order)
    world.close()
    assert order == [0, 1, 2, 3, 4, 99]


def test_a_crash_before_a_commit_leaves_nothing_and_after_it_everything():
    async def main(process: Process) -> None:
        if process.incarnation == 0:
            await process.database().transact(_two("a", "b"))
            process.note("answered")

    before = _struck(main, CRASH, at=lambda when, label: when == "before")
    assert (_seen(before), before.notes) == ([], [])
    after = _struck(main, CRASH, at=lambda when, label: when == "after")
    assert (_seen(after), after.notes) == (["a", "b"], [])
    assert [process.strand.name for process in after.processes] == ["p.0", "stopwatch.0", "p.1"]


def test_a_crash_inside_an_open_transaction_rolls_it_back_and_frees_the_lock():
    async def main(process: Process) -> None:
        database = process.database()
        if process.incarnation == 0:
            async with database.transaction() as tx:
                await tx.run(_see("lost"))
                await tx.run(_see("lost too"))
        await database.transact(_see(f"by {process.strand.name}"))

    at_its_end = _struck(main, CRASH, at=lambda when, label: when == "before" and label == "Commit")
    assert _seen(at_its_end) == ["by p.1"]
    hits = iter(range(100))
    amid = _struck(main, CRASH, at=lambda when, label: when == "after" and next(hits) == 3, granularity="statement")
    assert _seen(amid) == ["by p.1"]


def _crash_points(world: World) -> list[tuple[str, str, object]]:
    return [(point.when, point.label, point.crash) for point in world.points if point.process == "p.0"]


def test_dead_in_a_transaction_is_dead_before_it_unless_somebody_was_refused_meanwhile():
    async def main(process: Process) -> None:
        async with process.database().transaction() as tx:
            await tx.execute("INSERT INTO seen (what) VALUES ('p')")
            await process.env.clock.sleep(0.01)

    async def other(process: Process) -> None:
        await process.env.clock.sleep(0.005)
        await process.database().transact(_see("other"))

    async def nothing(process: Process) -> None: ...

    merged = []
    for beside in (nothing, other):
        world = _world(faults_max=1)
        world.spawn("p", main)
        world.spawn("other", beside)
        _run(world)
        (_, _, before), (_, _, begun), (_, _, slept), (_, _, committed) = _crash_points(world)
        assert before == begun
        assert len({begun, slept, committed}) == 3
        merged.append(slept)
    assert merged[0] != merged[1]


def test_a_commit_that_changes_nothing_is_no_change():
    store = MemoryStore()
    world = World(store, Tape(), faults_max=1)
    _worlds.append(world)
    changes = list[int]()

    async def main(process: Process) -> None:
        database = process.database()
        for text in (
            "SELECT 1",
            "CREATE TABLE seen (what TEXT)",
            "DELETE FROM seen",
            "INSERT INTO seen VALUES ('a')",
            "INSERT INTO seen SELECT 'b' WHERE 0",
            "UPDATE seen SET what = 'a'",
        ):
            async with database.transaction() as tx:
                await tx.execute(text)
            changes.append(store.changes)

    world.spawn("p", main)
    _run(world)
    assert store.commits == 6
    assert changes == [0, 1, 1, 2, 2, 3]


def test_a_dead_process_runs_no_finally_that_reaches_a_port():
    reached: list[tuple[World, str]] = []

    async def main(process: Process) -> None:
        if process.incarnation:
            return
        database = process.database()
        try:
            await database.transact(_see("first"))
        finally:
            reached.append((process.world, "finally"))
            await database.transact(_see("from beyond"))
            reached.append((process.world, "written"))

    world = _struck(main, CRASH, at=lambda when, label: when == "after")
    assert [what for where, what in reached if where is world] == []
    world.close()  # only now, where nothing can be reached any more, is it let go
    assert (world, "written") not in reached
    assert _seen(world) == ["first"]


def test_a_frozen_process_wakes_after_its_successor_and_goes_on():
    async def main(process: Process) -> None:
        await process.database().transact(_see(process.strand.name))
        process.note("done", process.strand.name, process.env.clock.monotonic())

    world = _struck(main, FREEZE, at=lambda when, label: when == "after")
    assert [(who, when > 1) for _, who, when in world.notes] == [("p.1", False), ("p.0", True)]


@pytest.mark.parametrize("ticks", range(5))
def test_a_caller_that_is_cancelled_leaves_no_transaction_open_behind_it(ticks: int):
    """It did, statement by statement: the lock was taken for a caller who had gone, and nobody ever got it again."""

    async def main(process: Process) -> None:
        database = process.database()
        task = asyncio.get_running_loop().create_task(database.transact(_two("first", "second")))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await database.transact(_see("third"))

    world = _world(granularity="statement")
    world.spawn("p", main)
    _run(world)
    assert _seen(world)[-1] == "third"
    assert _seen(world)[:-1] in ([], ["first", "second"])


def test_statements_of_two_processes_interleave_in_statement_granularity_only():
    def interleaved(granularity: Granularity) -> int:
        """In how many of forty runs somebody else's operation came between two of one transaction."""
        count = 0
        for seed in range(40):

            async def writer(process: Process) -> None:
                await process.database().transact(_two(f"{process.name}1", f"{process.name}2"))

            world = _world(Tape(rng=random.Random(seed)), granularity=granularity)
            for name in ("v", "w"):
                world.spawn(name, writer)
            _run(world)
            assert _seen(world) in (["v1", "v2", "w1", "w2"], ["w1", "w2", "v1", "v2"])
            order = "".join(who[0] for _, who, what, _ in world.trace if who[0] in "vw")
            count += "vwv" in order or "wvw" in order
        return count

    assert interleaved("statement") > 10
    assert interleaved("commit") == 0


def test_a_read_is_told_the_answers_that_it_does_not_wait_for():
    told: list[int] = []

    def look() -> Script[int]:
        yield from later(_count(), told.append)
        return (yield from _count())

    async def main(process: Process) -> None:
        await process.database().transact(_see("it"))
        told.append(await process.database().read(look()))

    world = _world()
    world.spawn("reader", main)
    world.run(lambda: len(told) == 2)
    assert told == [1, 1]


def test_the_write_lock_is_waited_for_with_the_production_policy():
    async def holder(process: Process) -> None:
        async with process.database().transaction() as tx:
            await tx.run(_see("held"))
            await process.env.clock.sleep(1.0)

    async def other(process: Process) -> None:
        await process.env.clock.sleep(0.1)
        await process.database().transact(_see("other"))
        process.note("had the lock at", round(process.env.clock.monotonic(), 1))

    world = _world()
    world.spawn("holder", holder)
    world.spawn("other", other)
    _run(world)
    assert _seen(world) == ["held", "other"]
    assert world.notes == [("had the lock at", 1.0)]


def test_a_run_that_does_not_end_is_given_up():
    async def spin(process: Process) -> None:
        while True:
            await process.env.clock.sleep(0)

    world = _world()
    world.spawn("p", spin)
    with pytest.raises(StepLimit, match=r"p\.0"):
        world.run(lambda: False)
    world.close()


def test_a_deadlock_is_named_and_not_waited_for():
    async def stuck(process: Process) -> None:
        await asyncio.get_running_loop().create_future()

    world = _world()
    world.spawn("p", stuck)
    with pytest.raises(StepLimit, match="cannot happen"):
        world.run(lambda: False)
    world.close()


def _connect() -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", 9))


async def _to_thread() -> None:
    await asyncio.to_thread(print)


async def _executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, print)


async def _stream() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


ESCAPES: dict[str, Callable[[], Any]] = {
    "time.time": lambda: time.time(),
    "time.monotonic": lambda: time.monotonic(),
    "time.sleep": lambda: time.sleep(0),
    "random.random": lambda: random.random(),
    "SystemRandom.random": lambda: random.SystemRandom().random(),
    "uuid.uuid4": lambda: uuid.uuid4(),
    "Thread.start": lambda: threading.Thread(target=print).start(),
    "socket.connect": _connect,
    "Popen.__init__": lambda: subprocess.Popen(["true"]),
    "to_thread": _to_thread,
    "run_in_executor": _executor,
    "create_connection": _stream,
}


@pytest.mark.parametrize("name", ESCAPES)
def test_reaching_for_the_real_world_raises_and_names_the_escape(name: str):
    async def main(process: Process) -> None:
        try:
            result = ESCAPES[name]()
            if asyncio.iscoroutine(result):
                await result
        except Exception:  # an escape is none, so this cannot hide it
            process.note("hidden")

    world = _world()
    world.spawn("p", main)
    with no_escapes(), pytest.raises(Escape, match=name.rpartition(".")[2]):
        world.run(lambda: True)
    world.close()
    assert world.notes == []


def test_what_was_forbidden_works_again_afterwards():
    with no_escapes():
        pass
    assert time.time() > 0
    assert 0 <= random.random() < 1
    assert uuid.uuid4()
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join(5)
    assert sys.modules


def _first(fault: Fault, main: Main, label: str = "writer", when: str = "before") -> World:
    """A run in which it strikes at the first place with that label."""
    return _struck(main, fault, at=lambda at, name: (at, name) == (when, label))


async def _sees(process: Process) -> None:
    """One transaction, and what came of it."""
    try:
        await process.database().transact(_see(f"by {process.env.process}"))
    except (OutcomeUnknown, TryAgain) as error:
        process.note(type(error).__name__)
    else:
        process.note("done", process.env.clock.monotonic())


@pytest.mark.parametrize(
    ("fault", "noted", "there"),
    [
        (Fault.LOST, "OutcomeUnknown", []),
        (Fault.UNHEARD, "OutcomeUnknown", ["by p.0"]),
        (Fault.RESET, "TryAgain", []),
    ],
)
def test_an_answer_that_is_lost_says_nothing_of_what_happened(fault: Fault, noted: str, there: list[str]):
    world = _first(fault, _sees)
    assert (world.notes, _seen(world)) == ([(noted,)], there)
    assert world.faults == [f"{fault.name.lower()} before writer in p.0"]


def test_a_lost_commit_inside_a_transaction_of_the_users_leaves_nothing_open():
    async def main(process: Process) -> None:
        database = process.database()
        try:
            async with database.transaction() as tx:
                await tx.run(_see("lost"))
        except OutcomeUnknown:
            process.note("unknown")
        await database.transact(_see("next"))

    world = _first(Fault.LOST, main, "Commit")
    assert (world.notes, _seen(world)) == ([("unknown",)], ["next"])


def test_a_slow_database_answers_later_and_in_order():
    async def main(process: Process) -> None:
        database = process.database()
        await asyncio.gather(*(database.transact(_see(str(n))) for n in range(3)))
        process.note("done", process.env.clock.monotonic())

    world = _first(Fault.SLOW, main)
    assert (world.notes, _seen(world)) == ([("done", Limits.slow_s)], ["0", "1", "2"])


def test_a_process_that_is_cut_off_goes_on_by_its_own_clock_and_is_replaced():
    async def main(process: Process) -> None:
        if process.incarnation == 0:
            asyncio.get_running_loop().call_later(0.5, process.note, "is alive", process.env.process)
        await _sees(process)

    world = _first(Fault.CUT, main)
    assert world.notes == [
        ("done", Limits.restart_s),
        ("is alive", "p.0"),
        ("done", Limits.freeze_s),
    ]
    assert _seen(world) == ["by p.1", "by p.0"]


@sql("SELECT {now}")
def _now() -> int: ...


@pytest.mark.parametrize(
    ("fault", "database_s", "own_s"),
    [
        (Fault.AHEAD, Limits.ahead_s, Limits.ahead_s),
        (Fault.BACK, -Limits.back_s, -Limits.back_s),
        (Fault.SKEWED, 0, Limits.skew_s),
    ],
)
def test_clocks_jump_and_differ_and_the_monotonic_one_does_not(fault: Fault, database_s: float, own_s: float):
    async def main(process: Process) -> None:
        database, clock = process.database(), process.env.clock
        await database.read(_now())
        process.note("at", await database.read(_now()), clock.wall_us(), clock.monotonic())

    ((_, at, own, monotonic),) = _first(fault, main, "reader").notes
    assert (at - EPOCH_US, own - EPOCH_US, monotonic) == (database_s * 1_000_000, own_s * 1_000_000, 0)


@pytest.mark.parametrize(
    ("fault", "noted", "arrived"),
    [
        (Fault.LOST, "no answer", 0),
        (Fault.UNHEARD, "no answer", 1),
        (Fault.LATE, "no answer", 1),
        (Fault.TWICE, "answer", 2),
    ],
)
def test_a_request_to_the_outside_is_lost_late_or_doubled(fault: Fault, noted: str, arrived: int):
    def arrives(state: dict[str, Any]) -> int:
        state["times"] = state.get("times", 0) + 1
        return int(state["times"])

    async def main(process: Process) -> None:
        try:
            process.note("answer", await process.outside("charge", arrives))
        except OutcomeUnknown:
            process.note("no answer", process.world.outside.get("times", 0))

    world = _first(fault, main, "charge")
    assert world.notes[0][0] == noted
    assert world.outside.get("times", 0) == arrived
    assert (fault is Fault.LATE) == (world.notes == [("no answer", 0)] and arrived == 1)


def test_a_message_is_dropped_late_or_doubled():
    def hears(fault: Fault) -> list[float]:
        async def listener(process: Process) -> None:
            news = process.database().changed("topic")
            while True:
                await news.wait(timeout=100)
                process.note("heard", process.env.clock.monotonic())

        async def main(process: Process) -> None:
            await process.env.clock.sleep(1)
            await process.database().transact(_see_and_wake())

        heard = []
        for position in range(40):
            world = _world(Tape({position: fault}), faults_max=1)
            world.spawn("listener", listener)
            world.spawn("p", main)
            _run(world)
            if world.faults:
                heard += [at for _, at in world.notes]
        return heard

    assert hears(Fault.DROP) == []
    assert hears(Fault.LATE) == [1 + Limits.slow_s]
    assert hears(Fault.TWICE) == [1.0, 1 + Limits.slow_s]


def test_when_the_power_fails_every_process_is_gone_and_started_again():
    async def main(process: Process) -> None:
        if process.incarnation == 0:
            await process.database().transact(_see("durable"))
        process.note("life", process.env.process)

    world = _first(Fault.POWER, main)
    assert _seen(world) == []  # it struck before the transaction
    assert [process.strand.name for process in world.processes] == ["p.0", "stopwatch.0", "p.1", "stopwatch.1"]
    assert world.notes == [("life", "p.1")]


def test_priorities_find_what_needs_one_process_to_be_far_behind():
    """Uniformly random, everybody advances about as fast as everybody else."""

    def found(seeds: range, priorities: bool) -> int:
        hits = 0
        for seed in seeds:
            rng = random.Random(seed)
            tape = Tape(rng=rng, priorities=Priorities(rng, depth=2, length=60) if priorities else None)
            world = _world(tape)

            async def fast(process: Process) -> None:
                for _ in range(20):
                    await process.database().read(_now())
                process.note("fast")

            async def slow(process: Process) -> None:
                await process.database().read(_now())
                process.note("slow")

            for name, main in (("a", fast), ("b", slow), ("c", fast)):
                world.spawn(name, main)
            world.run(lambda: len(world.notes) == 3)  # noqa: B023
            hits += world.notes[-1] == ("slow",)
            again = _world(Tape(dict(tape.answers)))
            for name, main in (("a", fast), ("b", slow), ("c", fast)):
                again.spawn(name, main)
            again.run(lambda: len(again.notes) == 3)  # noqa: B023
            assert again.notes == world.notes, "what priorities have chosen is on the tape"
        return hits

    assert found(range(60), priorities=True) > 5
    assert found(range(60), priorities=False) == 0


def test_a_run_is_not_over_while_somebody_sleeps_in_an_open_transaction():
    """In memory what is not committed would be seen, and may be undone."""

    async def main(process: Process) -> None:
        async with process.database().transaction() as tx:
            await tx.run(_see("not yet"))
            await process.env.clock.sleep(1)
        process.note("committed")

    world = _world()
    world.spawn("p", main)
    world.run(lambda: _seen(world) == ["not yet"])
    assert world.notes == [("committed",)]

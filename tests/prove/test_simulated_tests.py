"""`@simulated` from inside: which schedules are run, what makes a test fail, and what the failure says."""

import asyncio
import datetime
import logging
import random
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from faultproof.errors import InvalidInput, LeaseLost, Misuse, OutcomeUnknown, TryAgain
from faultproof.ports.script import sql
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.loop import Escape, StepLimit
from faultproof.prove.testing import campaign
from faultproof.prove.testing.campaign import asked, spread
from faultproof.prove.testing.words import read, spelled
from faultproof.testing import Limits, NothingShown, Process, SimulatedWorld, simulated
from tests.fakes import WAIT_S

Client = Callable[[Process], Awaitable[None]]


async def install(world: SimulatedWorld) -> None:
    async with world.database().transaction() as tx:
        await tx.execute("CREATE TABLE wallet (balance INTEGER)")
        await tx.execute("CREATE TABLE top_up (id TEXT PRIMARY KEY)")
        await tx.execute("INSERT INTO wallet VALUES (0)")


async def top_up(process: Process) -> None:
    async with process.database().transaction() as tx:
        if await tx.execute("INSERT INTO top_up VALUES ('t-1') ON CONFLICT DO NOTHING"):
            await tx.execute("UPDATE wallet SET balance = balance + 100")


async def top_up_again(process: Process) -> None:
    """Another request, which asks for the state first and lets the insert decide all the same."""
    async with process.database().transaction() as tx:
        if await tx.fetch("SELECT 1 FROM top_up WHERE id = 't-2'"):
            return
    await process.outside("charge", lambda provider: provider.update({"t-2": 100}))
    async with process.database().transaction() as tx:
        if await tx.execute("INSERT INTO top_up VALUES ('t-2') ON CONFLICT DO NOTHING"):
            await tx.execute("UPDATE wallet SET balance = balance + 100")


async def top_up_in_two_transactions(process: Process) -> None:
    async with process.database().transaction() as tx:
        is_new = await tx.execute("INSERT INTO top_up VALUES ('t-1') ON CONFLICT DO NOTHING")
    if is_new:
        async with process.database().transaction() as tx:
            await tx.execute("UPDATE wallet SET balance = balance + 100")


async def read_then_write(process: Process) -> None:
    """What two at once lose one of; alone it is idempotent enough."""
    database = process.database()
    async with database.transaction() as tx:
        ((balance,),) = await tx.fetch("SELECT balance FROM wallet")
    async with database.transaction() as tx:
        if await tx.execute("INSERT INTO top_up VALUES (?) ON CONFLICT DO NOTHING", process.name):
            await tx.execute("UPDATE wallet SET balance = ?", balance + 100)


def wallet_of(*clients: Client, schedules: int = 60, tape: str | None = None) -> Callable[[], None]:
    @simulated(schedules=schedules, tape=tape)
    async def test(world: SimulatedWorld) -> None:
        await install(world)
        for number, client in enumerate(clients):
            world.spawn(f"client-{number}", client)  # type: ignore[arg-type]
        await world.finished()
        assert world.fetch("SELECT balance FROM wallet") == [(100 * len(clients),)]

    return test


def note_of(test: Callable[[], None], expected: type[BaseException] = AssertionError) -> str:
    with pytest.raises(expected) as caught:
        test()
    (note,) = caught.value.__notes__
    return str(note)


# -- which schedules --------------------------------------------------------------------------------------------------


def test_service_without_a_bug_passes_and_every_place_was_struck():
    with asked(replay="", tape=None) as wish:
        wallet_of(top_up)()
    (said,) = wish.said
    assert said.startswith("60 schedules in ")
    assert said.endswith(": every one of 21 places struck by a fault, 37 schedules at random")


@pytest.mark.soak
def test_service_without_a_bug_never_fails():
    wallet_of(top_up, top_up_again, schedules=20_000)()


def test_places_that_are_too_many_are_spread_and_counted():
    with asked(replay="", tape=None) as wish:
        wallet_of(top_up, schedules=9)()
    assert wish.said[0].endswith(": 7 of 21 places struck by a fault, 0 schedules at random")
    assert spread(range(21), 7) == [0, 3, 6, 9, 12, 15, 18]
    assert spread(range(5), 3) == [0, 1, 3]
    assert spread(range(5), 5) == range(5)


def test_crash_between_two_transactions_is_found_told_and_repeated():
    note = note_of(wallet_of(top_up_in_two_transactions))
    line = top_up_in_two_transactions.__code__.co_firstlineno + 1
    where = f"prove/test_simulated_tests.py:{line}"
    assert note.splitlines()[1:] == [
        "faultproof: struck by crash after Commit in client-0.0 (schedule 4 of 60)",
        f"  0.000 s  client-0.0  {where}  begin",
        f"  0.000 s  client-0.0  {where}  commit: INSERT INTO top_up; committed",
        "  0.000 s  client-0.0  *** crash after commit",
        f"  0.020 s  client-0.1  {where}  begin",
        f"  0.020 s  client-0.1  {where}  commit: INSERT INTO top_up; committed",
        'replay: @simulated(tape="5:1")',
    ]
    assert "struck by crash after Commit" in note_of(wallet_of(top_up_in_two_transactions, tape="5:1"))
    wallet_of(top_up, tape="5:1")()  # and the mended service holds under the same fault


def test_order_in_which_two_lose_an_update_is_found():
    note = note_of(wallet_of(read_then_write, read_then_write))
    assert "struck by slow before writer in client-0.0 " in note
    tape = note.rpartition('tape="')[2].removesuffix('")')
    assert "struck by slow before writer" in note_of(wallet_of(read_then_write, read_then_write, tape=tape))


def test_failure_that_takes_two_faults_is_shrunk_to_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(campaign, "SHRINKING_S", 1_000.0)  # however busy the machine is

    @simulated(schedules=200)
    async def test(world: SimulatedWorld) -> None:
        lives: list[int] = []

        async def client(process: Process) -> None:
            lives.append(process.incarnation)
            await top_up(process)

        await install(world)
        world.spawn("client", client)
        await world.finished()
        assert max(lives) < 2

    note = note_of(test)
    assert "struck by freeze before Commit in client.0 and crash after writer in client.1 " in note
    assert len(read(note.rpartition('tape="')[2].removesuffix('")'))) == 2


def test_shrinking_does_not_end_in_another_failure():
    """A crash in the place of the freeze fails as well, of something else; of nine places only three are tried here."""

    @simulated(schedules=5)
    async def test(world: SimulatedWorld) -> None:
        async def client(process: Process) -> None:
            await process.outside("count", lambda counter: counter.update(n=counter.get("n", 0) + 1))

        world.spawn("client", client)
        await world.finished()
        if world.outside["n"] == 2 and world.env.clock.monotonic() < 1:
            raise ValueError("of the crash")
        assert world.outside["n"] == 1

    assert "struck by freeze after count in client.0 " in note_of(test)


def test_database_is_let_go_of_at_the_end():
    worlds: list[SimulatedWorld] = []

    @simulated(schedules=3)
    async def test(world: SimulatedWorld) -> None:
        worlds.append(world)
        await install(world)
        world.spawn("client", top_up)
        await world.finished()

    test()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        worlds[0].fetch("SELECT 1")


def test_what_the_test_does_itself_is_never_struck():
    runs: list[int] = []

    @simulated(schedules=30)
    async def test(world: SimulatedWorld) -> None:
        runs.append(0)
        await install(world)
        async with world.database().transaction() as tx:
            await tx.execute("UPDATE wallet SET balance = 7")
        assert await world.database().transact(_nothing()) is None
        runs[-1] += 1
        world.spawn("client", top_up)
        await world.finished()
        assert world.fetch("SELECT balance FROM wallet") == [(107,)]

    test()
    assert runs == [1] * 30


def test_nobody_sees_what_a_process_has_not_committed():
    @simulated(schedules=10)
    async def test(world: SimulatedWorld) -> None:
        async def slow(process: Process) -> None:
            async with process.database().transaction() as tx:
                await tx.execute("UPDATE wallet SET balance = 7")
                await process.env.clock.sleep(0.5)
                await tx.execute("UPDATE wallet SET balance = 0")
            await process.env.clock.sleep(0.5)

        await install(world)
        world.spawn("slow", slow)
        await world.env.clock.sleep(0.1)
        assert await world.database().read(_balance()) == 0
        await world.until(lambda: world.fetch("SELECT balance FROM wallet") == [(0,)])
        async with world.database().transaction() as tx:
            assert await tx.fetch("SELECT balance FROM wallet") == [(0,)]
        await world.finished()

    test()


def test_looking_into_an_open_transaction_is_refused():
    @simulated(schedules=10)
    async def test(world: SimulatedWorld) -> None:
        async def slow(process: Process) -> None:
            async with process.database().transaction():
                await process.env.clock.sleep(0.5)

        await install(world)
        world.spawn("slow", slow)
        await world.env.clock.sleep(0.1)
        world.fetch("SELECT balance FROM wallet")

    with pytest.raises(Misuse, match=r"slow\.0 has a transaction open: wait with `finished` or `until`"):
        test()


# -- what makes a test fail -------------------------------------------------------------------------------------------


def test_without_anything_to_strike_it_fails_and_says_why():
    @simulated
    async def test(world: SimulatedWorld) -> None:
        await install(world)

    with pytest.raises(NothingShown, match="No fault could strike"):
        test()

    @simulated
    async def hasty(world: SimulatedWorld) -> None:
        await install(world)
        world.spawn("client", top_up)

    with pytest.raises(NothingShown, match=r"wait with `await world\.finished"):
        hasty()


def test_what_never_happened_although_it_was_to_happen_sometimes_fails():
    def told(claim: str, happened: Callable[[int], bool]) -> Callable[[], None]:
        @simulated(schedules=20)
        async def test(world: SimulatedWorld) -> None:
            lives: list[int] = []

            async def client(process: Process) -> None:
                lives.append(process.incarnation)
                await top_up(process)

            await install(world)
            world.spawn("client", client)
            await world.finished()
            world.sometimes(claim, happened(len(lives)))

        return test

    told("the client is started again", lambda lives: lives > 1)()
    with pytest.raises(NothingShown, match=r"never did, in 20 schedules: nine lives\."):
        told("nine lives", lambda lives: lives == 9)()


def test_two_undisturbed_schedules_that_differ_fail():
    kept: list[int] = []

    @simulated
    async def test(world: SimulatedWorld) -> None:
        kept.append(1)
        world.spawn("client", lambda process: _noting(process, len(kept)))
        await world.finished()

    with pytest.raises(NothingShown, match=r"(?s)two undisturbed ones differ.*once .*'n', 1.*then .*'n', 2"):
        test()


def test_invariant_that_is_broken_only_for_a_moment_is_seen():
    async def borrows(process: Process) -> None:
        for amount in (-5, 5):
            async with process.database().transaction() as tx:
                await tx.execute("UPDATE wallet SET balance = balance + ?", amount)

    @simulated
    async def test(world: SimulatedWorld) -> None:
        await install(world)

        @world.always
        def never_negative() -> None:
            assert world.fetch("SELECT 1 FROM wallet WHERE balance < 0") == [], "in debt"

        world.spawn("client", borrows)
        await world.finished()

    with pytest.raises(AssertionError, match="in debt"):
        test()


def test_error_of_a_process_is_the_test_s():
    async def client(process: Process) -> None:
        raise ValueError("a bug of the service")

    @simulated
    async def test(world: SimulatedWorld) -> None:
        world.spawn("client", client)
        await world.finished()

    with pytest.raises(ValueError, match="a bug of the service"):
        test()


def test_what_a_process_skips_or_fails_by_is_the_test_s_too():
    """Found: it is none of Exception's, so the process was started again, for ever."""

    async def client(process: Process) -> None:
        pytest.fail("said so")

    @simulated
    async def test(world: SimulatedWorld) -> None:
        world.spawn("client", client)
        await world.finished()

    with pytest.raises(pytest.fail.Exception, match="said so"):
        test()


@pytest.mark.parametrize("error", [TryAgain("later"), OutcomeUnknown("perhaps"), LeaseLost("gone")])
def test_process_that_gives_up_without_blame_is_started_again(error: Exception):
    async def client(process: Process) -> None:
        await top_up(process)
        if process.incarnation == 0:
            raise error

    wallet_of(client)()


def test_process_that_never_returns_is_named():
    @simulated(limits=Limits(seconds=5))
    async def test(world: SimulatedWorld) -> None:
        async def waits(process: Process) -> None:
            while True:
                await process.env.clock.sleep(1)

        await install(world)
        world.spawn("client", top_up)
        world.spawn("worker", waits)
        await world.finished()

    with pytest.raises(StepLimit, match=r"not finished after 5 virtual seconds; at work then: worker\.0"):
        test()


def test_processes_that_never_return_can_be_waited_for_all_the_same():
    @simulated(schedules=30)
    async def test(world: SimulatedWorld) -> None:
        async def worker(process: Process) -> None:
            while True:
                async with process.database().transaction() as tx:
                    await tx.execute("UPDATE wallet SET balance = balance * 2 WHERE balance = 100")
                await process.env.clock.sleep(1)

        await install(world)
        world.spawn("worker", worker)
        world.spawn("client", top_up)
        await world.finished("client")
        assert world.fetch("SELECT balance FROM wallet") in ([(100,)], [(200,)])
        await world.until(lambda: world.fetch("SELECT balance FROM wallet") == [(200,)])

    test()


# -- escapes ----------------------------------------------------------------------------------------------------------


def _bind() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))


ESCAPES: dict[str, Callable[[], Any]] = {
    "time.time": lambda: time.time(),
    "random.random": lambda: random.random(),
    "uuid.uuid4": lambda: uuid.uuid4(),
    "Thread.start": lambda: threading.Thread(target=print).start(),
    "socket.bind": _bind,
    "date.today": lambda: datetime.date.today(),
    "asyncio.to_thread": lambda: asyncio.to_thread(print),
}


def _escaping(call: Callable[[], Any]) -> Callable[[], None]:
    async def client(process: Process) -> None:
        call()

    @simulated
    async def test(world: SimulatedWorld) -> None:
        world.spawn("client", client)
        await world.finished()

    return test


@pytest.mark.parametrize("name", ESCAPES)
def test_reaching_for_the_real_world_is_named(name: str):
    with pytest.raises(Escape, match=f"simulated code called {name.replace('date.today', 'time.time')}"):
        _escaping(ESCAPES[name])()


@pytest.mark.parametrize("name", ["now", "utcnow"])
def test_datetime_is_written_in_c_and_named_all_the_same(name: str):
    with pytest.raises(NothingShown, match=rf"test_simulated_tests\.py:\d+ called datetime.{name}: take the time"):
        _escaping(lambda: getattr(datetime.datetime, name)())()
    assert datetime.datetime.now() > datetime.datetime(2020, 1, 1)


def test_log_records_and_other_threads_may_know_the_time(caplog: pytest.LogCaptureFixture):
    began, seen = threading.Event(), list[float]()

    def other() -> None:
        began.wait(WAIT_S)
        seen.append(time.time())

    thread = threading.Thread(target=other)
    thread.start()
    with no_escapes():
        logging.getLogger("service").warning("still here")
        began.set()
        thread.join(WAIT_S)
        with pytest.raises(Escape):
            time.time()
    assert [record.message for record in caplog.records] == ["still here"]
    assert len(seen) == 1


# -- bad input --------------------------------------------------------------------------------------------------------


def _plain(world: SimulatedWorld) -> None: ...


async def _without_world() -> None: ...


async def _with(world: SimulatedWorld) -> None: ...


@pytest.mark.parametrize(
    ("decorate", "sentence"),
    [
        (lambda: simulated(_plain), "@simulated is for async test functions, and _plain is not"),
        (lambda: simulated(_without_world), "hands _without_world its world: give it an argument `world`"),
        (lambda: simulated(schedules=2)(_with), "`schedules` must be a whole number from 3 to 1,000,000, got 2"),
        (lambda: simulated(schedules=True)(_with), "`schedules` must be a whole number"),
        (lambda: simulated(tape="1")(_with), "a tape is position:answer,position:answer .* not '1'"),
        (lambda: simulated(tape="1:2,")(_with), "a tape is"),
        (lambda: simulated(tape="1:-2")(_with), "a tape is"),
        (lambda: simulated(tape="1:2," * 1_001 + "1:2")(_with), "a tape is"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(decorate: Callable[[], object], sentence: str):
    with pytest.raises(InvalidInput, match=sentence):
        decorate()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("client", "there is a process 'client' already"),
        ("test", "is the test itself"),
        ("", "a process is named with"),
    ],
)
def test_process_needs_a_name_of_its_own(name: str, sentence: str):
    @simulated
    async def test(world: SimulatedWorld) -> None:
        world.spawn("client", top_up)
        world.spawn(name, top_up)

    with pytest.raises(InvalidInput, match=sentence):
        test()


def test_waiting_for_nobody_and_spawning_nothing_are_refused():
    @simulated
    async def waits(world: SimulatedWorld) -> None:
        world.spawn("client", top_up)
        await world.finished("clint")

    with pytest.raises(InvalidInput, match="no process 'clint' was spawned; there are client"):
        waits()

    @simulated
    async def spawns(world: SimulatedWorld) -> None:
        world.spawn("client", lambda process: None)  # type: ignore[arg-type, return-value]
        await world.finished()

    with pytest.raises(InvalidInput, match="the main function of 'client' must be an async function"):
        spawns()


def test_tape_of_other_code_is_not_taken_for_a_schedule_that_held():
    with pytest.raises(NothingShown, match="of its 1 answers 0 were asked for"):
        wallet_of(top_up, tape="5000:1")()


@pytest.mark.parametrize("answers", [{}, {3: 1}, {3: 1, 17: 12}])
def test_tape_is_read_as_it_was_spelled(answers: dict[int, int]):
    assert read(spelled(answers)) == answers


@sql("SELECT balance FROM wallet")
def _balance() -> int: ...


def _nothing() -> Any:
    yield from ()


async def _noting(process: Process, n: int) -> None:
    process.note("n", n)

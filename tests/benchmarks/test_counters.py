"""What operations cost, in numbers that no busy machine changes: a gate against a statement or a round trip too many."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median, mode

import psycopg
import pytest

import faultproof as fp
from benchmarks.measures.outboxes import entries
from faultproof.clock import Env
from faultproof.patterns.outbox.sequencer import PAUSE_S
from faultproof.ports.database import Database
from faultproof.ports.log import Entry
from faultproof.primitives.leases import Leases
from tests.benchmarks.meters import Counts, Meter, postgres_meter, sqlite_meter
from tests.benchmarks.wire import counted
from tests.fakes import FixedRng, ShiftedClock

pytestmark = pytest.mark.anyio

WARM = 8
"""psycopg prepares a statement at its sixth time."""
TIMES = 25
USUAL = 0.8
"""So much of the time an operation costs the same."""
WAL_TOLERANCE = 0.1
TTL_S = 600.0
BODY = {"order": "o-123456", "item": "whole milk", "version": 17}
EVENTS = 100

Operation = Callable[[], Awaitable[object]]

RECORDED = {
    "sqlite": {
        "publishing": Counts(3, 1, 12360),
        "publishing_by_64": Counts(6, 2, 54796),
        "inserting": Counts(3, 3, 4120),
        "inserting_and_publishing": Counts(4, 4, 16480),
        "sequencing": Counts(10, 2, 67568),
        "delivering": Counts(12, 5, 4120),
        "starting": Counts(4, 1, 20600),
        "reserving": Counts(4, 1, 16480),
        "renewing": Counts(3, 1, 8240),
    },
    "postgresql": {
        "publishing": Counts(3, 1, 320),
        "publishing_by_64": Counts(6, 2, 18256),
        "inserting": Counts(3, 2, 176),
        "inserting_and_publishing": Counts(4, 2, 456),
        "sequencing": Counts(7, 2, 36640),
        "delivering": Counts(8, 3, 176),
        "starting": Counts(5, 1, 800),
        "reserving": Counts(5, 1, 416),
        "renewing": Counts(3, 2, 2176),
    },
}
"""Of one operation each, which is said at its function."""

INSERT = {"postgresql": "INSERT INTO orders (item) VALUES (%s)", "sqlite": "INSERT INTO orders (item) VALUES (?)"}
TABLE = {
    "postgresql": "CREATE TABLE orders (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item TEXT)",
    "sqlite": "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)",
}


class Bench:
    """An outbox of one partition, and a table of the user's."""

    def __init__(self, meter: Meter, engine: str, clock: ShiftedClock) -> None:
        self.meter = meter
        self.db: Database = meter.db
        self.clock = clock
        self.insert = INSERT[engine]
        self.outbox = fp.Outbox(self.db, events={"item.sold": dict}, options=fp.OutboxOptions(partitions=1))


Preparing = Callable[[Bench], AbstractAsyncContextManager[tuple[Operation, Operation]]]
"""Gives what comes before each operation and is not counted, and the operation."""


async def _nothing() -> None:
    pass


@asynccontextmanager
async def publishing(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """One `publish` without a transaction."""
    yield _nothing, lambda: bench.outbox.publish(BODY, type="item.sold", key="k")


@asynccontextmanager
async def publishing_by_64(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """64 at once: the first goes alone, the others together."""

    async def all_at_once() -> None:
        await asyncio.gather(*(bench.outbox.publish(BODY, type="item.sold", key="k") for _ in range(64)))

    yield _nothing, all_at_once


@asynccontextmanager
async def inserting(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """A transaction with one insert of the user's."""

    async def once() -> None:
        async with bench.db.transaction() as tx:
            await tx.execute(bench.insert, "milk")

    yield _nothing, once


@asynccontextmanager
async def inserting_and_publishing(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """The same with a publication."""

    async def once() -> None:
        async with bench.db.transaction() as tx:
            await tx.execute(bench.insert, "milk")
            await bench.outbox.publish(BODY, type="item.sold", key="k", tx=tx)

    yield _nothing, once


@asynccontextmanager
async def sequencing(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """One step of a sequencer that moves 100 events."""
    loop = bench.outbox.sequencer(ttl=TTL_S)

    async def fill() -> None:
        await bench.db.transact(bench.db.logs.append("outbox", _events(), partitions=1))

    async def step() -> None:
        assert await loop.step() == PAUSE_S

    yield fill, step
    await loop.close()


@asynccontextmanager
async def delivering(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """One step of a consumer with inbox that hands 100 events over."""
    seen = 0

    async def handler(event: fp.Event[object], tx: object) -> None:
        nonlocal seen
        seen += 1

    loop = bench.outbox.consumer("group", handler, fp.ConsumerOptions(batch=EVENTS, ttl=TTL_S))
    sequencer = bench.outbox.sequencer(ttl=TTL_S)
    (await loop.open()).close()  # whoever listens looks at the database too, as often as there is time

    async def fill() -> None:
        await bench.db.transact(bench.db.logs.append("outbox", _events(), partitions=1))
        assert await sequencer.step() == PAUSE_S

    async def step() -> None:
        before = seen
        assert await loop.step() == 0.0
        assert seen - before == EVENTS

    yield fill, step
    await loop.close()
    await sequencer.close()


@asynccontextmanager
async def starting(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """The start of a saga, which somebody else goes on with."""
    saga = fp.Saga(bench.db, "fulfil", input=str, steps=[fp.Step.remote(_ship, undo=fp.NOTHING_TO_UNDO)])
    await saga.install()
    numbers = itertools.count()
    yield _nothing, lambda: saga.start(f"order-{next(numbers):09}", "milk")
    await saga.close()


async def _ship(context: fp.StepContext[str]) -> str:
    return context.key


@asynccontextmanager
async def reserving(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """One hold of one item."""
    escrow = fp.Escrow(bench.db)
    await escrow.install()
    await escrow.restock("milk", 1_000, key="delivery")
    numbers = itertools.count()
    yield _nothing, lambda: escrow.reserve({"milk": 1}, key=f"order-{next(numbers):09}")
    await escrow.close()


@asynccontextmanager
async def renewing(bench: Bench) -> AsyncIterator[tuple[Operation, Operation]]:
    """One renewal of eight leases; it happens three times in each lease's time."""
    leases = Leases(bench.db, "work", owner="me", ttl=TTL_S, share=False)
    await bench.db.transact(bench.db.claims.add("work", [str(n) for n in range(8)]))

    async def pass_time() -> None:
        bench.clock.advance(TTL_S * 0.4)

    async def tend() -> None:
        assert len(await leases.tend()) == 8

    await tend()
    yield pass_time, tend
    await leases.close()


def _events() -> list[Entry]:
    return [entry._replace(partition=0) for entry in entries(EVENTS)]


OPERATIONS: dict[str, Preparing] = {
    each.__name__: each
    for each in (
        publishing,
        publishing_by_64,
        inserting,
        inserting_and_publishing,
        sequencing,
        delivering,
        starting,
        reserving,
        renewing,
    )
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_operations_cost_what_is_recorded(
    engine: str, operation: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = ShiftedClock()
    env = Env(clock=clock, rng=FixedRng(0.5))
    if engine == "sqlite":
        opening: AbstractAsyncContextManager[Meter] = sqlite_meter(tmp_path / "shop.db", env, monkeypatch)
    else:
        opening = postgres_meter(request.getfixturevalue("postgres_url"), env, monkeypatch)
    async with opening as meter:
        bench = Bench(meter, engine, clock)
        await bench.outbox.install()
        async with bench.db.transaction() as tx:
            await tx.execute(TABLE[engine])
        async with OPERATIONS[operation](bench) as (before, once):
            for _ in range(WARM):
                await before()
                await once()
            costs = [await _counted(meter, before, once) for _ in range(TIMES)]
        await bench.outbox.close()
    _compare(engine, operation, _usual(costs))


async def _counted(meter: Meter, before: Operation, once: Operation) -> Counts:
    await before()
    start = await meter.read()
    await once()
    return (await meter.read()).since(start)


def _usual(costs: list[Counts]) -> Counts:
    """What it nearly always costs. The server writes a line of its own to the log now and then, or has a plan made anew."""
    exact = mode((cost.statements, cost.round_trips) for cost in costs)
    alike = sum(cost[:2] == exact for cost in costs)
    assert alike >= USUAL * len(costs), f"it does not cost the same every time: {costs}"
    return Counts(*exact, round(median(cost.wal_bytes for cost in costs)))


def _compare(engine: str, operation: str, got: Counts) -> None:
    expected = RECORDED[engine][operation]
    same = got[:2] == expected[:2] and abs(got.wal_bytes - expected.wal_bytes) <= WAL_TOLERANCE * expected.wal_bytes
    assert same, (
        f"{operation} on {engine} now costs {tuple(got)}, and {tuple(expected)} is recorded (statements, round trips,"
        f" bytes of write-ahead log within {WAL_TOLERANCE:.0%}). If it should not cost more, find the change that made"
        f' it so. If the new numbers are meant, put "{operation}": Counts{tuple(got)} into RECORDED["{engine}"] here,'
        " and say in the commit why; fewer are recorded too, or they come back unnoticed."
    )


def test_a_statement_too_many_is_refused_with_what_to_do() -> None:
    recorded = RECORDED["postgresql"]["publishing"]
    _compare("postgresql", "publishing", recorded._replace(wal_bytes=round(recorded.wal_bytes * 1.05)))
    for worse in (
        recorded._replace(statements=recorded.statements + 1),
        recorded._replace(round_trips=recorded.round_trips + 1),
        recorded._replace(wal_bytes=round(recorded.wal_bytes * 1.2)),
        recorded._replace(statements=recorded.statements - 1),
    ):
        with pytest.raises(AssertionError, match=re.escape(f'put "publishing": Counts{tuple(worse)} into RECORDED')):
            _compare("postgresql", "publishing", worse)


def test_the_usual_cost_is_not_that_of_an_odd_one_and_must_be_usual() -> None:
    often, odd = Counts(3, 1, 400), Counts(4, 2, 9_000)
    assert _usual([often] * 8 + [odd] * 2) == often
    with pytest.raises(AssertionError, match="not cost the same every time"):
        _usual([often] * 7 + [odd] * 3)


async def test_the_proxy_counts_what_the_driver_really_sends(postgres_url: str) -> None:
    async with counted(postgres_url) as (url, said):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as raw:
            (connection,) = said
            begin = (connection.statements, connection.round_trips)
            await raw.execute("SELECT 1")  # without parameters: as it is
            await raw.execute("SELECT %s::int", (1,), prepare=False)
            assert (connection.statements - begin[0], connection.round_trips - begin[1]) == (2, 2)
            async with raw.pipeline():
                for _ in range(5):
                    await raw.execute("SELECT %s::int", (1,), prepare=False)
            assert (connection.statements - begin[0], connection.round_trips - begin[1]) == (7, 3)
        assert {b"SELECT 1", b"SELECT $1::int"} <= connection.texts

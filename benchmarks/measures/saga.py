"""Sagas of two steps that return at once, beside workflows of two steps; and what a saga of three steps adds."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import faultproof as fp
from benchmarks.load import by_callers
from benchmarks.measures.outboxes import settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.peers import dbos

RATE = dbos.RATE
P50, P99 = "p50", "p99"


async def _pass(context: fp.StepContext[int]) -> int:
    return context.input


def _steps(number: int) -> list[fp.Step[int, int]]:
    return [fp.Step.remote(_pass, undo=fp.NOTHING_TO_UNDO, name=f"step-{each}") for each in range(number)]


@asynccontextmanager
async def _started(place: Place, steps: int) -> AsyncIterator[tuple[fp.Saga[int], dict[str, str]]]:
    is_postgres = place.url.startswith("postgresql")
    options = fp.PostgresOptions(pool_max=dbos.POOL) if is_postgres else None
    async with fp.connect(place.url, options=options) as db:
        saga = fp.Saga(db, "bench", input=int, steps=_steps(steps))
        await saga.install()
        worker = fp.Worker(db.env, saga.runner())
        task = asyncio.create_task(worker.run())
        try:
            yield saga, await settings(db)
        finally:
            worker.stop()
            await task
            await saga.close()


@asynccontextmanager
async def running(place: Place, *, callers: int, each: int) -> AsyncIterator[Ready]:
    """`callers` start a saga each, wait for its end, and start the next."""
    async with _started(place, 2) as (saga, found):
        ids = count()

        async def one() -> None:
            id = f"o-{next(ids)}"
            await saga.start(id, 7)
            await saga.wait(id)

        async def measure() -> dict[str, float]:
            return {RATE: await by_callers(callers, place.size(each, 2), one)}

        yield Ready(measure=measure, settings=found)


@asynccontextmanager
async def three_steps(place: Place) -> AsyncIterator[Ready]:
    """One saga of three steps at a time, from before its start to the answer of `wait`."""
    async with _started(place, 3) as (saga, found):
        ids = count()

        async def measure() -> dict[str, float]:
            took: list[float] = []
            for _ in range(place.size(300, 5)):
                began, id = time.perf_counter(), f"o-{next(ids)}"
                await saga.start(id, 7)
                await saga.wait(id)
                took.append((time.perf_counter() - began) * 1_000)
            return {P50: statistics.median(took), P99: statistics.quantiles(took, n=100)[98]}

        yield Ready(measure=measure, settings=found)


def _ours(each: int, lone: int) -> tuple[Contestant, ...]:
    return tuple(
        Contestant(
            name=f"ours, {callers} at once",
            side="ours",
            configured="Saga of two remote steps, runner in the same process, as it comes",
            open=partial(running, callers=callers, each=number),
        )
        for callers, number in ((64, each), (1, lone))
    )


def _aims(many: float, one: float) -> tuple[Aim, ...]:
    return (
        Aim(figure=RATE, of="ours, 64 at once", over=("dbos, 64 at once",), at_least=many),
        Aim(figure=RATE, of="ours, 1 at once", over=("dbos, 1 at once",), at_least=one),
    )


MEASURES = (
    "Sagas a second, each of two steps that return at once, from its start to the answer of who waits for its end; each "
    "caller waits for its own."
)
NOTES = (
    "Both sides journal the same: that it was started, and what each step came to. DBOS makes four durable writes for that, "
    "ours three: that the first step begins commits together with the start. Both have as many connections at most.",
    "A saga journals that a step begins before it is made, and has undos; a workflow records that it is done.",
)

POSTGRESQL = Benchmark(
    name="saga-postgresql",
    engine="postgresql",
    measures=MEASURES,
    figures=(Figure(name=RATE, unit="sagas/s"),),
    compared=RATE,
    contestants=(*_ours(100, 200), *dbos.contestants(5, 50)),
    aims=_aims(40, 3),
    notes=NOTES,
)

SQLITE = Benchmark(
    name="saga-sqlite",
    engine="sqlite",
    measures=MEASURES,
    figures=(Figure(name=RATE, unit="sagas/s"),),
    compared=RATE,
    contestants=(*_ours(100, 200), *dbos.contestants(5, 50)),
    aims=_aims(60, 5),
    notes=(*NOTES, "Each with its own journal mode; both wait for the disk at every commit (synchronous=full)."),
)

THREE_STEPS = Benchmark(
    name="saga-latency",
    engine="postgresql",
    measures="Milliseconds that a saga of three steps which return at once takes, one at a time.",
    figures=(Figure(name=P50, unit="ms", better="less"), Figure(name=P99, unit="ms", better="less")),
    contestants=(
        Contestant(
            name="ours",
            side="ours",
            configured="Saga of three remote steps, runner in the same process, as it comes",
            open=three_steps,
        ),
    ),
    aims=(Aim(figure=P50, of="ours", at_most=5.0),),
    notes=("The specification says +50–200 ms for a saga.",),
)

"""A million events waiting: does the rate stay what it was, what memory does it take, and what if nothing is vacuumed?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import faultproof as fp
from benchmarks.measures.outboxes import backlog, in_the_log, opened, settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.task import spawn
from faultproof.ports.database import Database

EVENTS = 1_000_000
QUICK = 2_000
WORKERS = 2
"""Processes: one sequences, the other stands by to take over."""
LOOK_S = 0.05
STOP_S = 15.0

RATE, FLAT, MEMORY = "drained", "last tenth / first tenth", "memory of all processes"


async def work(url: str) -> None:
    """A worker process, as a service would have it."""
    async with opened(url) as (db, outbox):
        await fp.Worker(db.env, outbox.sequencer()).run_until_signal()


@asynccontextmanager
async def draining(place: Place, *, snapshot: bool) -> AsyncIterator[Ready]:
    """Processes of ours drain what this one has committed before."""
    count = place.size(EVENTS, QUICK)
    async with opened(place.url) as (db, _outbox):

        async def measure() -> dict[str, float]:
            await backlog(db, count)
            async with AsyncExitStack() as stack:
                if snapshot:
                    await stack.enter_async_context(_old_snapshot(place.url))
                return await _watched(db, place.url, count)

        yield Ready(measure=measure, settings=await settings(db))


async def _watched(db: Database, url: str, count: int) -> dict[str, float]:
    done = await in_the_log(db)
    start, wanted = done, done + count
    moments: list[tuple[float, int]] = []
    memory_max = 0.0
    workers = [await spawn(f"{__name__}:work", url) for _ in range(WORKERS)]
    try:
        while done < wanted:
            moments.append((time.perf_counter(), done - start))
            memory_max = max(memory_max, sum(pss_mb(worker.pid) for worker in workers))
            await asyncio.sleep(LOOK_S)
            done = await in_the_log(db)
            assert all(worker.returncode is None for worker in workers), "a worker process ended"
        moments.append((time.perf_counter(), count))
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.terminate()
        async with asyncio.timeout(STOP_S):
            await asyncio.gather(*(worker.wait() for worker in workers))
    return {**rates(moments, count), MEMORY: memory_max}


def rates(moments: list[tuple[float, int]], count: int) -> dict[str, float]:
    """From looks at how many are done. The clock starts at the last look that saw none: processes were starting."""
    at = partial(_moment, moments)
    first, last = at(count * 0.1) - at(0), at(count) - at(count * 0.9)
    return {RATE: count / (at(count) - at(0)), FLAT: first / last}


def _moment(moments: list[tuple[float, int]], done: float) -> float:
    """When so many were done, as if it had gone evenly between two looks; of none: the last time."""
    before = max(((when, n) for when, n in moments if n <= done), key=lambda each: (each[1], each[0]))
    after = next(((when, n) for when, n in moments if n > done), before)
    if after is before or done == 0:
        return before[0]
    return before[0] + (after[0] - before[0]) * (done - before[1]) / (after[1] - before[1])


def pss_mb(pid: int) -> float:
    """Memory of a process; what several share counts once in their sum."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1_024


@asynccontextmanager
async def _old_snapshot(url: str) -> AsyncIterator[None]:
    """A report that somebody left open: nothing that is deleted meanwhile can be cleaned up."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as raw:
        await raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await raw.execute("SELECT count(*) FROM faultproof_log_partition")
        yield


_FIGURES = (
    Figure(name=RATE, unit="events/s"),
    Figure(name=FLAT, unit="of the rate"),
    Figure(name=MEMORY, unit="MB", better="less"),
)
_ALONE = Contestant(
    name="ours",
    side="ours",
    configured=f"{WORKERS} worker processes with a sequencer each, as it comes",
    open=partial(draining, snapshot=False),
)
_BESIDE = "ours, beside an old snapshot"
_MEASURES = (
    f"{EVENTS:,} events, committed before, into the log, by {WORKERS} processes; their proportional memory together, at"
    " its peak."
)

POSTGRESQL = Benchmark(
    name="million-postgresql",
    engine="postgresql",
    measures=_MEASURES,
    figures=_FIGURES,
    compared=RATE,
    contestants=(
        _ALONE,
        Contestant(
            name=_BESIDE,
            side="ours",
            configured="the same, while another session holds a snapshot from before the drain",
            open=partial(draining, snapshot=True),
        ),
    ),
    aims=(
        Aim(figure=FLAT, of="ours", at_least=0.8),
        Aim(figure=MEMORY, of="ours", at_most=200),
        Aim(figure=RATE, of=_BESIDE, over=("ours",), at_least=0.5),
    ),
    rounds=1,
    round_timeout=400,
)

SQLITE = Benchmark(
    name="million-sqlite",
    engine="sqlite",
    measures=_MEASURES,
    figures=_FIGURES,
    compared=RATE,
    contestants=(_ALONE,),
    aims=(Aim(figure=FLAT, of="ours", at_least=0.8), Aim(figure=MEMORY, of="ours", at_most=150)),
    rounds=1,
    round_timeout=400,
)

"""A question to a hundred shards in the same process, with the whole policy around each, beside the bare calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import faultproof as fp
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.spread import p50
from faultproof.patterns.request_response import Client, Policy
from faultproof.primitives.hedging import HedgePolicy

SHARDS = [f"shard-{number}" for number in range(100)]
ASKED = "a question"
QUESTIONS = 200

Question = Callable[[], Awaitable[object]]


async def _answer(shard: str) -> str:
    return shard


def bare() -> Question:
    """`asyncio.gather`."""
    return lambda: asyncio.gather(*(_answer(shard) for shard in SHARDS))


def gathered(*, hedge: HedgePolicy | None = None) -> Question:
    """`ScatterGather` alone."""
    scatter = fp.ScatterGather(fp.GatherPolicy(deadline=1.0, hedge=hedge))

    return lambda: scatter.gather(SHARDS, lambda shard, attempt: _answer(shard))


def clients(*, hedge: HedgePolicy | None = None) -> Question:
    """`ScatterGather` that asks each shard through a client of its own, which has two replicas of it."""
    policy = Policy(deadline=1.0, idempotent=True)
    made = {
        shard: Client([fp.Endpoint(f"{shard}-a"), fp.Endpoint(f"{shard}-b")], policy, name=shard) for shard in SHARDS
    }
    scatter = fp.ScatterGather(fp.GatherPolicy(deadline=1.0, hedge=hedge))

    async def ask(shard: str, attempt: int) -> str:
        return (await made[shard].call(lambda endpoint, number: _answer(shard))).value

    return lambda: scatter.gather(SHARDS, ask)


@asynccontextmanager
async def asking(place: Place, *, made: Callable[[], Question]) -> AsyncIterator[Ready]:
    """One question after the other."""
    question = made()
    await question()

    async def measure() -> dict[str, float]:
        took = []
        for _ in range(place.size(QUESTIONS, 3)):
            began = time.process_time()
            await question()
            took.append((time.process_time() - began) * 1e6)
        return {ASKED: p50(took)}

    yield Ready(measure=measure, settings={"shards": str(len(SHARDS))})


_HEDGE = HedgePolicy(at_first=0.5)
FAN_OUT = Benchmark(
    name="fan-out",
    engine="none",
    measures="Microseconds of processor time until the answers of a hundred shards are there, which answer at once.",
    figures=(Figure(name=ASKED, unit="µs", better="less"),),
    compared=ASKED,
    contestants=(
        Contestant(
            name="clients",
            side="ours",
            configured="ScatterGather; each shard through a Client with two endpoints, the policy as it comes",
            open=partial(asking, made=clients),
        ),
        Contestant(
            name="clients, hedged",
            side="ours",
            configured="the same, and stragglers are hedged",
            open=partial(asking, made=partial(clients, hedge=_HEDGE)),
        ),
        Contestant(
            name="gathered, hedged",
            side="ours",
            configured="ScatterGather alone: deadline, hedges",
            open=partial(asking, made=partial(gathered, hedge=_HEDGE)),
        ),
        Contestant(
            name="asyncio.gather",
            side="by hand",
            configured="the bare calls: no deadline, one failure fails all",
            open=partial(asking, made=bare),
        ),
    ),
    aims=(
        Aim(figure=ASKED, of="clients", over=("asyncio.gather",), at_most=5),
        Aim(figure=ASKED, of="clients, hedged", over=("asyncio.gather",), at_most=5),
        Aim(figure=ASKED, of="gathered, hedged", over=("asyncio.gather",), at_most=5),
    ),
)

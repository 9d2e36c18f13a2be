"""Publications outside any transaction of the caller's, from many callers at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.load import BODY, by_callers
from benchmarks.measures.outboxes import opened, settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.peers import faststream_outbox, pgqueuer, procrastinate

RATE = "published"


@asynccontextmanager
async def publishing(place: Place, *, callers: int, each: int) -> AsyncIterator[Ready]:
    """`publish` without a transaction: what several callers publish at a time shares one."""
    async with opened(place.url) as (db, outbox):

        async def measure() -> dict[str, float]:
            return {
                RATE: await by_callers(
                    callers, place.size(each, 2), lambda: outbox.publish(BODY, type="item.sold", key="key-1")
                )
            }

        yield Ready(measure=measure, settings=await settings(db))


def _ours(callers: int, each: int) -> Contestant:
    return Contestant(
        name=f"ours, {callers} callers",
        side="ours",
        configured="Outbox.publish, one event a call, as it comes",
        open=partial(publishing, callers=callers, each=each),
    )


POSTGRESQL = Benchmark(
    name="callers-postgresql",
    engine="postgresql",
    measures="Events a second that are committed when the call returns, one event a call; each caller waits for its own.",
    figures=(Figure(name=RATE, unit="events/s"),),
    compared=RATE,
    contestants=(
        _ours(64, 300),
        _ours(16, 300),
        *faststream_outbox.CALLERS,
        *pgqueuer.CALLERS,
        *procrastinate.CALLERS,
    ),
    aims=(Aim(figure=RATE, of="ours, 64 callers", over=("faststream-outbox, 16 callers",), at_least=10),),
    notes=("Peers have calls that take many events at once; they are for callers that have many at once.",),
)

"""What hedging is there for, in virtual time: "The Tail at Scale", and what it costs others under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from faultproof.primitives.hedging import HedgePolicy
from tests.patterns.hedged_request.tails import LEAVES, WORKERS, at, loaded, root

P50, P99, P999, MORE = "p50", "p99", "p99.9", "more calls"
_FIGURES = tuple(Figure(name=name, unit="ms", better="less") for name in (P50, P99, P999))
QUESTIONS, REQUESTS = 2_500, 40_000
ROOM = WORKERS * 3 // 4
"""Requests in flight beyond which none is hedged."""


def _quantiles(times: list[float]) -> dict[str, float]:
    return {P50: at(0.5, times), P99: at(0.99, times), P999: at(0.999, times)}


def _leaves(place: Place, seed: int, *, hedge: HedgePolicy | None) -> dict[str, float]:
    questions = place.size(QUESTIONS, 20)
    times, calls = root(hedge, questions=questions, seed=seed)
    # The delay is learnt from the first ones.
    return {**_quantiles(times[questions // 5 :]), MORE: 100 * (calls / questions / len(LEAVES) - 1)}


def _workers(place: Place, seed: int, *, load: float, is_hedged: bool) -> dict[str, float]:
    requests = place.size(REQUESTS, 200)
    return _quantiles(loaded(load, room=ROOM, is_hedged=is_hedged, requests=requests, seed=seed))


@asynccontextmanager
async def simulated(place: Place, *, play: Callable[[Place, int], dict[str, float]]) -> AsyncIterator[Ready]:
    """Each round with arrivals and service times of its own, which are the same for all contestants."""
    seeds = count(1)

    async def measure() -> dict[str, float]:
        # It has an event loop of its own, with a time of its own.
        return await asyncio.to_thread(play, place, next(seeds))

    yield Ready(measure=measure, settings={"time": "virtual"})


def _contestant(name: str, configured: str, play: Callable[[Place, int], dict[str, float]]) -> Contestant:
    return Contestant(name=name, side="ours", configured=configured, open=partial(simulated, play=play))


TAIL = Benchmark(
    name="tail",
    engine="none",
    measures=(
        "Milliseconds, in virtual time, of a root that asks a hundred leaves and waits for all. A leaf takes 7 to 13 ms, and "
        "one call in a thousand a second. Beside them, by how many percent more calls were made of leaves."
    ),
    figures=(*_FIGURES, Figure(name=MORE, unit="%", better="less")),
    contestants=(
        _contestant(
            "hedged",
            "ScatterGather, HedgePolicy(quantile=0.99), a budget of 2 %",
            partial(_leaves, hedge=HedgePolicy(quantile=0.99)),
        ),
        _contestant("not hedged", "ScatterGather", partial(_leaves, hedge=None)),
    ),
    aims=(
        Aim(figure=P999, of="hedged", over=("not hedged",), at_most=0.1),
        Aim(figure=MORE, of="hedged", at_most=2),
    ),
    rounds=3,
    notes=("Dean and Barroso, The Tail at Scale (2013), is the setting. A fifth of the questions teaches the delay.",),
)

LOADS = (0.5, 0.7, 0.8, 0.9, 0.95)


def _names(load: float) -> tuple[str, str]:
    return f"{load:.0%}, hedged", f"{load:.0%}"


LOAD = Benchmark(
    name="tail-load",
    engine="none",
    measures=(
        "Milliseconds, in virtual time, of requests to 16 workers behind one queue, by how busy requests without hedges keep "
        "them. Most take 10 ms, one in fifty 50 to 150 ms. A loser that was cancelled goes on all the same."
    ),
    figures=_FIGURES,
    contestants=tuple(
        _contestant(
            name,
            f"HedgedRequest, room={ROOM}" if is_hedged else "one request each",
            partial(_workers, load=load, is_hedged=is_hedged),
        )
        for load in LOADS
        for name, is_hedged in zip(_names(load), (True, False), strict=True)
    ),
    aims=tuple(
        Aim(figure=figure, of=_names(0.95)[0], over=(_names(0.95)[1],), at_most=1.02) for figure in (P50, P99, P999)
    ),
    rounds=3,
    notes=(
        "Both have the same arrivals and the same service times in a round, so that what differs is hedging. Up to 2 % is "
        "noise: one hedge more or less moves who is next in the queue.",
    ),
)

"""Contestants that behave as no real one should, for the tests of what runs them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.model import Benchmark, Contestant, Figure, Place, Ready


@asynccontextmanager
async def well_behaved(place: Place) -> AsyncIterator[Ready]:
    """Writes down when it is asked; prints between the answers, as libraries do."""
    journal = Path(place.url).with_name("journal")

    async def measure() -> dict[str, float]:
        print("a library says hello", flush=True)
        with journal.open("a") as file:
            file.write(f"{Path(place.url).name}\n")
        return {"rate": 2.0}

    yield Ready(measure=measure, settings={"synchronous": "full"})


@asynccontextmanager
async def careless(place: Place) -> AsyncIterator[Ready]:
    """Twice as fast, and not as durable."""

    async def measure() -> dict[str, float]:
        return {"rate": 4.0}

    yield Ready(measure=measure, settings={"synchronous": "off"})


@asynccontextmanager
async def unready(place: Place) -> AsyncIterator[Ready]:
    """Cannot even be opened."""
    if place.url:
        raise LookupError("there is no such\ttable")
    yield Ready(measure=_nothing, settings={})


async def _nothing() -> dict[str, float]:
    return {}


@asynccontextmanager
async def failing(place: Place) -> AsyncIterator[Ready]:
    """Fails in its second round."""
    rounds = 0

    async def measure() -> dict[str, float]:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise RuntimeError("the table is gone")
        return {"rate": 1.0}

    yield Ready(measure=measure, settings={})


@asynccontextmanager
async def hanging(place: Place) -> AsyncIterator[Ready]:
    """Never answers, and has a child that would outlive it."""

    async def measure() -> dict[str, float]:
        child = await asyncio.create_subprocess_exec("sleep", "600")
        Path(place.url).with_name("pids").write_text(f"{os.getpid()} {child.pid}")
        await asyncio.Event().wait()
        return {}

    yield Ready(measure=measure, settings={})


@asynccontextmanager
async def dying(place: Place) -> AsyncIterator[Ready]:
    """Ends without a word."""

    async def measure() -> dict[str, float]:
        os._exit(1)

    yield Ready(measure=measure, settings={})


def _benchmark(name: str, *opens: str, timeout: float = 60) -> Benchmark:
    return Benchmark(
        name=name,
        engine="sqlite",
        measures="Nothing.",
        figures=(Figure(name="rate", unit="things/s"),),
        compared="rate",
        contestants=tuple(
            Contestant(name=each, side="ours", configured="not at all", open=partial(globals()[each.split("-")[0]]))
            for each in opens
        ),
        rounds=2,
        round_timeout=timeout,
        home=__name__,
    )


BENCHMARKS = {
    each.name: each
    for each in (
        _benchmark("turns", "well_behaved-0", "well_behaved-1", "well_behaved-2"),
        _benchmark("troubled", "well_behaved", "unready", "failing", "dying", "careless"),
        _benchmark("endless", "hanging", timeout=0.5),
    )
}

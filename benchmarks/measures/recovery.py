"""What a thousand calls at once do to an endpoint that comes back, and what cancels do to permits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from benchmarks.measures.policies import Stack
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.peers import resilience
from benchmarks.peers.resilience import FAILURES, PROBES, Settings

PASSED = "calls that pass"
LOST = "permits lost"
OPEN_S = 0.2
PERMITS = 10


class _Dependency:
    """Fails, or keeps who comes until it is told to let go."""

    def __init__(self) -> None:
        self.fails = False
        self.inside = 0
        self.doors = asyncio.Event()

    async def __call__(self) -> int:
        if self.fails:
            raise ConnectionError("down")
        self.inside += 1
        try:
            await self.doors.wait()
        finally:
            self.inside -= 1
        return 1


async def _settled() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def _let_in(call: resilience.Function, dependency: _Dependency, calls: int) -> int:
    """How many of so many that come at once are inside at the same time."""
    dependency.doors.clear()
    tasks = [asyncio.ensure_future(call()) for _ in range(calls)]
    await _settled()
    inside = dependency.inside
    dependency.doors.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    return inside


@asynccontextmanager
async def recovering(place: Place, *, stack: Stack) -> AsyncIterator[Ready]:
    """It fails until its breaker is open; when its time is over, all come at once."""
    calls = place.size(1_000, 50)

    async def measure() -> dict[str, float]:
        dependency = _Dependency()
        call = stack(dependency, Settings(permits=2 * calls, room=0, open_s=OPEN_S, attempts=1))
        dependency.fails = True
        for _ in range(2 * FAILURES):
            with suppress(Exception):
                await call()
        dependency.fails = False
        await asyncio.sleep(OPEN_S * 1.5)
        return {PASSED: float(await _let_in(call, dependency, calls))}

    yield Ready(measure=measure, settings={"probes": str(PROBES)})


@asynccontextmanager
async def cancelling(place: Place, *, stack: Stack) -> AsyncIterator[Ready]:
    """Calls are cancelled anywhere: before they begin, while they wait, in the moment in which they get a permit, inside."""
    cancels, crowd = place.size(100_000, 500), 50

    async def measure() -> dict[str, float]:
        draw, dependency = random.Random(7), _Dependency()  # noqa: S311
        dependency.doors.set()
        call = stack(dependency, Settings(permits=PERMITS, room=crowd, attempts=1))
        cancelled = 0
        while cancelled < cancels:
            dependency.doors.clear()
            tasks = [asyncio.ensure_future(call()) for _ in range(crowd)]
            for task in draw.sample(tasks, crowd):
                for _ in range(draw.randrange(3)):
                    await asyncio.sleep(0)
                if draw.random() < 0.1:
                    dependency.doors.set()
                cancelled += task.cancel()
            dependency.doors.set()
            await asyncio.gather(*tasks, return_exceptions=True)
        return {LOST: float(PERMITS - await _let_in(call, dependency, PERMITS))}

    yield Ready(measure=measure, settings={"permits": str(PERMITS)})


def _contestant(name: str, stack: Stack, configured: str, *, is_cancelled: bool = False) -> Contestant:
    return Contestant(
        name=name,
        side="ours" if name == "ours" else "peer",
        configured=configured,
        open=partial(cancelling if is_cancelled else recovering, stack=stack),
        packages=() if name == "ours" else (name,),
    )


RECOVERY = Benchmark(
    name="recovery",
    engine="none",
    measures=(
        "Of 1,000 calls that come at once when an open breaker may be probed, those that reach the endpoint before any of them "
        f"has ended. Configured are {PROBES} probes."
    ),
    figures=(Figure(name=PASSED, unit="calls", better="less"),),
    contestants=(
        _contestant("ours", resilience.ours, "BreakerPolicy(probes=3)"),
        _contestant("nopanic", resilience.nopanic, "half_open_max_calls=3"),
        _contestant("pyresilience", resilience.pyresilience, "success_threshold=3"),
        _contestant("hyx", resilience.hyx, "recovery_threshold=3"),
        _contestant("purgatory", resilience.purgatory, "as it comes: there is nothing to configure"),
    ),
    aims=(
        Aim(figure=PASSED, of="ours", at_most=PROBES),
        Aim(figure=PASSED, of="ours", at_least=PROBES),
    ),
    rounds=3,
)

CANCELS = Benchmark(
    name="cancels",
    engine="none",
    measures=f"Of {PERMITS} permits, those that are gone when 100,000 calls were cancelled at random moments.",
    figures=(Figure(name=LOST, unit="permits", better="less"),),
    contestants=(
        _contestant("ours", resilience.ours, "BulkheadPolicy(concurrency=10, queue=50)", is_cancelled=True),
        _contestant("nopanic", resilience.nopanic, "bulkhead(10, max_wait=1)", is_cancelled=True),
        _contestant("pyresilience", resilience.pyresilience, "max_concurrent=10, max_wait=1", is_cancelled=True),
        _contestant("hyx", resilience.hyx, "max_concurrency=10, max_capacity=60", is_cancelled=True),
    ),
    aims=(Aim(figure=LOST, of="ours", at_most=0),),
    rounds=1,
)

"""What retry, breaker, bulkhead and timeout add to a call that succeeds at once; and a hedge that is armed, and not made."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.peers import resilience
from benchmarks.peers.resilience import Function, Settings
from benchmarks.spread import p50

CALL = "a call"
BATCH, BATCHES = 250, 200
Stack = Callable[[Function, Settings], Function]


async def microseconds(call: Callable[[], Awaitable[object]], batches: int) -> float:
    """Of processor time that a call takes, the median of batches: what others do on the machine does not count."""
    found = []
    for _ in range(batches):
        began = time.process_time()
        for _ in range(BATCH):
            await call()
        found.append((time.process_time() - began) / BATCH * 1e6)
    return p50(found)


async def _at_once() -> int:
    return 1


@asynccontextmanager
async def calling(place: Place, *, stack: Stack, is_hedged: bool) -> AsyncIterator[Ready]:
    """One call after the other."""
    call = stack(_at_once, Settings(is_hedged=is_hedged))
    await call()

    async def measure() -> dict[str, float]:
        return {CALL: await microseconds(call, place.size(BATCHES, 2))}

    yield Ready(measure=measure, settings={"in": "one event loop"})


def _contestant(name: str, stack: Stack, configured: str, *, is_hedged: bool = False) -> Contestant:
    is_ours = name in ("ours", "bare")
    return Contestant(
        name=name,
        side="ours" if name == "ours" else "by hand" if name == "bare" else "peer",
        configured=configured,
        open=partial(calling, stack=stack, is_hedged=is_hedged),
        packages=() if is_ours else (name,),
    )


_SAME = "3 attempts, a breaker, 64 permits, 10 s"
BARE = _contestant("bare", resilience.bare, "the awaited call itself")
POLICIES = Benchmark(
    name="policies",
    engine="none",
    measures="Microseconds of processor time for a call that returns at once, behind retry, breaker, bulkhead and timeout.",
    figures=(Figure(name=CALL, unit="µs", better="less"),),
    compared=CALL,
    contestants=(
        _contestant("ours", resilience.ours, f"Client, one endpoint: {_SAME}; retry budget and deadline are in it"),
        _contestant("nopanic", resilience.nopanic, f"compose: {_SAME}; retry budget"),
        _contestant("pyresilience", resilience.pyresilience, f"resilient: {_SAME}"),
        _contestant("hyx", resilience.hyx, f"stacked: {_SAME}"),
        BARE,
    ),
    aims=(
        Aim(figure=CALL, of="nopanic", over=("ours",), at_least=1.8),
        Aim(figure=CALL, of="pyresilience", over=("ours",), at_least=3),
        Aim(figure=CALL, of="ours", over=("bare",), at_most=45),
    ),
    notes=(
        "The median of batches of 250 calls.",
        "Ours has a deadline for the whole call as well; it also picks the endpoint, measures it and can be hedged.",
    ),
)

HEDGED = Benchmark(
    name="policies-hedged",
    engine="none",
    measures="The same, with a hedge that is armed for half a second later and does not fire.",
    figures=(Figure(name=CALL, unit="µs", better="less"),),
    compared=CALL,
    contestants=(
        _contestant("ours", resilience.ours, f"Client: {_SAME}; hedge after 0.5 s", is_hedged=True),
        _contestant("nopanic", resilience.nopanic, f"compose: {_SAME}; hedge after 0.5 s", is_hedged=True),
        BARE,
    ),
    aims=(Aim(figure=CALL, of="nopanic", over=("ours",), at_least=1.5),),
)

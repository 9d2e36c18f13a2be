"""Where hedging is measured, in virtual time: the tail of a root with many leaves, and workers under load."""

import asyncio
import random

from faultproof.clock import Env
from faultproof.patterns.hedged_request import HedgedRequest
from faultproof.patterns.scatter_gather import GatherPolicy, ScatterGather
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.retry import RetryBudget
from faultproof.signals import Signals
from tests.patterns.hedged_request.virtual import VirtualClock, VirtualLoop, run

LEAVES = [f"leaf-{number}" for number in range(100)]
WORKERS = 16


def at(share: float, times: list[float]) -> float:
    """The time below which this share of them is."""
    return sorted(times)[int(share * len(times))]


def root(hedge: HedgePolicy | None, *, questions: int = 250, seed: int = 1) -> tuple[list[float], int]:
    """Milliseconds that a root of a hundred leaves takes for each question, and how many calls were made of leaves.

    A leaf takes 7 to 13 ms, and one call in a thousand a second (Dean and Barroso).
    """
    loop, draw, calls, times = VirtualLoop(), random.Random(seed), 0, list[float]()
    env = Env(clock=VirtualClock(loop), signals=Signals(sinks=[]))
    asking = ScatterGather(GatherPolicy(deadline=5.0, hedge=hedge), env=env, budget=RetryBudget(ratio=0.02))

    async def ask(leaf: str, attempt: int) -> str:
        nonlocal calls
        calls += 1
        await env.clock.sleep(1.0 if draw.random() < 0.001 else draw.uniform(0.007, 0.013))
        return leaf

    async def roots() -> None:
        for _ in range(questions):
            began = loop.now
            await asking.gather(LEAVES, ask)
            times.append(1_000 * (loop.now - began))

    run(loop, roots())
    return times, calls


def loaded(
    load: float, *, room: int | None, is_hedged: bool, ratio: float = 0.1, requests: int = 4_000, seed: int = 2
) -> list[float]:
    """Milliseconds that requests take of 16 workers behind one queue. Most take 10 ms, one in fifty 50 to 150; a loser that was
    cancelled goes on all the same. The first tenth is left out."""
    draw = random.Random(seed)
    times = [
        [draw.expovariate(100) if draw.random() > 0.02 else draw.uniform(0.05, 0.15) for _ in "12"]
        for _ in range(requests)
    ]
    pauses = [draw.expovariate(load * WORKERS / 0.0118) for _ in times]
    loop, took = VirtualLoop(), list[float]()
    env = Env(clock=VirtualClock(loop), signals=Signals(sinks=[]))
    policy = HedgePolicy(at_first=0.05)
    client = HedgedRequest([Endpoint("pool")], policy, room=room, env=env, budget=RetryBudget(ratio=ratio))
    workers, abandoned = asyncio.Semaphore(WORKERS), set[asyncio.Future[int]]()

    async def work(number: int, attempt: int) -> int:
        async with workers:
            await env.clock.sleep(times[number][attempt - 1])
        return number

    async def request(number: int) -> None:
        began = loop.now

        async def send(endpoint: Endpoint, attempt: int) -> int:
            working = asyncio.ensure_future(work(number, attempt))
            abandoned.add(working)
            return await asyncio.shield(working)

        await (client.call(send) if is_hedged else send(Endpoint("pool"), 1))
        took.append(1_000 * (loop.now - began))

    async def all_of_them() -> None:
        running = []
        for number, pause in enumerate(pauses):
            await env.clock.sleep(pause)
            running.append(asyncio.ensure_future(request(number)))
        await asyncio.gather(*running)
        await asyncio.gather(*abandoned)

    run(loop, all_of_them())
    return took[requests // 10 :]

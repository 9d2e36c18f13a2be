"""A process whose worker is in the middle of a step until its parent says "go"; run by `test_worker`."""

import asyncio
import sys

from faultproof.clock import Env
from faultproof.ports.database import News
from faultproof.primitives.worker import Worker
from tests.primitives.loops import Silence


class Slow:
    name = "slow"

    async def open(self) -> News:
        return Silence()

    async def step(self) -> float:
        print("working", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("worked", flush=True)
        return 60.0

    async def close(self) -> None:
        print("closed", flush=True)


asyncio.run(Worker(Env(), Slow()).run_until_signal())
print("over", flush=True)

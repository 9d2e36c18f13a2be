"""A process that takes the key "k" and then works for ever; to be killed."""

import asyncio
import sys

import faultproof as fp


async def main(path: str) -> None:
    async with fp.connect(path) as database:

        async def work() -> int:
            print("working", flush=True)
            await asyncio.get_running_loop().create_future()
            return 1

        await fp.Idempotency(database, "charge", answer=int, ttl=1.0).run("k", 1, work)


asyncio.run(main(sys.argv[1]))

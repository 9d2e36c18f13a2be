"""A server of the till in a process of its own: `python -m tests.patterns.request_response.serving url ttl [hangs]`.

Says on which port it listens. One that `hangs` does so between an effect with its answer and sending it, and says so first."""

import asyncio
import random
import socket
import sys

import uvicorn

import faultproof as fp
from tests.patterns.request_response.till import Till


def listening() -> socket.socket:
    """On a port that the kernel gives to no outgoing connection."""
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
        except OSError:
            listener.close()
        else:
            return listener


async def serve(url: str, ttl: str, *modes: str) -> None:
    db = await fp.connect(url)
    till = Till(db, fp.IdempotentOptions(ttl=float(ttl), wait=10.0))
    await till.install()

    async def hang() -> None:
        print("committed", flush=True)
        await asyncio.Event().wait()

    if "hangs" in modes:
        till.after = hang
    if "hangs before" in modes:
        till.inside = hang
    listener = listening()
    listener.listen(64)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(till.app, log_level="critical", lifespan="off", http="h11", ws="none")
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))

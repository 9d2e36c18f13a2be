"""The provider's process, for as long as a run takes; it is never killed, as it is not the shop's."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket

import msgspec

from faultproof.shop.provider import Terms

DATABASE = "provider.db"
_END_S = 10.0


@asynccontextmanager
async def provided(directory: Path, listener: socket, other: socket, *, seed: int) -> AsyncIterator[asyncio.Task[int]]:
    """A provider that answers on these sockets; a task that ends when the process does, which it should not before."""
    with (directory / "provider.log").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faultproof.shop.provider"),
            stdin=PIPE,
            stderr=errors,
            pass_fds=[listener.fileno(), other.fileno()],
            start_new_session=True,  # Ctrl-C is for the command, which ends the others in good order
        )
    assert process.stdin is not None
    terms = Terms(listener=listener.fileno(), other=other.fileno(), path=str(directory / DATABASE), seed=seed)
    process.stdin.write(msgspec.json.encode(terms) + b"\n")
    ended = asyncio.create_task(process.wait(), name="faultproof-shop-provider")
    try:
        yield ended
    finally:
        process.stdin.close()  # it ends with its input
        await asyncio.wait([ended], timeout=_END_S)
        if not ended.done():
            process.kill()
            await asyncio.wait([ended])

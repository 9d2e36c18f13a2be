"""What the outbox's tests run as processes of their own: `python -m tests.patterns.outbox.actors ROLE URL …`."""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import faultproof as fp
from faultproof.ports.database import Database, Transaction
from tests.fakes import env_of, until
from tests.patterns.outbox.shop import EVENTS, Placed, write_effect

Role = Callable[[Database, fp.Outbox, list[str]], Awaitable[None]]


async def publish(db: Database, outbox: fp.Outbox, arguments: list[str]) -> None:
    """So many events, each after the write that locks its key's row."""
    for number in range(int(arguments[0])):
        key = "abcde"[number % 5]
        async with db.transaction() as tx:
            await tx.execute("UPDATE orders SET n = n + 1 WHERE id = ?", key)
            ((n,),) = await tx.fetch("SELECT n FROM orders WHERE id = ?", key)
            await outbox.publish(Placed(key, n), key=key, tx=tx)


async def publish_timed(db: Database, outbox: fp.Outbox, arguments: list[str]) -> None:
    """One event for each line read, with the time at which its commit was answered on the next."""
    loop = asyncio.get_running_loop()
    number = 0
    while await loop.run_in_executor(None, sys.stdin.readline):
        await outbox.publish(Placed("k", number), key="k")
        print(time.monotonic_ns(), flush=True)
        number += 1


async def consume(db: Database, outbox: fp.Outbox, arguments: list[str]) -> None:
    """Sequence and consume, for the group "g", until killed; "busy" in the middle of a batch, after so many events."""
    handled = 0

    async def handler(event: fp.Event[Any], tx: Transaction) -> None:
        nonlocal handled
        await write_effect(event, tx, pid=os.getpid())
        handled += 1
        if handled == int(arguments[0]):
            print("busy", flush=True)

    options = fp.ConsumerOptions(ttl=0.3, batch=5)
    await fp.Worker(db.env, outbox.sequencer(ttl=0.3), outbox.consumer("g", handler, options)).run_until_signal()


async def die(db: Database, outbox: fp.Outbox, arguments: list[str]) -> None:
    """Like `consume`, but the event with this `n` ends the process."""
    deadly = int(arguments[0])

    async def handler(event: fp.Event[Any], tx: Transaction) -> None:
        if event.body.n == deadly:
            os._exit(9)
        await write_effect(event, tx, pid=os.getpid())

    options = fp.ConsumerOptions(ttl=0.2, batch=5, attempts=2, backoff=0.0, timeout=0.3)
    await fp.Worker(db.env, outbox.sequencer(ttl=0.2), outbox.consumer("g", handler, options)).run_until_signal()


async def sequence(db: Database, outbox: fp.Outbox, arguments: list[str]) -> None:
    """Sequence only; "leading" once it holds the leases, then every restart of its loop."""
    sequencer = outbox.sequencer(ttl=0.5)
    worker = fp.Worker(db.env, sequencer)
    task = asyncio.create_task(worker.run_until_signal())
    await until(lambda: sequencer._leases._claims)
    print("leading", flush=True)
    await task


async def idle(db: Database, outbox: fp.Outbox, arguments: list[str]) -> None:
    """All the loops with nothing to do; for each line read, the CPU seconds used so far."""

    async def handler(event: fp.Event[Any], tx: Transaction) -> None: ...

    worker = fp.Worker(db.env, outbox.sequencer(), outbox.consumer("g", handler), outbox.retention())
    task = asyncio.create_task(worker.run())
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, flush=True)
    worker.stop()
    await task


ROLES: dict[str, Role] = {role.__name__: role for role in (publish, publish_timed, consume, die, sequence, idle)}


def quick(path: object) -> str:
    """The URL of a file on which commits need not survive a power cut."""
    return f"sqlite:///{path}?synchronous=normal"


async def main() -> None:
    role, url, *arguments = sys.argv[1:]
    async with fp.connect(url, env=env_of()) as db:
        outbox = fp.Outbox(db, events=EVENTS, options=fp.OutboxOptions(partitions=4))
        await ROLES[role](db, outbox, arguments)


if __name__ == "__main__":
    asyncio.run(main())

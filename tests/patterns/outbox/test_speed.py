"""How quick it is, and how quiet: two figures that the README gives, measured between real processes."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.ports.database import Database, Transaction
from tests.fakes import env_of, within
from tests.files import Connect
from tests.patterns.outbox.shop import EVENTS
from tests.processes import running as process

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

ACTORS = "tests.patterns.outbox.actors"
SAMPLES = 200


async def test_from_a_commit_in_one_process_to_delivery_in_another_takes_less_than_5_ms(
    connect: Connect, outbox: fp.Outbox, path: Path
) -> None:
    """The median of 200 commits with `synchronous=full`, and the best of up to eight such rounds: the machine may be busy."""
    db = await connect(env_of(), synchronous="full")
    delivering = fp.Outbox(db, events=EVENTS, options=fp.OutboxOptions(partitions=4))
    delivered: asyncio.Queue[int] = asyncio.Queue()

    async def handler(event: fp.Event[Any], tx: Transaction) -> None:
        delivered.put_nowait(time.monotonic_ns())

    worker = fp.Worker(db.env, delivering.sequencer(), delivering.consumer("g", handler))
    running = asyncio.create_task(worker.run())
    medians_ms = []
    try:
        async with process(ACTORS, "publish_timed", f"sqlite:///{path}?synchronous=full") as child:
            for _ in range(8):
                waits_ns = []
                for _ in range(SAMPLES):
                    await child.tell("publish")
                    committed_ns = int(await child.line())
                    waits_ns.append(await within(delivered.get()) - committed_ns)
                medians_ms.append(statistics.median(waits_ns) / 1e6)
                if medians_ms[-1] < 5.0:
                    break
    finally:
        worker.stop()
        await within(running)
    assert min(medians_ms) < 5.0, medians_ms
    assert all(health.restarts == 0 for health in worker.health())


async def test_idle_workers_use_less_than_one_percent_of_a_core(db: Database, outbox: fp.Outbox, path: Path) -> None:
    """Sequencer, consumer and retention in one process, with nothing to do; the best of up to eight rounds of four seconds."""
    shares = []
    async with process(ACTORS, "idle", f"sqlite:///{path}") as child:

        async def cpu_s() -> float:
            await child.tell("how much?")
            return float(await child.line())

        await cpu_s()
        await asyncio.sleep(1.0)  # sleeps: it has started, and its caches are warm: what is measured is rest
        for _ in range(8):
            used_s, at = await cpu_s(), time.monotonic()
            await asyncio.sleep(4.0)  # sleeps: what is measured is rest
            shares.append((await cpu_s() - used_s) / (time.monotonic() - at))
            if shares[-1] < 0.01:
                break
        await child.tell("again")
    assert min(shares) < 0.01, shares

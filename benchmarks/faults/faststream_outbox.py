"""faststream-outbox 0.19 with one subscriber, as it comes: ten rows a fetch, a lease of 60 s."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.faults.model import Contender, Job

_QUEUE = "jobs"
_CHUNK = 500
_POOL = 5


async def _install(url: str) -> None:
    from benchmarks.model import Place
    from benchmarks.peers.faststream_outbox import outbox

    async with outbox(Place(url=url, quick=False), pool=1):
        pass


async def _enqueue(url: str, numbers: Sequence[int]) -> None:
    from faststream_outbox import OutboxBroker

    from benchmarks.model import Place
    from benchmarks.peers.faststream_outbox import outbox

    async with outbox(Place(url=url, quick=False), pool=1) as (engine, table):
        broker = OutboxBroker(engine, outbox_table=table, logger=None)
        async with engine.begin() as connection:
            for start in range(0, len(numbers), _CHUNK):
                bodies = [{"number": number} for number in numbers[start : start + _CHUNK]]
                await broker.publish_batch(*bodies, queue=_QUEUE, session=connection)


async def _work(url: str, job: Job, **options: Any) -> None:
    from faststream_outbox import OutboxBroker

    from benchmarks.model import Place
    from benchmarks.peers.faststream_outbox import outbox

    async with outbox(Place(url=url, quick=False), pool=_POOL) as (engine, table):
        broker = OutboxBroker(engine, outbox_table=table, logger=None)

        @broker.subscriber(_QUEUE, **options)
        async def handle(body: dict[str, Any]) -> None:
            job(body["number"])

        await broker.start()
        await asyncio.Event().wait()


_PLAIN = Contender(
    name="faststream-outbox",
    package="faststream-outbox",
    modules=("faststream_outbox", "sqlalchemy.dialects.postgresql.asyncpg"),
    claims=(
        "A row is deleted only when its handler has succeeded: if the worker dies before that, the lease runs out "
        "and another worker claims the row. A stale holder's writes are refused by token. Handlers must be idempotent."
    ),
    source='docs/introduction/how-it-works.md, "At-least-once delivery", of modern-python/faststream-outbox',
    configured="as it comes: max_workers=1, fetch_batch_size=10, lease_ttl_seconds=60; asyncpg",
    back_s=70.0,
    patience_s=170.0,
    unfinished="SELECT count(*) FROM outbox",
    install=_install,
    enqueue=_enqueue,
    work=_work,
)
CONTENDERS = (
    _PLAIN,
    replace(
        _PLAIN,
        name="faststream-outbox-one",
        configured="fetch_batch_size=1, so that no row waits behind others; otherwise as it comes",
        source=f"{_PLAIN.source}; the note on queue depth in docs/usage/subscriber.md",
        work=partial(_work, fetch_batch_size=1),
    ),
)

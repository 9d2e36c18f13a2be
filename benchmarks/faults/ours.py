"""Our outbox, as it comes: with effects in the consumer's transaction, and with effects elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import msgspec

import faultproof as fp
from benchmarks.faults.model import KEYS, Contender, Job
from faultproof.ports.database import Database, Transaction

_CHUNK = 500


class Asked(msgspec.Struct, frozen=True):
    """A job was asked for."""

    number: int


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[tuple[Database, fp.Outbox]]:
    async with fp.connect(url) as db:
        yield db, fp.Outbox(db, events={"asked": Asked})


async def _install(url: str) -> None:
    async with _opened(url) as (_, outbox):
        await outbox.install()


async def _enqueue(url: str, numbers: Sequence[int]) -> None:
    async with _opened(url) as (db, outbox):
        async with db.transaction() as tx:
            for number in numbers:
                await outbox.publish(Asked(number), key=f"key-{number % KEYS}", tx=tx)


async def _work(url: str, job: Job, *, inside: bool, options: fp.ConsumerOptions | None = None) -> None:
    async with _opened(url) as (db, outbox):

        async def effect_inside(event: fp.Event[Asked], tx: Transaction) -> None:
            number = event.body.number
            await tx.execute("INSERT INTO effect (job, process, life) VALUES (%s, %s, 0)", number, job.process)
            job.strike(number)

        async def effect_outside(event: fp.Event[Asked]) -> None:
            job(event.body.number)

        deliver = (
            outbox.consumer("jobs", effect_inside, options) if inside else outbox.relay("jobs", effect_outside, options)
        )
        await fp.Worker(db.env, outbox.sequencer(), deliver).run()


_UNFINISHED = """
    SELECT (SELECT count(*) FROM faultproof_intake) + (SELECT count(*) FROM faultproof_parked)
      + coalesce((SELECT sum(p.next_offset - coalesce(i.next_offset, 0)) FROM faultproof_log_partition p
          LEFT JOIN faultproof_inbox i ON i.log = p.log AND i."partition" = p."partition"), 0)"""
_INBOX = Contender(
    name="faultproof-inbox",
    package="faultproof",
    modules=("psycopg_pool",),
    claims="What a consumer's handler writes through the transaction it is given is there once; in order per key.",
    source='src/faultproof/patterns/outbox/README.md, "Promise"',
    configured="as it comes: batch=100, ttl=5 s, timeout=30 s for a handler",
    promise="once",
    in_order=True,
    back_s=10.0,
    patience_s=60.0,
    unfinished=_UNFINISHED,
    install=_install,
    enqueue=_enqueue,
    work=partial(_work, inside=True),
)
CONTENDERS = (
    _INBOX,
    replace(
        _INBOX,
        name="faultproof-inbox-timeout",
        configured="timeout=5 s for a handler instead of 30; otherwise as it comes",
        work=partial(_work, inside=True, options=fp.ConsumerOptions(timeout=5.0)),
    ),
    Contender(
        name="faultproof-relay",
        package="faultproof",
        modules=("psycopg_pool",),
        claims="What a relay's sink does elsewhere is done at least once, in order per key; it may be repeated after a crash.",
        source=_INBOX.source,
        configured=_INBOX.configured,
        in_order=True,
        back_s=10.0,
        patience_s=60.0,
        unfinished=_UNFINISHED,
        install=_install,
        enqueue=_enqueue,
        work=partial(_work, inside=False),
    ),
)

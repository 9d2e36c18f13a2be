"""Queues that are broken on purpose: a harness that does not catch these shows nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from benchmarks.faults.model import Contender, Job

_POLL_S = 0.05
_LEASE_S = 1.0

_TAKE = """
    UPDATE queue SET until = clock_timestamp() + make_interval(secs => 1) WHERE job = (
      SELECT job FROM queue WHERE until IS NULL OR until < clock_timestamp() ORDER BY job LIMIT 1
      FOR UPDATE SKIP LOCKED) RETURNING job"""
_TAKE_FOR_EVER = """
    UPDATE queue SET until = 'infinity' WHERE job = (
      SELECT job FROM queue WHERE until IS NULL ORDER BY job LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING job"""


async def _install(url: str) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as raw:
        await raw.execute("CREATE TABLE queue (job INTEGER PRIMARY KEY, until TIMESTAMPTZ)")


async def _enqueue(url: str, numbers: Sequence[int]) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as raw:
        await raw.execute("INSERT INTO queue SELECT unnest(%s::int[])", (list(numbers),))


async def _work(url: str, job: Job, *, broken: Literal["", "early", "for ever"]) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as raw:
        while True:
            taken = await (await raw.execute(_TAKE_FOR_EVER if broken == "for ever" else _TAKE)).fetchone()
            if taken is None:
                await asyncio.sleep(_POLL_S)
                continue
            if broken == "early":
                await raw.execute("DELETE FROM queue WHERE job = %s", taken)
                job.strike(taken[0])
            job(taken[0])
            await raw.execute("DELETE FROM queue WHERE job = %s", taken)


SOUND = Contender(
    name="by-hand",
    package="psycopg",
    modules=("psycopg",),
    claims="A row is deleted behind its effect, and claimed again when its lease of a second has run out.",
    source="this module",
    configured="one job at a time",
    back_s=_LEASE_S,
    patience_s=10.0,
    unfinished="SELECT count(*) FROM queue",
    install=_install,
    enqueue=_enqueue,
    work=partial(_work, broken=""),
)
_BROKEN = replace(SOUND, patience_s=1.5)
CONTENDERS = (
    SOUND,
    replace(
        _BROKEN, name="planted-early", claims="It acknowledges before its effect.", work=partial(_work, broken="early")
    ),
    replace(_BROKEN, name="planted-for-ever", claims="Nobody takes over.", work=partial(_work, broken="for ever")),
    replace(SOUND, name="planted-once", claims="It says that effects are not repeated.", promise="once"),
)

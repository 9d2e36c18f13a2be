"""procrastinate 3.10: as it comes, and with the periodic task that its documentation gives for workers that were killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.faults.model import KEYS, Contender, Job

_POOL = 4
_QUEUE = "jobs"
_EVERY_MINUTE = "* * * * *"
"""The documentation's example runs every ten minutes; this only shortens the measurement."""


def _app(url: str) -> Any:
    import procrastinate

    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=_POOL))


async def _install(url: str) -> None:
    async with _app(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def _enqueue(url: str, numbers: Sequence[int], *, locks: bool) -> None:
    app = _app(url)
    async with app.open_async():
        for number in numbers:
            lock = f"key-{number % KEYS}" if locks else None
            await app.configure_task("handle", queue=_QUEUE, lock=lock).defer_async(number=number)


async def _work(url: str, job: Job, *, retries: bool) -> None:
    app = _app(url)

    @app.task(queue=_QUEUE, name="handle")
    async def handle(number: int) -> None:
        job(number)

    if retries:

        @app.periodic(cron=_EVERY_MINUTE)
        @app.task(queueing_lock="retry_stalled_jobs", pass_context=True, name="retry_stalled_jobs")
        async def retry_stalled_jobs(context: Any, timestamp: int) -> None:
            for stalled in await app.job_manager.get_stalled_jobs():
                await app.job_manager.retry_job(stalled)

    async with app.open_async():
        await app.run_worker_async()


_PLAIN = Contender(
    name="procrastinate",
    package="procrastinate",
    modules=("procrastinate", "psycopg_pool"),
    claims=(
        "A worker that is killed with SIGKILL may leave jobs in the state `doing`; unless something is done about it, they "
        "stay there for ever. Heartbeats tell which ones, and a periodic task of one's own can retry them."
    ),
    source="docs/howto/production/retry_stalled_jobs.md of procrastinate-org/procrastinate",
    promise="left to be found",
    configured="as it comes: concurrency=1, heartbeat every 10 s, stalled after 30 s; nothing retries stalled jobs",
    back_s=30.0,
    patience_s=120.0,
    unfinished="SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'handle' AND status IN ('todo', 'doing')",
    install=_install,
    enqueue=partial(_enqueue, locks=False),
    work=partial(_work, retries=False),
)
_RETRYING = replace(
    _PLAIN,
    name="procrastinate-retrying",
    promise="at least once",
    claims="With the documented task `retry_stalled_jobs`, the remaining workers run what a killed one left.",
    configured="its documented periodic task `retry_stalled_jobs`, every minute instead of every ten; otherwise as it comes",
    back_s=100.0,
    patience_s=230.0,
    work=partial(_work, retries=True),
)
CONTENDERS = (
    _PLAIN,
    _RETRYING,
    replace(
        _RETRYING,
        name="procrastinate-locks",
        claims=f"{_RETRYING.claims} Jobs with one `lock` start in the order in which they were deferred, one at a time.",
        source=f'{_RETRYING.source}; docs/discussions.md, "About locks"',
        configured=f"{_RETRYING.configured}; jobs of a key have it for their `lock`",
        in_order=True,
        enqueue=partial(_enqueue, locks=True),
    ),
)

"""DBOS Transact 3.4: a workflow of one step for each job, from a queue; each worker has an executor id of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from benchmarks.faults.model import Contender, Job

_QUEUE = "jobs"
_AT_ONCE = 10
_VERSION = "1"
"""Or DBOS computes it from the workflows' source; a restart must find it unchanged."""


def _url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


async def _install(url: str) -> None:
    from dbos import DBOS

    await asyncio.to_thread(DBOS.migrate, _url(url))


async def _enqueue(url: str, numbers: Sequence[int]) -> None:
    from dbos import DBOSClient, EnqueueOptions

    client = DBOSClient(system_database_url=_url(url))
    try:
        for number in numbers:
            options = EnqueueOptions(queue_name=_QUEUE, workflow_name="handle", workflow_id=f"job-{number}")
            await client.enqueue_async(options, number)
    finally:
        client.destroy()


async def _work(url: str, job: Job) -> None:
    from dbos import DBOS, DBOSConfig

    config: DBOSConfig = {
        "name": "jobs",
        "system_database_url": _url(url),
        "executor_id": job.process,
        "application_version": _VERSION,
        "log_level": "ERROR",
        "console_log_level": "ERROR",
    }
    DBOS(config=config)

    @DBOS.step()
    async def effect(number: int) -> None:
        job(number)

    @DBOS.workflow(name="handle")
    async def handle(number: int) -> None:
        await effect(number)

    def launch() -> Any:
        DBOS.launch()
        return DBOS.register_queue(_QUEUE, worker_concurrency=_AT_ONCE)

    await asyncio.to_thread(launch)
    await asyncio.Event().wait()


CONTENDERS = (
    Contender(
        name="dbos",
        package="dbos",
        modules=("dbos", "sqlalchemy.dialects.postgresql.psycopg"),
        claims=(
            "A workflow runs to completion: an executor that is started again resumes its own from their last completed step. "
            "Steps run at least once, and not again once their completion is recorded. An executor that does not come "
            "back is recovered by Conductor, or by asking another one to."
        ),
        source="docs.dbos.dev/production/workflow-recovery and docs.dbos.dev/explanations/concurrent-executions",
        configured="a queue with worker_concurrency=10; an executor_id for each worker, as it says for several; otherwise as"
        " it comes, without Conductor",
        back_s=10.0,
        patience_s=90.0,
        unfinished="SELECT count(*) FROM dbos.workflow_status WHERE status NOT IN ('SUCCESS')",
        install=_install,
        enqueue=_enqueue,
        work=_work,
    ),
)

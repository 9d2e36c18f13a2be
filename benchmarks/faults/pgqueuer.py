"""PgQueuer 1.6 with one entrypoint, as its command line runs it: batches of ten, a heartbeat that is stale after 30 s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.faults.model import Contender, Job

_ENTRYPOINT = "handle"
_CHUNK = 500


async def _install(url: str) -> None:
    from pgqueuer.queries import Queries

    from benchmarks.peers.pgqueuer import connected

    async with connected(url) as connection:
        await Queries.from_asyncpg_connection(connection).install()


async def _enqueue(url: str, numbers: Sequence[int]) -> None:
    from pgqueuer.queries import Queries

    from benchmarks.peers.pgqueuer import connected

    async with connected(url) as connection:
        queries = Queries.from_asyncpg_connection(connection)
        async with connection.transaction():
            for start in range(0, len(numbers), _CHUNK):
                some = numbers[start : start + _CHUNK]
                payloads: list[bytes | None] = [str(number).encode() for number in some]
                await queries.enqueue([_ENTRYPOINT] * len(some), payloads, [0] * len(some))


async def _work(url: str, job: Job, **options: Any) -> None:
    from pgqueuer import PgQueuer

    from benchmarks.peers.pgqueuer import connected

    async with connected(url) as connection:
        worker = PgQueuer.from_asyncpg_connection(connection)

        @worker.entrypoint(_ENTRYPOINT)
        async def handle(given: Any) -> None:
            job(int(given.payload))

        await worker.run(**options)


_PLAIN = Contender(
    name="pgqueuer",
    package="pgqueuer",
    modules=("pgqueuer", "pgqueuer.queries", "asyncpg"),
    claims=(
        "A job may run more than once and is not lost to a worker's crash: one whose heartbeat is older than the "
        "timeout is claimed again by any worker. Entrypoints must be idempotent."
    ),
    source="docs/adr/ADR-0004-delivery-is-at-least-once.md, ADR-0005 and docs/guides/heartbeat.md of janbjorge/pgqueuer",
    configured="as it comes: batch_size=10, heartbeat_timeout=30 s, dequeue_timeout=30 s",
    back_s=60.0,
    patience_s=150.0,
    unfinished="SELECT count(*) FROM pgqueuer",
    install=_install,
    enqueue=_enqueue,
    work=_work,
)
CONTENDERS = (
    _PLAIN,
    replace(
        _PLAIN,
        name="pgqueuer-one",
        configured="batch_size=1, so that nothing is acknowledged together; otherwise as it comes",
        work=partial(_work, batch_size=1),
    ),
)

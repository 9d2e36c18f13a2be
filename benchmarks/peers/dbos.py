"""DBOS Transact 3.4: durable workflows in a library; steps are recorded, compensation is the user's own code.

Its documentation: docs.dbos.dev/python/reference/configuration (`sys_db_pool_size`, `system_database_url`, SQLite by
default), docs.dbos.dev/python/tutorials/workflow-tutorial (`start_workflow_async`, `get_result` by handle). Async
workflows and steps run on the caller's event loop. Its four writes for a workflow of two steps: the status when it starts,
the output of each step, the status when it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from benchmarks.load import by_callers
from benchmarks.model import Contestant, Place, Ready
from benchmarks.settings import postgres_settings, sqlite_settings

PACKAGES = ("dbos", "SQLAlchemy", "psycopg")
POOL = 20
"""Its default, and ours is given as many."""
RATE = "sagas"
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""There is one DBOS in a process: contestants that share a process (in tests) take turns."""


@asynccontextmanager
async def running(place: Place, *, callers: int, each: int) -> AsyncIterator[Ready]:
    """Workflows of two steps that return at once; `callers` wait for one each."""
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        async with _launched(place, callers=callers, each=each) as ready:
            yield ready


@asynccontextmanager
async def _launched(place: Place, *, callers: int, each: int) -> AsyncIterator[Ready]:
    from dbos import DBOS

    is_postgres = place.url.startswith("postgresql")
    url = place.url.replace("postgresql://", "postgresql+psycopg://", 1) if is_postgres else f"sqlite:///{place.url}"
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "sys_db_pool_size": POOL,
            "log_level": "ERROR",
            "console_log_level": "ERROR",
        }
    )

    @DBOS.step()
    async def charge(number: int) -> int:
        return number

    @DBOS.step()
    async def ship(number: int) -> int:
        return number

    @DBOS.workflow()
    async def fulfil(number: int) -> int:
        return await ship(await charge(number))

    DBOS.launch()

    async def one() -> None:
        handle = await DBOS.start_workflow_async(fulfil, 7)
        await handle.get_result()

    async def measure() -> dict[str, float]:
        return {RATE: await by_callers(callers, place.size(each, 2), one)}

    try:
        yield Ready(measure=measure, settings=await _settings(is_postgres))
    finally:
        DBOS.destroy(destroy_registry=True)


async def _settings(is_postgres: bool) -> dict[str, str]:
    """Durability in effect on one of its own connections."""
    from dbos._dbos import _get_dbos_instance
    from sqlalchemy import text

    with _get_dbos_instance()._sys_db.engine.connect() as connection:

        async def ask(query: str) -> Sequence[Sequence[Any]]:
            return [tuple(row) for row in connection.execute(text(query)).all()]

        return await (postgres_settings if is_postgres else sqlite_settings)(ask)


def contestants(each: int, lone: int) -> tuple[Contestant, ...]:
    """Many at once, and one after the other."""
    return tuple(
        Contestant(
            name=f"dbos, {callers} at once",
            side="peer",
            configured=f"async workflows and steps, sys_db_pool_size={POOL}, log level ERROR",
            open=partial(running, callers=callers, each=count),
            packages=PACKAGES,
        )
        for callers, count in ((64, each), (1, lone))
    )

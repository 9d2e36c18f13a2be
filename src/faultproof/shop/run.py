"""One run of the shop: take all orders under fire, let the consumers catch up, end every process, audit."""

from __future__ import annotations

import asyncio
import math
import socket
import sqlite3
import time
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from faultproof.connect import connect
from faultproof.errors import Busy, InvalidInput, Repair
from faultproof.patterns.outbox import Outbox
from faultproof.ports.database import Database
from faultproof.shop import sql
from faultproof.shop.audit import Audit, audit
from faultproof.shop.baskets import Basket
from faultproof.shop.customers import Customers, Progress, Unanswered
from faultproof.shop.effects import GROUPS
from faultproof.shop.journal import Journal, read_journal
from faultproof.shop.messages import Command, Fleet
from faultproof.shop.options import ShopOptions
from faultproof.shop.orders import answers, outbox
from faultproof.shop.processes import Processes, listen, started

T = TypeVar("T")

_STUCK_S = 20.0
"""Consumers that have not come closer to the end for this long will not."""
_LAST_KILLS_S = 5.0
_LOOK_S = 0.1


@dataclass
class Status:
    """What a display shows of a run under way."""

    began: float = field(default_factory=time.monotonic)
    progress: Progress = field(default_factory=lambda: Progress(0))
    processes: Processes | None = None
    lag: int = 0
    """Events that some group has not settled yet."""


class Outcome(NamedTuple):
    """A run that came to its end."""

    audit: Audit
    unfinished: str | None
    """Why the run did not get to the end of its work; None if it did."""
    processes: Processes
    progress: Progress
    database: str
    durability: str
    orders_s: float
    """From the first order to the last answer."""
    seconds: float
    """The whole run, its audit included."""


async def run(options: ShopOptions, baskets: Sequence[Basket], directory: Path, status: Status) -> Outcome:
    """Run the shop. Raises what keeps it from being run at all, a `Repair` error met under way, and `ProcessDied`."""
    journal = directory / "journal"
    async with connect(options.url) as database:
        shop = await _opened(database, options.url)
        path, durability = await _path(database), database.durability
        try:
            unfinished, orders_s = await _under_fire(options, baskets, database, shop, directory, status)
        except Repair as error:
            raise Repair(f"{error}; {await asyncio.to_thread(_assurance, path, journal)}") from error
    audited = await asyncio.to_thread(audited_files, path, journal)
    assert status.processes is not None
    return Outcome(
        audited,
        unfinished,
        status.processes,
        status.progress,
        path,
        durability,
        orders_s,
        time.monotonic() - status.began,
    )


async def _under_fire(
    options: ShopOptions, baskets: Sequence[Basket], database: Database, shop: Outbox, directory: Path, status: Status
) -> tuple[str | None, float]:
    """Take all orders and let the consumers catch up: why that was not finished, and seconds until the last answer."""
    with ExitStack() as open_here:
        listeners = [open_here.enter_context(listener) for listener in listen(options.workers)]
        if len(listeners) < options.workers:
            raise InvalidInput(f"only {len(listeners)} ports are free on 127.0.0.1 for {options.workers} API processes")
        ports = [listener.getsockname()[1] for listener in listeners]
        journal = Journal(directory / "journal", database.env)
        customers = Customers(database.env, ports, baskets, journal, seed=options.seed, count=options.clients)
        status.progress = customers.progress
        async with started(_fleet(options, directory, listeners), listeners) as processes:
            status.processes = processes
            looking = asyncio.create_task(_looking(shop, status))
            began = time.monotonic()
            try:
                unfinished = await _load(customers, journal, processes)
                orders_s = time.monotonic() - began
                if unfinished is None:
                    await _until(_last_kills(options, shop, status), processes)
                    await processes.say(Command("spare"))
                    unfinished = await _until(_drained(shop, status), processes)
            finally:
                looking.cancel()
    return unfinished, orders_s


async def _opened(database: Database, url: str) -> Outbox:
    """The tables, made if they are missing, and empty of earlier runs."""
    shop = outbox(database)
    await database.install(sql.SCHEMA)
    await shop.install()
    await answers(database).install()
    for group in GROUPS:
        await shop.consumer(group, GROUPS[group]).open()
    if await database.read(sql.rows()):
        raise InvalidInput(
            f"{url} holds orders of an earlier run, and an audit must know them all: name a new database"
        )
    return shop


async def _path(database: Database) -> str:
    """The database's file, for the audit's own connection."""
    async with database.transaction() as tx:
        return str((await tx.fetch("PRAGMA database_list"))[0][2])


def _fleet(options: ShopOptions, directory: Path, listeners: Sequence[socket.socket]) -> Fleet:
    return Fleet(
        url=options.url,
        directory=str(directory),
        listeners=[listener.fileno() for listener in listeners],
        sequencers=options.sequencers,
        consumers=options.consumers,
        ttl=options.ttl,
        seed=options.seed,
        kill_every=options.kill_every,
        planted=options.planted,
        target=options.target,
    )


async def _load(customers: Customers, journal: Journal, processes: Processes) -> str | None:
    """Take all orders, with kills from the first of them on."""
    await processes.say(Command("kill"))
    try:
        await _until(customers.run(), processes)
    except ExceptionGroup as group:
        return _unanswered(group)
    finally:
        await journal.close()
    return None


def _unanswered(group: ExceptionGroup[Exception]) -> str:
    """The sentence of a customer that got no answer. Raises what else went wrong."""
    first = group.exceptions[0]
    if not isinstance(first, Unanswered):
        raise first
    if first.said is not None:  # the shop said why it cannot take the order, and that is not a matter of crashes
        raise Busy(first.said)
    return str(first)


async def _last_kills(options: ShopOptions, shop: Outbox, status: Status) -> None:
    """A short run may have taken its last order before it was the consumers' turn: then the kills go on for a while."""
    assert status.processes is not None
    deadline = time.monotonic() + _LAST_KILLS_S
    while options.kill_every and status.processes.missing(options.target) and time.monotonic() < deadline:
        await _look(shop, status)
        if not status.lag:
            return
        await asyncio.sleep(_LOOK_S)


async def _drained(shop: Outbox, status: Status) -> str | None:
    """Wait until every group has settled every event; if that does not come closer any more, say so."""
    least, since = math.inf, time.monotonic()
    await _look(shop, status)
    while status.lag:
        if status.lag < least:
            least, since = status.lag, time.monotonic()
        if time.monotonic() - since > _STUCK_S:
            return f"{status.lag} events were not settled, and got no fewer for {_STUCK_S:.0f} s"
        await asyncio.sleep(_LOOK_S)
        await _look(shop, status)
    return None


async def _looking(shop: Outbox, status: Status) -> None:
    while True:
        await _look(shop, status)
        await asyncio.sleep(0.5)


async def _look(shop: Outbox, status: Status) -> None:
    lag = await shop.lag()
    status.lag = max((lag.events + group.events + group.parked for group in lag.groups), default=0)


async def _until(work: Coroutine[Any, Any, T], processes: Processes) -> T:
    """The result of the work, unless a process ends by itself or needs repair before."""
    task = asyncio.ensure_future(work)
    first: set[asyncio.Future[Any]] = {task, processes.failure}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            processes.failure.result()
        return await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def audited_files(database: str, journal: Path) -> Audit:
    """The audit of a database file and a journal, on a connection that cannot write."""
    with closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True, isolation_level=None)) as connection:
        return audit(connection, read_journal(journal))


def _assurance(database: str, journal: Path) -> str:
    """After a run that had to be given up: whether what was answered is there."""
    try:
        audited = audited_files(database, journal)
    except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
        return f"the {database} that is left could not be audited ({error})"
    lost = next(check for check in audited.checks if check.name == "lost_orders")
    if lost.violations:
        return f"{lost.violations} of {audited.accepted} answered orders are not in it"
    return f"all {audited.accepted} orders that were answered are in it"

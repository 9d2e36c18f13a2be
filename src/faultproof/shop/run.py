"""One run of the shop: take all orders under fire, let the consumers catch up, end every process, audit."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from faultproof.connect import connect
from faultproof.errors import Busy, Repair, TryAgain
from faultproof.ports.database import Database
from faultproof.shop import sql
from faultproof.shop.audit import Audited, audit
from faultproof.shop.baskets import Basket
from faultproof.shop.beside import sidecar
from faultproof.shop.customers import Customers, Progress, Unanswered
from faultproof.shop.fulfilment import NAME
from faultproof.shop.journal import Journal, read_journal
from faultproof.shop.making import Shop, fleet, listeners, opened
from faultproof.shop.messages import Command
from faultproof.shop.options import ShopOptions
from faultproof.shop.processes import Processes, started
from faultproof.shop.providing import DATABASE, provided
from faultproof.shop.stores import Store
from faultproof.shop.timeline import Sample, Timeline

T = TypeVar("T")

_STUCK_S = 20.0
"""Consumers that have not come closer to the end for this long will not."""
_FEW = 100
"""Kills that are not aimed go on until so little is left to do, but no longer than the orders took: who was told that his
order is taken still waits for it. Not to the very end, where they would meet the same few again and again."""
_LAST_KILLS_S = 5.0
_LOOK_S = 0.1
_CRASHES_AT = (0.25, 0.5, 0.75)
"""Of the orders answered: when our own server is restarted."""


@dataclass
class Status:
    """What a display shows of a run under way."""

    timeline: Timeline = field(default_factory=Timeline)
    progress: Progress = field(default_factory=lambda: Progress(0))
    processes: Processes | None = None
    lag: int = 0
    """Events that some group has not settled yet."""
    sagas: int = 0
    """Orders that are neither fulfilled nor undone yet."""

    @property
    def server_restarts(self) -> int:
        """Of the shop's own server, so far."""
        return len(self.timeline.restarts)


class Outcome(NamedTuple):
    """A run that came to its end."""

    audit: Audited
    gave_up: str | None
    """Why the run did not get to the end of its work; None if it did."""
    processes: Processes
    progress: Progress
    database: str
    durability: str
    server_restarts: int
    orders_s: float
    """From the first order to the last answer."""
    seconds: float
    """The whole run, its audit included."""


async def run(options: ShopOptions, baskets: Sequence[Basket], directory: Path, status: Status) -> Outcome:
    """Run the shop. Raises what keeps it from being run at all, a `Repair` error met under way, and `ProcessDied`."""
    journal = directory / "journal"
    store = options.store
    async with connect(store.url) as database:
        name, durability = await store.name(database), database.durability
        shop = await opened(database, baskets, options.planted)
        try:
            gave_up, orders_s = await _under_fire(options, baskets, database, shop, directory, status)
        except Repair as error:
            raise Repair(
                f"{error}; {await asyncio.to_thread(_assurance, store, name, journal, directory / DATABASE)}"
            ) from error
    audited = await asyncio.to_thread(audited_tables, store, name, journal, directory / DATABASE)
    assert status.processes is not None
    return Outcome(
        audited,
        gave_up,
        status.processes,
        status.progress,
        name,
        durability,
        status.server_restarts,
        orders_s,
        status.timeline.now(),
    )


async def _under_fire(
    options: ShopOptions, baskets: Sequence[Basket], database: Database, shop: Shop, directory: Path, status: Status
) -> tuple[str | None, float]:
    """Take all orders and let the consumers catch up: why that was not finished, and seconds until the last answer."""
    with ExitStack() as open_here:
        provider, other, *doors = [open_here.enter_context(listener) for listener in listeners(options)]
        ports = [door.getsockname()[1] for door in doors]
        journal = Journal(directory / "journal", database.env)
        timeline = status.timeline
        customers = Customers(
            database.env, ports, baskets, journal, seed=options.seed, count=options.clients, timeline=timeline
        )
        status.progress = customers.progress
        async with (
            provided(directory, provider, other, seed=options.seed),
            sidecar(directory, [door.getsockname()[1] for door in (provider, other)], wanted=options.sidecar) as at,
            started(fleet(options, directory, doors, at), doors, timeline) as processes,
        ):
            status.processes = processes
            looking = asyncio.create_task(_looking(shop, status))
            crashing = asyncio.create_task(_crashing(options, status))
            began = time.monotonic()
            try:
                gave_up = await _load(customers, journal, processes)
                orders_s = time.monotonic() - began
                if gave_up is None:
                    await crashing
                    if options.target is None:
                        with suppress(TimeoutError):  # kills may let it get no further
                            async with asyncio.timeout(orders_s):
                                await _until(_drained(shop, status, but_for=_FEW), processes)
                    await _until(_last_kills(options, shop, status), processes)
                    await processes.say(Command("spare"))
                    gave_up = await _until(_drained(shop, status), processes)
            finally:
                looking.cancel()
                crashing.cancel()
                await asyncio.wait([crashing])  # a thread restarts the server, and must be through with it
    return gave_up, orders_s


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


async def _last_kills(options: ShopOptions, shop: Shop, status: Status) -> None:
    """A short run may have taken its last order before it was the consumers' turn: then the kills go on for a while."""
    assert status.processes is not None
    deadline = time.monotonic() + _LAST_KILLS_S
    while options.kill_every and status.processes.missing(options.target) and time.monotonic() < deadline:
        await _look(shop, status)
        if not status.lag and not status.sagas:
            return
        await asyncio.sleep(_LOOK_S)


async def _drained(shop: Shop, status: Status, *, but_for: int = 0) -> str | None:
    """Wait until every group has settled every event and every saga is over, but for so many of both together; if that
    comes no closer any more, say so."""
    least, since = math.inf, time.monotonic()
    await _look(shop, status)
    while (left := status.lag + status.sagas) > but_for:
        if left < least:
            least, since = left, time.monotonic()
        if time.monotonic() - since > _STUCK_S:
            return (
                f"{status.lag} events were not settled and {status.sagas} orders neither fulfilled nor undone, and they got "
                f"no fewer for {_STUCK_S:.0f} s"
            )
        await asyncio.sleep(_LOOK_S)
        await _look(shop, status)
    return None


async def _looking(shop: Shop, status: Status) -> None:
    while True:
        await _look(shop, status)
        await asyncio.sleep(0.5)


async def _crashing(options: ShopOptions, status: Status) -> None:
    """Restart our own server without a shutdown, in the midst of the orders: not beside kills that are aimed."""
    crash = options.store.crash
    if crash is None or not options.kill_every or options.target is not None:
        return
    for part in _CRASHES_AT:
        while status.progress.answered < part * status.progress.total:  # noqa: ASYNC110  # a count, not an event
            await asyncio.sleep(_LOOK_S)
        await asyncio.to_thread(crash)
        status.timeline.restarts.append(status.timeline.now())


async def _look(shop: Shop, status: Status) -> None:
    try:
        lag = await shop.outbox.lag()
        status.sagas = await shop.database.read(sql.sagas_under_way(NAME))
    except TryAgain:  # the server is being restarted
        return
    status.lag = max((lag.events + group.events + group.parked for group in lag.groups), default=0)
    status.timeline.lag.append(Sample(status.timeline.now(), status.lag))
    status.timeline.sagas.append(Sample(status.timeline.now(), status.sagas))


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


def audited_tables(store: Store, name: str, journal: Path, provider: Path) -> Audited:
    """The audit of a run's tables and its journal."""
    with store.reading(name) as ledger:
        return audit(ledger, read_journal(journal), provider)


def _assurance(store: Store, database: str, journal: Path, provider: Path) -> str:
    """After a run that had to be given up: whether what was answered is there."""
    try:
        audited = audited_tables(store, database, journal, provider)
    except Exception as error:  # whatever the driver raises: this is an addition to another error
        return f"the {database} that is left could not be audited ({error})"
    lost = next(check for check in audited.checks if check.name == "lost_orders")
    if lost.violations:
        return f"{lost.violations} of {audited.accepted} answered orders are not in it"
    return f"all {audited.accepted} orders that were answered are in it"

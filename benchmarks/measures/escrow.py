"""Reserving one hot item: ours beside the best statement by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import faultproof as fp
from benchmarks.buying import ITEM, KINDS, STOCK, Kind, Shop, bought
from benchmarks.measures.outboxes import settings
from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.peers import reserve_by_hand
from benchmarks.settings import postgres_settings, sqlite_settings
from faultproof.errors import InsufficientStock
from faultproof.ports.database import Database

TTL_S = 2.5
"""In "mixed", where a third of the holds is left to expire."""
RATES: dict[Kind, str] = {"reserve": "reserved", "half refused": "half refused", "mixed": "mixed"}
P50, P99 = "p50", "p99"
_tags = itertools.count()

Buy = Callable[[Kind, int, str], Awaitable[list[float]]]


@asynccontextmanager
async def our_shop(url: str) -> AsyncIterator[tuple[Shop, Database]]:
    """An escrow as it comes, with the loop that expires what nobody confirms."""
    async with fp.connect(url) as db:
        escrow = fp.Escrow(db)
        await escrow.install()
        await escrow.restock(ITEM, STOCK, key="delivery")

        async def reserve(key: str, quantity: int) -> bool:
            try:
                await escrow.reserve({ITEM: quantity}, key=key, ttl=TTL_S if key.startswith("mixed") else None)
            except InsufficientStock:
                return False
            return True

        async def confirm(key: str) -> bool:
            return (await escrow.confirm(key)).state == "confirmed"

        async def release(key: str) -> bool:
            return (await escrow.release(key)).state == "released"

        worker = fp.Worker(db.env, escrow.expiry())
        running = asyncio.create_task(worker.run())
        yield Shop(reserve, confirm, release), db
        worker.stop()
        await running
        await escrow.close()


by_hand_shop = reserve_by_hand.postgres


@asynccontextmanager
async def ours(place: Place, *, callers: int, processes: int, each: int) -> AsyncIterator[Ready]:
    """In this process, or in several."""
    async with AsyncExitStack() as stack:
        shop, db = await stack.enter_async_context(our_shop(place.url))
        buy = await _buyers(stack, place, shop, "ours", callers, processes)
        yield Ready(
            measure=partial(_measured, buy, place.size(each, 4), processes * callers), settings=await settings(db)
        )
        audit = await fp.Escrow(db).audit()
        assert not audit.violations, audit.violations


@asynccontextmanager
async def by_hand(place: Place, *, callers: int, processes: int, each: int, pool: int) -> AsyncIterator[Ready]:
    """The same."""
    async with AsyncExitStack() as stack:
        shop, ask = await stack.enter_async_context(by_hand_shop(place.url, pool=pool, create=True))
        buy = await _buyers(stack, place, shop, str(pool), callers, processes)
        yield Ready(
            measure=partial(_measured, buy, place.size(each, 4), processes * callers),
            settings=await postgres_settings(ask),
        )


@asynccontextmanager
async def sqlite_by_hand(place: Place, *, each: int) -> AsyncIterator[Ready]:
    """One caller in one thread."""
    async with reserve_by_hand.sqlite(place.url) as (shop, ask):

        def calls(kind: Kind, each: int, tag: str) -> list[float]:
            took = []

            def timed(call: Callable[[], bool], expected: bool) -> None:
                began = time.perf_counter()
                assert call() is expected
                took.append(time.perf_counter() - began)

            for order in range(each):
                key, refused = f"{tag}-{order}", kind == "half refused" and order % 2 == 1
                timed(partial(shop.reserve, key, 10**10 if refused else 1), not refused)
                if kind == "mixed" and order % 3 < 2:
                    timed(partial(shop.end, key, ("confirmed", "released")[order % 3]), True)
            return took

        async def buy(kind: Kind, each: int, tag: str) -> list[float]:
            return await asyncio.to_thread(calls, kind, each, tag)

        yield Ready(measure=partial(_measured, buy, place.size(each, 4), 1), settings=await sqlite_settings(ask))


async def _measured(buy: Buy, each: int, callers: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind in KINDS:
        began = time.perf_counter()
        took = sorted(await buy(kind, each, f"{kind}-{next(_tags)}"))
        figures[RATES[kind]] = len(took) / (time.perf_counter() - began)
        if kind == "reserve":
            figures[P50] = took[len(took) // 2] * 1_000
            figures[P99] = took[len(took) * 99 // 100] * 1_000
    return figures


async def _buyers(stack: AsyncExitStack, place: Place, shop: Shop, side: str, callers: int, processes: int) -> Buy:
    if processes == 1:
        return lambda kind, each, tag: bought(shop, kind, callers=callers, each=each, tag=tag)
    children = [await _started(stack, place.url, side, callers) for _ in range(processes)]

    async def buy(kind: Kind, each: int, tag: str) -> list[float]:
        answers = await asyncio.gather(
            *(_asked(child, [kind, each, f"{tag}-{number}"]) for number, child in enumerate(children))
        )
        return [seconds for answer in answers for seconds in answer]

    return buy


async def _started(stack: AsyncExitStack, url: str, side: str, callers: int) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.buying",
        url,
        side,
        str(callers),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )

    async def end() -> None:
        assert child.stdin is not None
        child.stdin.close()
        await child.wait()

    stack.push_async_callback(end)
    assert child.stdout is not None
    await child.stdout.readline()
    return child


async def _asked(child: asyncio.subprocess.Process, order: Sequence[Any]) -> list[float]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(order).encode() + b"\n")
    answer: list[float] = json.loads(await child.stdout.readline())
    return answer


OURS_64, OURS_4, HAND_4 = (
    "ours, 64 callers",
    "ours, 4 processes of 16",
    "by hand, 4 processes of 16, {} connections each",
)
_FIGURES = (
    Figure(name="reserved", unit="calls/s"),
    Figure(name="half refused", unit="calls/s"),
    Figure(name="mixed", unit="calls/s"),
    Figure(name=P50, unit="ms", better="less"),
    Figure(name=P99, unit="ms", better="less"),
)
_MEASURES = (
    "Calls a second on one hot item, each committed when it returns: reservations that succeed, reservations of which half "
    "are refused, and reservations with confirmations, releases and holds that are left to expire. p50 and p99 of the first."
)
_NOTES = (
    "By hand nothing expires, no key is looked at before, and a hold is of one item: it does less.",
    "The specification expects +1 to 5 ms of an escrow.",
)


def _by_hand(pool: int, callers: int, processes: int, each: int) -> Contestant:
    many = processes > 1
    return Contestant(
        name=HAND_4.format(pool) if many else f"by hand, {callers} callers, {pool} connections",
        side="by hand",
        configured="psycopg's pool; conditional update and hold in one statement that commits by itself, prepared",
        open=partial(by_hand, callers=callers, processes=processes, each=each, pool=pool),
        packages=("psycopg", "psycopg-pool"),
    )


def _ours(name: str, callers: int, processes: int, each: int) -> Contestant:
    return Contestant(
        name=name,
        side="ours",
        configured="Escrow as it comes, with its expiry loop",
        open=partial(ours, callers=callers, processes=processes, each=each),
    )


POSTGRESQL = Benchmark(
    name="escrow-postgresql",
    engine="postgresql",
    measures=_MEASURES,
    figures=_FIGURES,
    compared="reserved",
    contestants=(
        _ours(OURS_64, 64, 1, 300),
        _ours(OURS_4, 16, 4, 150),
        *(_by_hand(pool, 64, 1, 24) for pool in (2, 8, 32)),
        *(_by_hand(pool, 16, 4, 24) for pool in (1, 4)),
    ),
    aims=(
        Aim(
            figure="reserved",
            of=OURS_64,
            over=tuple(f"by hand, 64 callers, {pool} connections" for pool in (2, 8, 32)),
            at_least=20,
        ),
        Aim(figure="reserved", of=OURS_4, over=tuple(HAND_4.format(pool) for pool in (1, 4)), at_least=5),
        Aim(figure=P99, of=OURS_64, at_most=10),
        Aim(figure=P99, of=OURS_4, at_most=10),
    ),
    notes=_NOTES,
)

SQLITE = Benchmark(
    name="escrow-sqlite",
    engine="sqlite",
    measures=_MEASURES,
    figures=_FIGURES,
    compared="reserved",
    contestants=(
        _ours(OURS_64, 64, 1, 300),
        Contestant(
            name="by hand, one thread",
            side="by hand",
            configured="sqlite3: BEGIN IMMEDIATE, conditional update, hold, COMMIT, without an event loop",
            open=partial(sqlite_by_hand, each=1_500),
        ),
    ),
    aims=(Aim(figure=P99, of=OURS_64, at_most=10),),
    notes=_NOTES,
)

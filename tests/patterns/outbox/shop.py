"""What the outbox's tests have in common: events, a table that handlers write to, and loops run by hand."""

import asyncio
import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

import faultproof as fp
from faultproof.ports.database import Database, Transaction
from faultproof.primitives.worker import Loop
from tests.fakes import WAIT_S


class Placed(msgspec.Struct):
    """An order; `n` counts per key."""

    key: str
    n: int


@dataclasses.dataclass
class Paid:
    """The same as a dataclass, with a time."""

    key: str
    n: int
    at: datetime.datetime | None = None


EVENTS: dict[str, type] = {"placed": Placed, "paid": Paid, "noted": dict}


async def create_tables(db: Database) -> None:
    """Where handlers write: one row an effect, so that a second effect of the same event is seen."""
    async with db.transaction() as tx:
        await tx.execute("CREATE TABLE orders (id TEXT, n INTEGER)")
        await tx.execute(
            "CREATE TABLE effect (seq INTEGER PRIMARY KEY, grp TEXT, event TEXT, key TEXT, n INTEGER, pid INTEGER)"
        )


async def write_effect(event: fp.Event[Any], tx: Transaction, *, group: str = "g", pid: int = 0) -> None:
    """What a handler does."""
    n = event.body["n"] if isinstance(event.body, dict) else event.body.n
    await tx.execute(
        "INSERT INTO effect (grp, event, key, n, pid) VALUES (?, ?, ?, ?, ?)", group, event.id, event.key, n, pid
    )


async def rows(db: Database, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    async with db.transaction() as tx:
        return await tx.fetch(sql, *parameters)


async def count(db: Database, table: str) -> int:
    ((number,),) = await rows(db, f"SELECT count(*) FROM {table}")
    return int(number)


async def pump(*loops: Loop) -> None:
    """Let the loops take steps in turn until none finds anything to do, twice over."""
    async with asyncio.timeout(WAIT_S):
        idle = 0
        while idle < 2:
            rests = [await loop.step() for loop in loops]
            idle = 0 if 0.0 in rests else idle + 1


class Running:
    """A sequencer and consumers, opened, for `pump`."""

    def __init__(self, outbox: fp.Outbox, *consumers: Loop) -> None:
        self.loops: Sequence[Loop] = (outbox.sequencer(), *consumers)

    async def opened(self) -> "Running":
        for loop in self.loops:
            await loop.open()
        return self

    async def pump(self) -> None:
        await pump(*self.loops)


async def running(outbox: fp.Outbox, *consumers: Loop) -> Running:
    return await Running(outbox, *consumers).opened()


class Seen:
    """A handler (or, through `sink`, a relay's sink) that keeps what it is given, and fails where told."""

    def __init__(self, *, group: str = "g", fails: dict[int, Exception] | None = None) -> None:
        self.events: list[fp.Event[Any]] = []
        self.group = group
        self.fails = fails if fails is not None else {}
        """By the events' `n`. Taken out by the test when the trouble is over."""

    @property
    def ns(self) -> list[int]:
        return [event.body["n"] if isinstance(event.body, dict) else event.body.n for event in self.events]

    async def __call__(self, event: fp.Event[Any], tx: Transaction) -> None:
        await self.sink(event)
        await write_effect(event, tx, group=self.group)

    async def sink(self, event: fp.Event[Any]) -> None:
        self.events.append(event)
        if error := self.fails.get(self.ns[-1]):
            raise error

    async def effects(self, db: Database) -> list[int]:
        """The `n` of the effects that were committed, in order."""
        return [n for (n,) in await rows(db, "SELECT n FROM effect WHERE grp = ? ORDER BY seq", self.group)]

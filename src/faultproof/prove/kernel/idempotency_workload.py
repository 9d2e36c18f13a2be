"""Requests that are sent again while faults strike: two servers are asked the same, and a third process trims old keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from faultproof.errors import Duplicate, KeyReused, OutcomeUnknown, TryAgain
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.primitives.idempotency import Duplicates, Idempotency
from faultproof.prove.kernel.asking import answered
from faultproof.prove.proof import Process

TTL_S = 0.5
KEEP_S = 3_600.0
"""For how long answers are kept: longer than anybody asks again."""


class Request(NamedTuple):
    """What a client sends to one of the servers, again and again until it has an answer."""

    key: str
    content: str
    duplicates: Duplicates
    pause_s: float = 0.0
    """Before it is sent."""
    is_given_up: bool = False
    """Its caller is cancelled when the work is done and not yet stored; and asks again."""


REQUESTS = {
    "api-1": (
        Request("charge", "milk", "wait"),
        Request("book", "milk", "wait"),
        Request("contested", "milk", "wait"),
        Request("cancelled", "milk", "wait", is_given_up=True),
    ),
    "api-2": (
        Request("charge", "milk", "wait"),
        Request("contested", "bread", "replay"),
        Request("book", "milk", "raise", pause_s=0.15),
        Request("cancelled", "milk", "wait"),
    ),
}
REMOTE = ("charge", "cancelled")
"""Their work is a request to somebody else; that of the others is a row in this database."""


@sql(
    """INSERT INTO booking (key, content, number) SELECT :key, :content, (SELECT count(*) FROM booking) + 1
       RETURNING number"""
)
def _book(key: str, content: str) -> int: ...


def _constant(number: int) -> Script[int]:
    yield from ()
    return number


def keys(database: Database, *, duplicates: Duplicates = "wait", scope: str = "orders") -> Idempotency[int]:
    """As the library has them."""
    return Idempotency(database, scope, answer=int, duplicates=duplicates, ttl=TTL_S)


async def prepare(database: Database) -> None:
    await keys(database).install()
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE booking (key TEXT, content TEXT, number BIGINT)")


class Server:
    """Answers requests. The planted bugs replace some of its methods."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()

    async def run(self) -> None:
        """All of its clients' requests, each until it has been answered."""
        for request in REQUESTS[self.process.name]:
            if request.pause_s:
                await self.process.env.clock.sleep(request.pause_s)
            if request.is_given_up:
                await self.gives_up(request)
            try:
                number = await answered(self.process, lambda request=request: self.answer(request))  # type: ignore[misc]
            except Duplicate as error:
                number = error.answer
            except KeyReused:
                self.process.note("refused", request.key, request.content)
                continue
            self.process.note("answered", request.key, request.content, number)
        self.process.note("finished", self.process.name)

    async def answer(self, request: Request) -> Any:
        """One attempt."""
        if request.key in REMOTE:
            return await self.remote(request, lambda: self.charge(request))
        return await self.local(request)

    async def local(self, request: Request) -> int:
        """Key, work and answer in one transaction."""
        return await self.database.transact(
            lambda: self.keys(request).script(self.key(request), self.content(request), self.book(request))
        )

    async def remote(self, request: Request, work: Callable[[], Awaitable[int]]) -> int:
        """The key is held while somebody else is asked."""
        return await self.keys(request).run(self.key(request), self.content(request), work)

    def keys(self, request: Request) -> Idempotency[int]:
        return keys(self.database, duplicates=request.duplicates)

    def key(self, request: Request) -> str:
        return request.key

    def content(self, request: Request) -> str:
        return request.content

    def book(self, request: Request) -> Script[int]:
        return _book(request.key, request.content)

    async def charge(self, request: Request) -> int:
        """At a provider that charges as often as it is asked to, so that every answer of its is another."""

        def act(provider: dict[str, Any]) -> int:
            provider["charges"] = provider.get("charges", 0) + 1
            provider.setdefault(request.key, []).append(provider["charges"])
            charges: int = provider["charges"]
            return charges

        self.process.note("worked", request.key)
        return await self.process.outside("charge", act)

    async def gives_up(self, request: Request) -> None:
        """The caller is cancelled when its work is done and not yet stored."""
        caller = asyncio.current_task()
        assert caller is not None

        async def work() -> int:
            number = await self.charge(request)
            caller.cancel()
            return number

        try:
            await self.remote(request, work)
        except asyncio.CancelledError:
            caller.uncancel()
            self.process.note("cancelled", request.key)
        except TryAgain:  # it is asked again in any case
            pass
        except OutcomeUnknown:
            pass


class Janitor:
    """Trims old keys; and in scopes of its own asks with one key for this and then for that, after trimming it away;
    and for other things under a key that a caller has left behind."""

    keep_s = KEEP_S

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()

    async def run(self) -> None:
        """A few times."""
        orders, brief = keys(self.database), keys(self.database, scope="brief")
        for number in (1, 2):
            await answered(self.process, lambda: orders.trim(older=self.keep_s))
            while not await answered(self.process, lambda number=number: self.asked(brief, number)):  # type: ignore[misc]
                await self.process.env.clock.sleep(0.1)  # a former life of this process asked, or a clock was put back
            await self.process.env.clock.sleep(0.1)
        await answered(self.process, lambda: self.leaving(keys(self.database, scope="left")))
        self.process.note("finished", self.process.name)

    async def leaving(self, left: Idempotency[int]) -> None:
        """Its caller is cancelled at work; and long after its lease has ended, the key is still for what it asked for."""
        caller = asyncio.current_task()
        assert caller is not None

        async def work() -> int:
            caller.cancel()
            await self.process.env.clock.sleep(TTL_S)
            return 1

        try:
            await left.run("left", "milk", work)
        except asyncio.CancelledError:
            caller.uncancel()
        await self.process.env.clock.sleep(2 * TTL_S)
        try:
            number = await left.run("left", "bread", work)
        except KeyReused:
            self.process.note("refused", "left", "bread")
        except asyncio.CancelledError:
            caller.uncancel()
            self.process.note("answered", "left", "bread", 0)
        else:
            self.process.note("answered", "left", "bread", number)

    async def asked(self, brief: Idempotency[int], number: int) -> bool:
        await brief.trim(older=0.0)
        try:
            answer = await self.database.transact(lambda: brief.script("again", number, _constant(number)))
        except KeyReused:
            return False
        self.process.note("answered", f"again/{number}", "", answer)
        return True

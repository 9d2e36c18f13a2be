"""The application of these tests: `POST /till` adds a number, `GET /till` says the sum; in Starlette, as users have it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import faultproof as fp
from faultproof.ports.database import Database
from faultproof.ports.script import sql

OPTIONS = fp.IdempotentOptions(ttl=10.0, wait=10.0, body_bytes=1_000, answer_bytes=1_000)


@sql("INSERT INTO till (place, adds, session, number) SELECT COUNT(*) + 1, :adds, :session, :number FROM till")
def _add(adds: int, session: str | None, number: int) -> None: ...


@sql("SELECT CAST(COALESCE(SUM(adds), 0) AS BIGINT) FROM till")
def _total() -> int: ...


class Till:
    """`together`: effect and answer are committed in one transaction. `before` and `after` are awaited around the effect."""

    def __init__(
        self, db: Database, options: fp.IdempotentOptions = OPTIONS, *, together: bool = True, **more: Any
    ) -> None:
        self.db = db
        self.together = together
        self.status = 201
        self.calls = 0
        self.keyed: fp.Keyed | None = None
        self.before: Callable[[], Any] = _nothing
        self.inside: Callable[[], Any] = _nothing
        self.after: Callable[[], Any] = _nothing
        routes = [Route("/till", self.post, methods=["POST", "DELETE"]), Route("/till", self.get, methods=["GET"])]
        self.idempotent = fp.Idempotent(Starlette(routes=routes), db, options, **more)
        self.app = fp.Deadlines(self.idempotent, env=db.env)

    async def install(self) -> None:
        await self.idempotent.install()
        async with self.db.transaction() as tx:
            await tx.execute(
                "CREATE TABLE IF NOT EXISTS till (place BIGINT PRIMARY KEY, adds BIGINT, session TEXT, number BIGINT)"
            )

    async def post(self, request: Request) -> Response:
        self.calls += 1
        keyed = self.keyed = fp.Keyed.of(request.scope)
        adds = int(await request.body())
        await self.before()
        async with self.db.transaction() as tx:
            if "postgres" in type(self.db).__module__:
                await tx.execute("LOCK TABLE till IN EXCLUSIVE MODE")  # so that places are in the order of commits
            await tx.run(_add(adds, keyed.session, keyed.number))
            body = b"%d" % await tx.run(_total())
            if self.together:
                await keyed.answer(self.status, body, headers={"location": "/till/1"}, tx=tx)
            await self.inside()
        await self.after()
        return Response(
            body, self.status, {"location": "/till/1", "x-other": "1", "set-cookie": "a=b"}, "application/json"
        )

    async def get(self, request: Request) -> Response:
        return Response(b"%d" % await self.db.read(_total()))

    async def rows(self) -> list[tuple[Any, ...]]:
        """What was added, in order."""
        async with self.db.transaction() as tx:
            return await tx.fetch("SELECT adds, session, number FROM till ORDER BY place")

    async def added(self) -> list[int]:
        return [row[0] for row in await self.rows()]

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://till", timeout=None)


async def _nothing() -> None:
    await asyncio.sleep(0)

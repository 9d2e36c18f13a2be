"""What the proof plays: clients with sessions, a network that loses, doubles and delays, and servers that die at their work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from faultproof.errors import LeaseLost, OutcomeUnknown, TryAgain
from faultproof.patterns.request_response import headers as names
from faultproof.patterns.request_response import sql as tables
from faultproof.patterns.request_response.deadlines import Deadlines
from faultproof.patterns.request_response.headers import Envelope
from faultproof.patterns.request_response.idempotent import Idempotent, IdempotentOptions
from faultproof.patterns.request_response.keyed import Keyed
from faultproof.patterns.request_response.session import ClientSession, SessionOptions
from faultproof.ports.database import Database
from faultproof.ports.schema import Schema
from faultproof.ports.script import Inline, Script, Wake, sql
from faultproof.primitives.idempotency import SCHEMA
from faultproof.primitives.retry import RetryBudget, RetryPolicy
from faultproof.prove.proof import Process

SERVERS = ("server-1", "server-2")
TTL_S, SLOW_S, LATE_S, LOOK_S = 0.5, 0.3, 3.0, 2.0
SESSION = SessionOptions(timeout=8.0, attempt_timeout=1.0, retry=RetryPolicy(attempts=8, base=0.1, repeat_unknown=True))


class Call(NamedTuple):
    """A request that a client makes. What it adds tells it from its others."""

    adds: int
    """0: it reads."""
    does: str = ""
    """`fails`: each server says 503 the first time; `slow`: it waits before it does anything; `late`: the network waits."""
    is_cancelled: bool = False
    """Its caller is, while it is out."""
    is_given_up: bool = False
    """And the session is told not to ask any more."""
    is_joined: bool = False
    """It is called while the one before it is out."""


CALLS: Mapping[str, tuple[Call, ...]] = {
    "clara": (
        Call(1),
        Call(2, "fails"),
        Call(3, "slow", is_cancelled=True),
        Call(4),
        Call(5, "fails"),
        Call(6, is_joined=True),
        Call(0),
    ),
    "carl": (
        Call(10),
        Call(20, "slow", is_cancelled=True, is_given_up=True),
        Call(30),
        Call(40, "late", is_cancelled=True, is_given_up=True),
        Call(50),
    ),
}


TILL = Schema(
    name="till",
    versions=[
        [
            "CREATE TABLE entry (place {serial}, session TEXT, number BIGINT, adds BIGINT)",
            "CREATE TABLE till (total BIGINT)",
            "INSERT INTO till VALUES (0)",
        ]
    ],
    works_from=1,
    works_to=1,
)


@sql("UPDATE till SET total = total + :adds RETURNING total")
def _add(adds: int) -> int:
    """The effect, and the sum with it."""


@sql("INSERT INTO entry (session, number, adds) VALUES (:session, :number, :adds)")
def _enter(session: str, number: int, adds: int) -> None:
    """Whose it was; behind the till's row, so that places are in the order of effects."""


@sql("SELECT total FROM till")
def _total() -> int:
    """What is in the till."""


def _ring(name: str) -> Script[None]:
    yield Wake(name)


async def rung(database: Database, name: str) -> None:
    """Tell a process that something has come for it; it looks now and then by itself."""
    try:
        await database.transact(lambda: _ring(name))
    except TryAgain:
        pass
    except OutcomeUnknown:
        pass


async def prepare(database: Database) -> None:
    await database.install(SCHEMA, tables.SCHEMA, TILL)


# -- a server ---------------------------------------------------------------------------------------------------------------


class Server:
    """Adds up what it is asked to. The planted bugs replace some of its methods."""

    around = Idempotent

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()
        self._has_failed = set[int]()
        self.app = Deadlines(self.idempotent(), env=process.env)

    def idempotent(self, name: str = "http") -> Idempotent:
        options = IdempotentOptions(ttl=TTL_S, wait=2 * TTL_S)
        return self.around(self.handle, self.database, options, name=name)

    async def run(self) -> None:
        """Whatever is asked, each request in a task of its own."""
        news = self.database.changed(self.process.name)
        running = set[asyncio.Task[None]]()
        while True:
            try:
                came = await self.process.outside("what came in", self._came)
            except OutcomeUnknown:
                came = []
            for message in came:
                task = asyncio.ensure_future(self.answer(message))
                running.add(task)
                task.add_done_callback(running.discard)
            await news.wait(LOOK_S)

    def _came(self, network: dict[str, Any]) -> list[dict[str, Any]]:
        now, messages = self.process.env.clock.monotonic(), network.get(self.process.name, [])
        network[self.process.name] = [each for each in messages if each["not before"] > now]
        return [each for each in messages if each["not before"] <= now]

    async def answer(self, message: dict[str, Any]) -> None:
        """Run the application as an HTTP server does, and send what it says."""
        said: dict[str, Any] = {}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": message["body"].encode()}

        async def respond(part: Any) -> None:
            if part["type"] == "http.response.start":
                said["status"] = part["status"]
                said["headers"] = {name.decode(): value.decode() for name, value in part["headers"]}
            else:
                said["body"] = part["body"].decode()

        scope = {
            "type": "http",
            "method": "GET" if message["body"].startswith("0|") else "POST",
            "path": "/till",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in message["headers"].items()],
        }
        try:
            await self.app(scope, receive, respond)
        except Exception as error:
            if "status" not in said:
                said.update(status=500, headers={}, body=type(error).__name__)
            if isinstance(error, LeaseLost):
                self.process.note("not carried out", "taken over")
        self._noted(said)
        await self._sent(message["id"], message["from"], said)

    def _noted(self, said: dict[str, Any]) -> None:
        why = said["headers"].get(names.REFUSED, "replayed" if names.REPLAYED in said["headers"] else "")
        if why:
            self.process.note("not carried out", why)

    async def _sent(self, id: str, to: str, said: dict[str, Any]) -> None:
        with suppress(OutcomeUnknown):
            await self.process.outside(
                "an answer", lambda network: network.setdefault("answers", {}).update({id: said})
            )
        await rung(self.database, to)

    async def handle(self, scope: Any, receive: Any, respond: Any) -> None:
        """The application."""
        text, does = (await receive())["body"].decode().split("|")
        adds, status, body = int(text), 200, b""
        if does == "fails" and adds not in self._has_failed:
            self._has_failed.add(adds)
            status = 503
        elif adds:
            if does == "slow":
                await self.process.env.clock.sleep(SLOW_S)
            body = b"%d" % await self.added(Keyed.of(scope), adds)
        else:
            body = b"%d" % await self.database.read(_total())
        await respond({"type": "http.response.start", "status": status, "headers": []})
        await respond({"type": "http.response.body", "body": body})

    async def added(self, keyed: Keyed, adds: int) -> int:
        """Effect and answer in one transaction."""

        def work() -> Script[int]:
            total = yield from self.adding(keyed, adds)
            yield from keyed.answer(200, b"%d" % total, tx=Inline())
            return total

        return await self.database.transact(work)

    def adding(self, keyed: Keyed, adds: int) -> Script[int]:
        total = yield from _add(adds)
        yield from _enter(keyed.session or "", keyed.number, adds)
        return total


# -- a client ---------------------------------------------------------------------------------------------------------------


class Response(NamedTuple):
    """As `judge` wants it."""

    status: int
    headers: dict[str, str]
    body: str


class Asker:
    """Makes its calls, and writes down what it hears. The planted bugs replace some of its methods."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()
        self.session = self.made()

    def made(self) -> ClientSession[Response]:
        return ClientSession(SESSION, env=self.process.env, budget=RetryBudget(ratio=1.0, burst=1_000))

    async def run(self) -> None:
        """All of them, in order."""
        self.process.note("session", self.process.name, self.process.incarnation, self.session.id)
        before: asyncio.Task[None] | None = None
        for place, call in enumerate(CALLS[self.process.name]):
            if call.is_joined and before is not None:
                task = asyncio.ensure_future(self.asks(place, call))
                await before
            else:
                if before is not None:
                    await before
                task = asyncio.ensure_future(self.asks(place, call))
            await self.process.env.clock.sleep(0)
            before = task
        assert before is not None
        await before
        await self.process.env.clock.sleep(LATE_S + LOOK_S)
        self.process.note("finished", self.process.name, self.process.incarnation)

    async def asks(self, place: int, call: Call) -> None:
        """Until there is an answer, or it is given up."""
        lane = f"{self.process.name}.{self.process.incarnation}.{place}"
        self.process.note("invoke", lane, call.adds)
        unknown = self.session.unsettled
        asking = asyncio.ensure_future(self.answered(call, lane))
        if call.is_cancelled:
            await self.process.env.clock.sleep(SLOW_S / 2)
            asking.cancel()
        try:
            total = await asking
        except asyncio.CancelledError:
            if call.is_given_up and self.session.give_up() is not None:
                self.process.note("given up", lane)
            return
        if unknown is not None:
            self.process.note("settled", unknown)
        self.process.note("ok", lane, call.adds, total)

    async def answered(self, call: Call, lane: str) -> int:
        """What is unknown is settled, and what did not happen called again."""
        while True:
            try:
                return int((await self.session.call(lambda sent: self.send(call, lane, sent))).body)
            except TryAgain:
                await self.process.env.clock.sleep(0.1)
            except OutcomeUnknown:
                if (total := await self.settled()) is not None:
                    return total

    async def settled(self) -> int | None:
        while True:
            try:
                found = await self.session.settle()
            except TryAgain:
                await self.process.env.clock.sleep(0.1)
            except OutcomeUnknown:
                await self.process.env.clock.sleep(0.1)
            else:
                return None if found is None else int(found.body)

    async def send(self, call: Call, lane: str, sent: Envelope) -> Response:
        """One attempt; each at another server than the one before."""
        process, id = self.process, self.process.env.ids.new()
        server = SERVERS[(sent.number + sent.attempt) % len(SERVERS)]
        now = process.env.clock.monotonic()
        message = {
            "id": id,
            "from": process.name,
            "headers": sent.headers,
            "body": f"{call.adds}|{call.does}",
            "not before": now + LATE_S if call.does == "late" else now,
        }
        news = self.database.changed(process.name)
        process.note("sent", lane)
        try:
            await process.outside(
                f"a request to {server}", lambda network: network.setdefault(server, []).append(message)
            )
            await rung(self.database, server)
            while True:
                found = await process.outside("a look for the answer", lambda network: _taken(network, id))
                if found is not None:
                    return Response(found["status"], found["headers"], found["body"])
                await news.wait(LOOK_S)
        finally:
            news.close()


def _taken(network: dict[str, Any], id: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = network.get("answers", {}).pop(id, None)
    return found

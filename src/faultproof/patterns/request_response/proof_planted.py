"""Request-Response's planted bugs: what a client or a server looks like that somebody simplified."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faultproof.patterns.request_response import sql
from faultproof.patterns.request_response.idempotent import Idempotent
from faultproof.patterns.request_response.keyed import Keyed
from faultproof.patterns.request_response.proof_workload import SESSION, Asker, Response, Server
from faultproof.patterns.request_response.session import ClientSession, _Request
from faultproof.patterns.request_response.turns import Turn
from faultproof.ports.script import Script
from faultproof.primitives.retry import RetryBudget
from faultproof.primitives.timeouts import Cut


def _client(kind: type[ClientSession[Response]]) -> type[Asker]:
    class Broken(Asker):
        def made(self) -> ClientSession[Response]:
            return kind(SESSION, env=self.process.env, budget=RetryBudget(ratio=1.0, burst=1_000))

    return Broken


class _NewKeys(ClientSession[Response]):
    """Each attempt is a request of its own."""

    async def _attempt(self, request: _Request[Response]) -> Response:
        if request.attempts:
            self._last += 1
            request.number, request.key = self._last, f"{self.id}-{self._last}"
        return await super()._attempt(request)


class _MovesOn(ClientSession[Response]):
    """What is unknown stays so."""

    async def _settled(self, cut: Cut) -> None:
        self._unsettled = None


class _AllAtOnce(_MovesOn):
    """Nor does anybody wait for a turn."""

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[Cut]:
        now = self._env.clock.monotonic()
        with self._calls.cut(now) as cut:
            yield cut


def _server(kind: type[Turn]) -> type[Server]:
    class Ordering(Idempotent):
        def _turn(self, session: str | None, number: int) -> Turn:
            return kind("http", session, number)

    class Broken(Server):
        around = Ordering

    return Broken


class _NoOrder(Turn):
    """Whatever comes is taken."""

    def taken(self, token: int, ttl_us: int) -> Script[None]:
        self.token = token
        yield from ()

    def answered(self) -> Script[None]:
        yield from ()


class _Unfenced(Turn):
    """Whoever was taken once may answer, however late."""

    def answered(self) -> Script[None]:
        if self._session is not None:
            yield from sql.answered(self._scope, self._session, self._number)


class _Apart(Server):
    """The answer is stored when the handler has returned."""

    async def added(self, keyed: Keyed, adds: int) -> int:
        return await self.database.transact(lambda: self.adding(keyed, adds))


class _OwnKeys(Server):
    """Each server remembers what it has answered itself."""

    def idempotent(self, name: str = "http") -> Idempotent:
        return super().idempotent(self.process.name)


CLIENTS: dict[str, type[Asker]] = {
    "new keys": _client(_NewKeys),
    "all at once": _client(_AllAtOnce),
    "moves on": _client(_MovesOn),
}
SERVERS: dict[str, type[Server]] = {
    "no order": _server(_NoOrder),
    "unfenced": _server(_Unfenced),
    "apart": _Apart,
    "own keys": _OwnKeys,
}

"""What the shop depends on, and the client that stands between: payment and shipping with two doors, and three carriers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from faultproof.clock import Env, system
from faultproof.errors import Failed, OutcomeUnknown, TryAgain
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response import Client, Policy
from faultproof.patterns.scatter_gather import GatherPolicy, Incomplete, ScatterGather
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.shop.http import Connection, Unreachable
from faultproof.signals import (
    CALLS_SHED,
    ENDPOINT_EJECTED,
    HEDGE,
    HEDGE_WON,
    PERMITS_SHED,
    SHARDS_MISSING,
    Attributes,
    Signal,
    Signals,
)

T = TypeVar("T")

CALL_S = 1.0
"""Less than the provider takes when it is late."""
QUOTES_S = 0.25
"""Less than the slowest carrier takes now and then: then there are two quotes."""
CARRIERS = ("air", "barge", "coach")
CONNECTIONS_MAX = 64
NOWHERE = (9,)
"""For who only names the saga, and calls nobody."""

COUNTED = {
    HEDGE: "hedges",
    HEDGE_WON: "hedges_won",
    CALLS_SHED: "shed",
    PERMITS_SHED: "shed",
    ENDPOINT_EJECTED: "ejected",
    SHARDS_MISSING: "quotes_missing",
}
"""What a run's report says of the request path."""


def counting(env: Env, count: Callable[[str], None]) -> Env:
    """The same, but that what happens on the request path is counted, under the report's names."""

    def sink(signal: Signal, value: float, attributes: Attributes) -> None:
        if signal in COUNTED:
            count(COUNTED[signal])

    return replace(env, signals=Signals([sink]))


class _Done(msgspec.Struct):
    """What the provider answers when it has done its work."""

    reference: str


class _Quote(msgspec.Struct):
    """What a carrier answers."""

    price: int


class Provider:
    """Calls to the provider, through one client: each has an idempotency key, so it may be hedged at the other door.

    It is not repeated here: the saga's steps are, and one layer is enough.
    """

    def __init__(self, ports: Sequence[int], env: Env | None = None) -> None:
        env = env or system()
        policy = Policy(
            deadline=CALL_S,
            idempotent=True,
            retry=None,
            hedge=HedgePolicy(at_first=CALL_S / 10),
            # Of what it does a seventh fails or is lost, and that is how it is when it is well.
            breaker=BreakerPolicy(minimum_calls=50, slow_after=CALL_S),
            outliers=OutlierPolicy(in_a_row=5, eject_for=2.0),
            bulkhead=BulkheadPolicy(concurrency=CONNECTIONS_MAX, queue=4 * CONNECTIONS_MAX, wait=CALL_S / 2),
        )
        doors = [Endpoint(f"door-{port}", f"http://127.0.0.1:{port}") for port in ports]
        self._client = Client(doors, policy, env=env, name="provider")
        self._quotes = ScatterGather(GatherPolicy(deadline=QUOTES_S, at_least=1), env=env)
        self._idle: dict[Endpoint, deque[Connection]] = {door: deque(maxlen=CONNECTIONS_MAX) for door in doors}

    async def call(self, path: str, key: str, sent: Callable[[], None], **asked: object) -> str:
        """The provider's reference of the work; `sent` hears when it can no longer be called off.

        Raises `Failed` if it says no, `TryAgain` if it says not now, and `OutcomeUnknown` when no answer came, or nonsense.
        """
        body = msgspec.json.encode(asked)

        async def send(door: Endpoint, attempt: int) -> str:
            return (await self._asked(door, path, {"Idempotency-Key": key}, body, sent, _Done)).reference

        return (await self._client.call(send)).value

    async def cheapest(self, order: str, units: int) -> str:
        """The carrier that wants least of those who give a quote in time. Raises `TryAgain` if none does."""
        body = msgspec.json.encode({"order": order, "amount": units})

        async def ask(carrier: str, attempt: int) -> int:
            path = f"/carriers/{carrier}/quote"

            async def send(door: Endpoint, attempt: int) -> int:
                return (await self._asked(door, path, {}, body, lambda: None, _Quote)).price

            return (await self._client.call(send)).value

        try:
            quotes = (await self._quotes.gather(CARRIERS, ask)).values
        except Incomplete as error:
            raise TryAgain(f"no carrier gives a quote: {error}") from error
        return min(quotes, key=lambda carrier: (quotes[carrier], carrier))

    def close(self) -> None:
        """Drop all connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    async def _asked(
        self, door: Endpoint, path: str, headers: dict[str, str], body: bytes, sent: Callable[[], None], kind: type[T]
    ) -> T:
        """One request at a time on each connection, as many connections as calls are under way."""
        idle = self._idle[door]
        connection = idle.pop() if idle else Connection(urlsplit(door.url).port or 0)
        try:
            got = await connection.post(path, headers, body, timeout=CALL_S, sent=sent)
        except Unreachable as error:
            raise OutcomeUnknown(f"no answer from {path}: {error}") from error
        except BaseException:
            connection.close()
            raise
        if len(idle) == CONNECTIONS_MAX:
            connection.close()
        else:
            idle.append(connection)
        said = f"{path} answered {got.status}: {got.body[:200].decode(errors='replace')}"
        if 500 <= got.status < 600:
            raise TryAgain(said)
        if 400 <= got.status < 500:
            raise Failed(said)
        try:
            if got.status == 200:
                return msgspec.json.decode(got.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise OutcomeUnknown(f"{said} ({error})") from error
        raise OutcomeUnknown(said)

"""The load: customers who send orders, and send them again with the same key until they are answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from faultproof.clock import Env
from faultproof.errors import Failed
from faultproof.primitives.retry import full_jitter
from faultproof.shop.baskets import Basket
from faultproof.shop.http import Connection, Unreachable
from faultproof.shop.journal import Answered, Journal
from faultproof.shop.timeline import Timeline

PATIENCE_S = 60.0
"""How long a customer keeps asking about one order."""
TENANTS = 3
"""Each order is of one of them."""
_ATTEMPT_S = 8.0
"""More than the 5 s after which the API itself gives up waiting for the database."""
_AGAIN = 0.02
"""The part of customers who send an order once more after it was answered, as if the answer had been lost."""
_RETRY_BASE_S = 0.01
_RETRY_CAP_S = 0.5


class Unanswered(Failed):
    """An order got no answer in `PATIENCE_S`; `said` is what the API said last, if it said anything."""

    said: str | None

    def __init__(self, message: str, *, said: str | None) -> None:
        super().__init__(message)
        self.said = said


@dataclass
class Progress:
    """For the display only: the audit reads the journal."""

    total: int
    answered: int = 0
    retries: int = 0


class _Body(msgspec.Struct):
    """What an answer may carry."""

    order: str | None = None
    error: str | None = None


class Customers:
    """A fixed number of customers who share a list of orders, each waiting for its answer before it takes the next."""

    def __init__(
        self,
        env: Env,
        ports: Sequence[int],
        baskets: Sequence[Basket],
        journal: Journal,
        *,
        seed: int,
        count: int,
        timeline: Timeline | None = None,
    ) -> None:
        self.progress = Progress(len(baskets))
        self._env = env
        self._ports = ports
        self._orders: Iterator[tuple[int, Basket]] = enumerate(baskets)
        self._journal = journal
        self._seed = seed
        self._count = count
        self._timeline = timeline or Timeline()
        self._rng = random.Random(f"customers-{seed}")  # noqa: S311  # to be repeated, not to be secret

    async def run(self) -> None:
        """Until every order is answered. Raises `Unanswered` for the first that is not, however often it was sent."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._customer([Connection(port) for port in self._ports]))

    async def _customer(self, connections: list[Connection]) -> None:
        try:
            await self._shop(connections)
        finally:
            for connection in connections:
                connection.close()

    async def _shop(self, connections: list[Connection]) -> None:
        for number, basket in self._orders:
            key, began = f"{self._seed}-{number}", self._env.clock.monotonic()
            self._journal.sent(key, basket)
            content = msgspec.json.encode({"items": [line.item for line in basket for _ in range(line.quantity)]})
            for _ in range(2 if self._rng.random() < _AGAIN else 1):
                await self._journal.answered(await self._answer(connections, number, key, content))
            self.progress.answered += 1
            self._timeline.answer(self._env.clock.monotonic() - began)

    async def _answer(self, connections: list[Connection], number: int, key: str, content: bytes) -> Answered:
        """Send until there is an answer that says yes or no; each time to the next API process."""
        clock, said = self._env.clock, None
        started, tries = clock.monotonic(), 0
        while True:
            connection = connections[(number + tries) % len(connections)]
            with suppress(Unreachable):  # killed under way, or before: nobody knows what became of the order
                got = await connection.post(
                    "/orders",
                    {"Idempotency-Key": key, "Tenant": f"tenant-{number % TENANTS}"},
                    content,
                    timeout=_ATTEMPT_S,
                )
                body = _body(got.body)
                if got.status < 500:
                    return Answered(key, got.status, body.order)
                said = body.error
            if clock.monotonic() - started >= PATIENCE_S:
                raise Unanswered(
                    f"the order {key} got no answer in {PATIENCE_S:.0f} s ({said or 'silence'})", said=said
                )
            await clock.sleep(full_jitter(tries, base=_RETRY_BASE_S, cap=_RETRY_CAP_S, rng=self._rng))
            tries += 1
            self.progress.retries += 1


def _body(content: bytes) -> _Body:
    try:
        return msgspec.json.decode(content, type=_Body)
    except msgspec.MsgspecError:
        return _Body()

"""An inbox for consumers that faultproof does not run: what a message did, and that it was handled, commit together.

A `Consumer` needs none: its cursor moves in the handler's transaction. This is for messages of any broker, handled in a
transaction of any library that can be joined.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import overload

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.patterns.outbox import sql
from faultproof.ports.database import Database, News, SyncTx, Tx
from faultproof.ports.script import Inline, Script
from faultproof.primitives.transactions import check_tx

ID_BYTES_MAX = 512


class MessageInbox:
    """Tells a consumer whether it sees a message for the first time.

    Promise: of all transactions that ask for one id, at most one that commits is told True, until `trim` forgets the id.
    One row for each message; one statement, and on PostgreSQL one round trip, for each call.
    """

    def __init__(self, database: Database, name: str) -> None:
        """`name`: of the consumer, not of the message's source; 1 to 100 letters, digits, `-`, `_`, `.`."""
        bounds.name("an inbox", name)
        self.name = name
        self._database = database

    async def install(self) -> None:
        """Create the table; idempotent, and safe in many processes at once."""
        await self._database.install(sql.SEEN)

    @overload
    def first(self, id: str, *, tx: SyncTx) -> bool: ...

    @overload
    def first(self, id: str, *, tx: Inline) -> Script[bool]: ...

    @overload
    def first(self, id: str, *, tx: Tx) -> Awaitable[bool]: ...

    def first(self, id: str, *, tx: Tx | SyncTx | Inline) -> Awaitable[bool] | Script[bool] | bool:
        """True, and the id is taken in this transaction; False if a committed one has taken it before.

        While another transaction that has taken it is open, PostgreSQL waits for its end; under REPEATABLE READ and
        SERIALIZABLE that ends in `Busy`, as does SQLite's one write lock at once: roll back and take the message again.
        `id`: the sender's, the same in every delivery; 1 to 512 bytes. Raises `InvalidInput` for any other.
        """
        _check_id(id)
        check_tx(tx, self._database)
        return tx.run(self._first(id), single=True)

    async def trim(self, *, older: float, limit: int = 1_000) -> int:
        """Forget ids that were taken more than `older` seconds ago, at most `limit`; how many. A message that the broker
        delivers again later than that is handled again."""
        bounds.seconds("older", older, least=0)
        bounds.count("limit", limit)
        return await self._database.transact(lambda: sql.forget_seen(self.name, int(older * 1_000_000), limit))

    def retention(self, *, keep: float = 604_800.0, every: float = 60.0, batch: int = 1_000) -> Forgetting:
        """The loop that does so, for a `Worker`: `keep` seconds, longer than the broker may deliver again."""
        return Forgetting(self, keep=keep, every=every, batch=batch)

    def _first(self, id: str) -> Script[bool]:
        return (yield from sql.see(self.name, id)) == 1


class Forgetting:
    """A `Loop` that keeps an inbox bounded."""

    def __init__(self, inbox: MessageInbox, *, keep: float, every: float, batch: int) -> None:
        bounds.seconds("keep", keep, least=0)
        bounds.seconds("every", every)
        bounds.count("batch", batch)
        self.name = f"{inbox.name}:seen"
        self._inbox = inbox
        self._keep = keep
        self._every = every
        self._batch = batch

    async def open(self) -> News:
        return self._inbox._database.changed(self.name)

    async def step(self) -> float:
        trimmed = await self._inbox.trim(older=self._keep, limit=self._batch)
        return 0.0 if trimmed >= self._batch else self._every

    async def close(self) -> None:
        pass


def _check_id(id: object) -> None:
    if not isinstance(id, str) or not 1 <= len(id.encode("utf-8", "replace")) <= ID_BYTES_MAX:
        raise InvalidInput(f"a message's id is a text of 1 to {ID_BYTES_MAX} bytes, got {str(id)[:60]!r}")

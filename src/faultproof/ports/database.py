"""The database port: transactions, reads, schema, and news of commits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

from faultproof.clock import Env
from faultproof.ports.claims import ClaimTable
from faultproof.ports.log import LogTable
from faultproof.ports.schema import Schema
from faultproof.ports.script import Runnable, Script

T = TypeVar("T")


class Tx(Protocol):
    """An open transaction: what runs in it commits or vanishes with it."""

    def run(self, script: Script[T], *, single: bool = False) -> Awaitable[T]:
        """Run a script inside this transaction: all of its changes or, after an error, none of them.

        `single`: the script makes one change, in the last statement that it yields. It then goes without a savepoint
        around it, which on PostgreSQL saves two round trips. The price: after an error of PostgreSQL's the whole
        transaction can only be rolled back, while SQLite undoes the one statement.
        """
        ...


class SyncTx(Protocol):
    """An open transaction on a synchronous driver."""

    def run(self, script: Script[T], *, single: bool = False) -> T:
        """Run a script inside this transaction; `single` as in `Tx.run`."""
        ...


class JoinedTx(Tx, Protocol):
    """A transaction on a connection of the user's own, on an asynchronous driver; the user ends it."""

    def health(self) -> Awaitable[Health]:
        """The engine behind the connection, what this transaction's commit promises, and what wants attention."""
        ...


class JoinedSyncTx(SyncTx, Protocol):
    """The same on a synchronous driver."""

    def health(self) -> Health:
        """The engine behind the connection, what this transaction's commit promises, and what wants attention."""
        ...


class Transaction(Tx, Protocol):
    """A transaction that the user opened with `Database.transaction`; SQL of the user's own goes to the driver as it is.

    Await each call before the block ends: one that was never awaited has not happened, so nothing is committed then, and
    leaving the block raises `Misuse`. One that was cancelled or closed before it began was given up knowingly, and the
    rest commits.
    """

    @property
    def database(self) -> Database:
        """Whose transaction it is."""
        ...

    async def execute(self, sql: str, *parameters: Any) -> int:
        """Run a statement; the number of rows it changed (-1 where the driver does not say)."""
        ...

    async def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query; all of its rows."""
        ...


class News(Protocol):
    """Tells when something committed under a topic. It may tell too often; after `wait` returned, look."""

    async def wait(self, timeout: float) -> bool:
        """True once a commit was heard of since the last call, False after `timeout` seconds without."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class Health(NamedTuple):
    """What an operator wants to know at a glance; `warnings` are sentences."""

    engine: str
    durability: str
    warnings: tuple[str, ...]


class Database(Protocol):
    """One database, used from one event loop: the one that it was connected in.

    In another event loop every method raises `Misuse`, except that `close` works once the first has been closed.
    `transact` and `transaction` raise `Busy` when their turn or the write lock could not be had in time (nothing happened),
    `OutcomeUnknown` when a commit was sent and its answer lost, and `TransactionOpen` when called inside an open
    transaction of the same task.
    """

    @property
    def env(self) -> Env:
        """Clock, randomness, ids and signals."""
        ...

    @property
    def writers(self) -> int:
        """How many transactions of this process may write at the same time."""
        ...

    @property
    def durability(self) -> str:
        """The durability in effect, in the engine's own words, for reports."""
        ...

    @property
    def claims(self) -> ClaimTable:
        """Leased work on this engine."""
        ...

    @property
    def logs(self) -> LogTable:
        """Sequenced logs on this engine."""
        ...

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[Transaction]:
        """A transaction for the caller's own statements; rolled back if the block raises, or if it is still open after
        `timeout` seconds (`DeadlineExceeded`). Waiting for its turn before has a bound of its own (`Busy`). Raises
        `InvalidInput` for a timeout that is none."""
        ...

    async def transact(self, work: Runnable[T]) -> T:
        """Run a script in a transaction of its own; given the function that makes it, begin again where that helps."""
        ...

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        """Run a script that only reads, on one consistent snapshot. Raises `InvalidInput` if it tries to write.

        `snapshot=False`: each statement may see its own moment, which on PostgreSQL saves two round trips, and there the
        refusal of writes with them.
        """
        ...

    async def install(self, *schemas: Schema) -> None:
        """Create or upgrade tables; idempotent, and safe when many processes do it at once."""
        ...

    def in_transaction(self) -> bool:
        """Whether this task has a transaction of this database open."""
        ...

    def changed(self, topic: str) -> News:
        """Listen for commits that woke `topic`, by any process."""
        ...

    def wake(self, topics: Iterable[str], *, after: Callable[[], bool] | None = None) -> None:
        """Tell who listens, in every process, of a commit that this database did not make itself.

        From any thread and event loop; returns at once and never fails. `after`: asked every millisecond, for up to 5 s,
        and told once it is true; for a commit that is under way.
        """
        ...

    async def health(self) -> Health:
        """Engine, durability, and what wants attention."""
        ...

    async def close(self) -> None:
        """Finish what is running and release everything. Calling again is harmless, and goes on where a call was
        cancelled."""
        ...

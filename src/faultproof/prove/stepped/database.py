"""What a session's code sees as the database: the engine's own connection, scripts and tables, over a stepped wire."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from functools import partial
from typing import Any, TypeVar, cast

import psycopg

from faultproof.clock import Alarm, Env
from faultproof.engines.joined.psycopg import JoinedAsyncPsycopg
from faultproof.engines.postgres.claims import PostgresClaims
from faultproof.engines.postgres.connection import Connection
from faultproof.engines.postgres.database import RESTARTS_MAX, PostgresDatabase
from faultproof.engines.postgres.faults import Restartable, translated
from faultproof.engines.postgres.install import install
from faultproof.engines.postgres.log import PostgresLog
from faultproof.engines.postgres.render import render_numbered
from faultproof.engines.postgres.transaction import PostgresTransaction
from faultproof.engines.postgres.wire import Raw
from faultproof.engines.scopes import Scope, is_inside
from faultproof.errors import NotSupported
from faultproof.ports.claims import ClaimTable
from faultproof.ports.database import Health, News, Transaction, Tx
from faultproof.ports.log import LogTable
from faultproof.ports.schema import Schema
from faultproof.ports.script import (
    Begin,
    Call,
    Commit,
    Later,
    Patience,
    Release,
    Rollback,
    Runnable,
    Savepoint,
    Script,
    Step,
    atomic,
    begun,
    on_snapshot,
    transaction,
)
from faultproof.ports.statement import NOTHING, Answer, Statement
from faultproof.prove.harness import HarnessError
from faultproof.prove.rewriting import rewritten, through
from faultproof.prove.stepped.case import Cuts, Isolation, Rewrite
from faultproof.prove.stepped.cut import Cut
from faultproof.prove.stepped.wire import Wire

T = TypeVar("T")

_BEGINS: dict[Isolation, bytes] = {
    "read committed": b"BEGIN ISOLATION LEVEL READ COMMITTED",
    "repeatable read": b"BEGIN ISOLATION LEVEL REPEATABLE READ",
    "serializable": b"BEGIN ISOLATION LEVEL SERIALIZABLE",
}


class Names:
    """What statements are called, by the text that is sent."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}  # bounded: by the statements of a case
        self._texts: dict[Statement, bytes] = {}

    def learn(self, statement: Statement) -> None:
        """From now on its text is known."""
        if statement not in self._texts:
            self._texts[statement] = text = render_numbered(statement).text.encode()
            self._names[text] = statement.name

    def __call__(self, text: bytes) -> str:
        return self._names.get(text) or text.decode().split(" ISOLATION", 1)[0][:60]


class SteppedDatabase:
    """`Database` for one session: production's connection, rendering, errors and restarts; only who is next is decided
    elsewhere. What differs from production:

    - Nobody is woken, because nobody sleeps: `changed` is not supported.
    - How long a lock may be waited for is not limited (`Patience`), since waiting takes no time here.
    - The clock of `env` stands still, and a transaction is begun again without a pause.
    """

    def __init__(
        self, wire: Wire, names: Names, env: Env, rewrite: Rewrite | None = None, cuts: Cuts | None = None
    ) -> None:
        self.env = env
        self.durability = "stepped"
        self.writers = 1
        self.claims: ClaimTable = PostgresClaims()
        self.logs: LogTable = PostgresLog(env.clock)
        self._wire = wire
        self._names = names
        self._rewrite = rewrite
        self._cut = Cut(cuts) if cuts else None

    async def transact(self, work: Runnable[T]) -> T:
        for tries in range(RESTARTS_MAX):
            try:
                async with self._lent() as connection:
                    return (await connection.drive(self._seen(transaction(begun(work))))).result
            except Restartable:
                if not callable(work) or tries == RESTARTS_MAX - 1:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        async with self._lent() as connection:
            return await connection.drive(self._seen(on_snapshot(script) if snapshot else script))

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction()

    async def joined(self, isolation: Isolation, work: Callable[[Tx], Awaitable[T]]) -> T:
        """See `Stepping.joined`."""
        for tries in range(RESTARTS_MAX):
            try:
                return await self._joined(_BEGINS[isolation], work)
            except psycopg.Error as error:  # the user's own COMMIT
                problem = translated(error, "the joined database")
                if not isinstance(problem, Restartable) or tries == RESTARTS_MAX - 1:
                    raise problem from error
            except Restartable:
                if tries == RESTARTS_MAX - 1:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def install(self, *schemas: Schema) -> None:
        for schema in schemas:
            await self.transact(partial(install, schema))

    def in_transaction(self) -> bool:
        return is_inside(self)

    def changed(self, topic: str) -> News:
        raise NotSupported("in the stepped world nobody is woken: call what looks")

    def wake(self, topics: Iterable[str], *, after: Callable[[], bool] | None = None) -> None:
        pass

    async def health(self) -> Health:
        return Health("PostgreSQL", self.durability, ())

    async def close(self) -> None:
        pass

    # -- inside -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        """As the engine lends one: given back, what is still open on it is rolled back."""
        connection = Connection(self._wire, "the stepped database", _never_replaced)
        try:
            yield connection
        except GeneratorExit:  # the run has been given up: nothing may be sent any more
            raise
        except BaseException:
            if not connection.is_idle:
                await connection.execute(Rollback())
            raise

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        async with self._lent() as connection:
            await connection.execute(Begin(writes=True))
            scope = Scope(self, lambda: None)
            scope.begin()
            # It asks its database for nothing; that it is the same one is what callers check.
            tx = _Seen(cast(PostgresDatabase, self), connection, scope, self._seen)
            try:
                yield tx
            finally:
                scope.end()
            tx.check_whole()
            await connection.execute(Commit())

    async def _joined(self, begin: bytes, work: Callable[[Tx], Awaitable[T]]) -> T:
        await self._say(begin, is_silent=True)
        try:
            result = await work(_Joined(self._wire, self._seen))
        except Exception:
            await self._say(b"ROLLBACK")
            raise
        await self._say(b"COMMIT")
        return result

    async def _say(self, text: bytes, *, is_silent: bool = False) -> None:
        self._wire.announce(self._names(text), is_silent=is_silent)
        await self._wire.execute(text)

    def _seen(self, script: Script[T]) -> Script[T]:
        return through(script if self._cut is None else self._cut.through(script), self._see)

    def _see(self, step: Step) -> Step | Answer:
        match step:
            case Patience():
                return NOTHING
            case Call() | Later():
                return rewritten(step, self._call)
            case Savepoint() | Release():
                self._wire.announce(type(step).__name__.upper(), is_silent=True)
            case _:
                self._wire.announce(type(step).__name__)
        return step

    def _call(self, call: Call) -> Call | None:
        sent = call if self._rewrite is None else self._rewrite(call)
        if sent is not None:
            self._names.learn(sent.statement)
            self._wire.announce(sent.statement.name)
        return sent


class _Seen(PostgresTransaction):
    """The engine's transaction, whose scripts are seen."""

    def __init__(
        self,
        database: PostgresDatabase,
        connection: Connection,
        scope: Scope,
        seen: Callable[[Script[Any]], Script[Any]],
    ) -> None:
        super().__init__(database, connection, scope)
        self._seen = seen

    def run(self, script: Script[T], *, single: bool = False) -> Any:
        return super().run(self._seen(script if single else atomic(script)), single=True)


class _Joined:
    """The adapter for a connection of the user's, whose scripts are seen."""

    def __init__(self, wire: Wire, seen: Callable[[Script[Any]], Script[Any]]) -> None:
        self._handle = JoinedAsyncPsycopg(wire)
        self._seen = seen

    def run(self, script: Script[T], *, single: bool = False) -> Awaitable[T]:
        return self._handle.run(self._seen(script if single else atomic(script)), single=True)


async def _never_replaced(raw: Raw) -> Raw:
    raise HarnessError("the connection to the server was lost")


# -- what a session has of the world ----------------------------------------------------------------------------------


class _Still:
    """A clock that stands still: nothing may depend on how long a schedule takes."""

    def wall_us(self) -> int:
        return 1_700_000_000_000_000

    def monotonic(self) -> float:
        return 1_000.0

    async def sleep(self, seconds: float) -> None:
        pass

    def alarm(self, seconds: float, ring: Callable[[], object], *, context: Context | None = None) -> Alarm:
        raise NotSupported("in the stepped world no time passes")


class _Counted:
    """Ids that are the same in every run."""

    def __init__(self, number: int) -> None:
        self._ids: Generator[str, None, None] = (f"{number:08x}{n:024x}" for n in range(1_000_000))

    def new(self) -> str:
        return next(self._ids)


def still_env(name: str, number: int) -> Env:
    """For the session of that number: the same in every run."""
    return Env(clock=_Still(), rng=random.Random(number), ids=_Counted(number), process=name)  # noqa: S311  # no secret

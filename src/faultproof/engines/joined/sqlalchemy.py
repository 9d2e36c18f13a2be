"""SQLAlchemy 2: `Connection`, `Session`, `AsyncConnection` and `AsyncSession`, on the drivers that `dialects.py` knows.

One adapter for all, on the synchronous `Connection`: the asynchronous ones run it through `run_sync`, as SQLAlchemy runs
itself there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from faultproof.engines.joined.dialects import Dialect, dialect_of, is_in_driver_transaction
from faultproof.engines.joined.inside import WHERE, Origin, Topics, inside
from faultproof.errors import Closed, FaultproofError, InvalidInput, Misuse, NoTransaction
from faultproof.ports.database import Database, Health
from faultproof.ports.script import Call, Release, RollbackTo, Savepoint, Script, Step, drive
from faultproof.ports.statement import NOTHING, Answer

T = TypeVar("T")

_PLAIN: dict[type, tuple[str, ...]] = {
    Savepoint: ("SAVEPOINT faultproof",),
    Release: ("RELEASE SAVEPOINT faultproof",),
    RollbackTo: ("ROLLBACK TO SAVEPOINT faultproof", "RELEASE SAVEPOINT faultproof"),
}


class JoinedSqlalchemy:
    """Runs scripts on a `Connection`, or on that of a `Session` after flushing its objects."""

    def __init__(self, handle: sa.Connection | Session, now: Callable[[], int], wake: Database | None) -> None:
        self._handle = handle
        self._now = now
        self._wake = wake
        self._origin = Origin()
        if isinstance(handle, sa.Connection):
            _check_open(handle)

    def run(self, script: Script[T], *, single: bool = False) -> T:
        self._origin.check()
        connection = self._connection()
        return self._run(connection, self._dialect(connection), script, single=single)

    def health(self) -> Health:
        connection = self._connection()
        dialect = self._dialect(connection)
        return self._run(connection, dialect, dialect.health(), single=True)

    def _connection(self) -> sa.Connection:
        """The connection, in a transaction; what the session has not written yet goes first, as before a query."""
        if isinstance(self._handle, Session):
            # Inside of a flush (its events are a popular place to publish in) there is nothing to wait for.
            if self._handle.autoflush and not getattr(self._handle, "_flushing", False):
                self._handle.flush()
            try:
                return self._handle.connection()
            except exc.InvalidRequestError as error:
                raise _misused(error) from error
        _check_open(self._handle)
        try:
            if not self._handle.in_transaction():
                self._handle.begin()
        except exc.InvalidRequestError as error:
            raise _misused(error) from error
        return self._handle

    def _dialect(self, connection: sa.Connection) -> Dialect:
        return dialect_of(connection, self._now)

    def _run(self, connection: sa.Connection, dialect: Dialect, script: Script[T], *, single: bool) -> T:
        topics: Topics = {}
        try:
            begins = dialect.begin(connection)
        except exc.DBAPIError as error:
            raise dialect.problem(error) from error
        try:
            result = drive(inside(script, topics, single=single), lambda step: _execute(connection, dialect, step))
        except BaseException:
            if begins and is_in_driver_transaction(connection):
                connection.exec_driver_sql("ROLLBACK")
            raise
        if topics and self._wake is not None:
            _wake_after_commit(connection, self._wake, topics)
        return result


class JoinedAsyncSqlalchemy:
    """The same on an `AsyncConnection` or `AsyncSession`."""

    def __init__(self, handle: AsyncConnection | AsyncSession, now: Callable[[], int], wake: Database | None) -> None:
        self._handle = handle
        self._now = now
        self._wake = wake
        self._origin = Origin()

    async def run(self, script: Script[T], *, single: bool = False) -> T:
        self._origin.check_loop()
        return await self._synchronously(lambda joined: joined.run(script, single=single))

    async def health(self) -> Health:
        return await self._synchronously(lambda joined: joined.health())

    async def _synchronously(self, work: Callable[[JoinedSqlalchemy], T]) -> T:
        def joined(handle: sa.Connection | Session) -> T:
            return work(JoinedSqlalchemy(handle, self._now, self._wake))

        try:
            return await self._handle.run_sync(joined)
        except exc.InvalidRequestError as error:
            raise _misused(error) from error


def _execute(connection: sa.Connection, dialect: Dialect, step: Step) -> Answer:
    try:
        if not isinstance(step, Call):
            return _savepoint(connection, step)
        if not is_in_driver_transaction(connection):
            raise NoTransaction("SQLite has rolled the transaction back after an error: begin again")
        text, values = dialect.command(step)
        result = connection.exec_driver_sql(text, values, execution_options={"preserve_rowcount": True})
        rows = [tuple(row) for row in result] if result.returns_rows else ()
        return Answer(rows, result.rowcount)
    except exc.DBAPIError as error:
        raise dialect.problem(error) from error
    except exc.InvalidRequestError as error:
        raise _misused(error) from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidInput(f"a value does not fit into {WHERE}: {error}") from error


def _savepoint(connection: sa.Connection, step: Step) -> Answer:
    if type(step) is not RollbackTo or is_in_driver_transaction(connection):
        for text in _PLAIN[type(step)]:
            connection.exec_driver_sql(text)
    return NOTHING


def _check_open(connection: sa.Connection) -> None:
    if connection.closed:
        raise Closed("this SQLAlchemy connection is closed: use one that is open")


def _misused(error: exc.InvalidRequestError) -> FaultproofError:
    line = str(error).split("\n", 1)[0]
    if isinstance(error, exc.PendingRollbackError) or "closed transaction" in line:
        return NoTransaction(f"this transaction has ended, or failed before and can only be rolled back: {line}")
    if isinstance(error, exc.ResourceClosedError) or "permanently closed" in line:
        return Closed(f"SQLAlchemy says: {line}")
    if isinstance(error, exc.MissingGreenlet):
        return Misuse(
            "this is the synchronous side of an asynchronous session or connection: join the asynchronous one"
        )
    if "oncurrent" in line or isinstance(error, exc.IllegalStateChangeError):
        return Misuse("this session is in use by another task: use a session for each task")
    return Misuse(f"SQLAlchemy refuses: {line}")


# -- news of the commit ------------------------------------------------------------------------------------------------

# By transaction, so that one that is rolled back takes its news with it.
_waiting: WeakKeyDictionary[sa.Transaction, dict[tuple[Database, str], None]] = WeakKeyDictionary()


def _wake_after_commit(connection: sa.Connection, database: Database, topics: Topics) -> None:
    transaction = connection.get_transaction()
    if transaction is None:
        return
    waiting = _waiting.setdefault(transaction, {})
    waiting.update(dict.fromkeys((database, topic) for topic in topics))
    if not event.contains(connection, "commit", _committing):
        event.listen(connection, "commit", _committing)


def _committing(connection: sa.Connection) -> None:
    """SQLAlchemy calls this before it sends the COMMIT, of the outermost transaction only. Its end is seen by the database
    that sends the news: the transaction is active until then."""
    transaction = connection.get_transaction()
    if transaction is None:
        return
    for database, topic in _waiting.pop(transaction, {}):
        database.wake((topic,), after=lambda: not transaction.is_active)


def join(
    handle: object, now: Callable[[], int], wake: Database | None
) -> JoinedSqlalchemy | JoinedAsyncSqlalchemy | None:
    """The adapter for one of SQLAlchemy's objects; None for any other of its types."""
    if isinstance(handle, (scoped_session, async_scoped_session)):
        handle = handle()
    if isinstance(handle, (sa.Connection, Session)):
        return JoinedSqlalchemy(handle, now, wake)
    if isinstance(handle, (AsyncConnection, AsyncSession)):
        return JoinedAsyncSqlalchemy(handle, now, wake)
    return None

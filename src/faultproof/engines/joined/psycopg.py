"""psycopg 3: the user's `Connection` or `AsyncConnection`, in a transaction of the user's own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from faultproof.engines.joined.inside import WHERE, Origin, Topics, inside
from faultproof.engines.postgres.faults import translated
from faultproof.engines.postgres.render import Rendered, bind, render
from faultproof.engines.postgres.settings import health
from faultproof.engines.postgres.states import READ_ONLY, problem
from faultproof.errors import Closed, FaultproofError, InvalidInput, NoTransaction
from faultproof.ports.database import Health
from faultproof.ports.script import Call, Release, RollbackTo, Savepoint, Script, Step, drive, drive_async
from faultproof.ports.statement import NOTHING, Answer, Statement

T = TypeVar("T")

Command = tuple[bytes, dict[str, Any] | None]
AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

_PLAIN: dict[type, list[Command]] = {
    Savepoint: [(b"SAVEPOINT faultproof", None)],
    Release: [(b"RELEASE SAVEPOINT faultproof", None)],
    RollbackTo: [(b"ROLLBACK TO SAVEPOINT faultproof", None), (b"RELEASE SAVEPOINT faultproof", None)],
}
_REFUSED = (psycopg.Error, UnicodeEncodeError, OverflowError)
_rendered: dict[Statement, Rendered] = {}  # bounded: statements are declared at import, never made


class JoinedPsycopg:
    """Runs scripts on the user's connection with cursors of our own, so that row and cursor factories do not matter.

    In the user's pipeline a statement whose answer nobody needs travels with what the user sends next, as the user's own do.
    """

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self._raw = raw
        self._origin = Origin()
        self._asks = False
        """What the user has sent before is not answered yet."""
        _check(raw)

    def run(self, script: Script[T], *, single: bool = False) -> T:
        return self.run_noting(script, {}, single=single)

    def run_noting(self, script: Script[T], topics: Topics, *, single: bool) -> T:
        """Like `run`, for whoever knows of the commit: `topics` gets what is to be woken then."""
        self._origin.check()
        self._asks = _pipelines(self._raw)
        if self._raw.autocommit:
            self._settle()
        _check(self._raw)
        return drive(inside(script, topics, single=single), partial(self._execute, single))

    def health(self) -> Health:
        return self.run(health(), single=True)

    def _execute(self, single: bool, step: Step) -> Answer:
        answer, is_sent = NOTHING, single and _travels(self._raw, step)
        if not is_sent:
            self._settle()
        for text, values in _commands(step):
            try:
                cursor = psycopg.Cursor(self._raw, row_factory=tuple_row)
                if is_sent:
                    cursor.execute(text, values)
                    continue
                with self._round_trip():
                    cursor.execute(text, values)
                answer = Answer(cursor.fetchall() if cursor.description else (), cursor.rowcount)
            except _REFUSED as error:
                if self._asks and isinstance(error, psycopg.Error) and not self._raw.closed:  # of what was sent before
                    raise
                raise _problem(error) from error
        return answer

    def _settle(self) -> None:
        """In pipeline mode: or the status is yesterday's, and an error of the user's ours."""
        if self._asks:
            self._asks = False
            with self._round_trip():
                pass
            _check(self._raw)

    def _round_trip(self) -> AbstractContextManager[Any]:
        """What is sent in it is answered when it ends, in pipeline mode too."""
        return self._raw.pipeline() if _pipelines(self._raw) else nullcontext()


class JoinedAsyncPsycopg:
    """The same on an `AsyncConnection`."""

    def __init__(self, raw: psycopg.AsyncConnection[Any]) -> None:
        self._raw = raw
        self._origin = Origin()
        self._asks = False
        _check(raw)

    async def run(self, script: Script[T], *, single: bool = False) -> T:
        self._origin.check_loop()
        self._asks = _pipelines(self._raw)
        if self._raw.autocommit:
            await self._settle()
        _check(self._raw)
        return await drive_async(inside(script, {}, single=single), partial(self._execute, single))

    async def health(self) -> Health:
        return await self.run(health(), single=True)

    async def _execute(self, single: bool, step: Step) -> Answer:
        answer, is_sent = NOTHING, single and _travels(self._raw, step)
        if not is_sent:
            await self._settle()
        for text, values in _commands(step):
            try:
                cursor = psycopg.AsyncCursor(self._raw, row_factory=tuple_row)
                if is_sent:
                    await cursor.execute(text, values)
                    continue
                async with self._round_trip():
                    await cursor.execute(text, values)
                answer = Answer(await cursor.fetchall() if cursor.description else (), cursor.rowcount)
            except _REFUSED as error:
                if self._asks and isinstance(error, psycopg.Error) and not self._raw.closed:  # of what was sent before
                    raise
                raise _problem(error) from error
        return answer

    async def _settle(self) -> None:
        if self._asks:
            self._asks = False
            async with self._round_trip():
                pass
            _check(self._raw)

    def _round_trip(self) -> AbstractAsyncContextManager[Any]:
        return self._raw.pipeline() if _pipelines(self._raw) else nullcontext()


def _travels(raw: AnyConnection, step: Step) -> bool:
    """Whether it is sent with what the user sends next. Not in autocommit mode, where nothing might hold it together with
    that; and not behind a savepoint of ours, which is to undo it alone."""
    return _pipelines(raw) and not raw.autocommit and isinstance(step, Call) and step.statement.deferred


def _commands(step: Step) -> list[Command]:
    if not isinstance(step, Call):
        return _PLAIN[type(step)]
    rendered = _rendered.get(step.statement)
    if rendered is None:
        rendered = _rendered[step.statement] = render(step.statement)
    return [(rendered.text, bind(rendered, step.values))]


def _problem(error: Exception) -> FaultproofError:
    if not isinstance(error, psycopg.Error):
        return InvalidInput(f"a value does not fit into {WHERE}: {error}")
    if error.sqlstate == READ_ONLY:
        return problem(READ_ONLY, str(error), WHERE)
    return translated(error, WHERE)


def _pipelines(raw: AnyConnection) -> bool:
    return raw.pgconn.pipeline_status != PipelineStatus.OFF


def _check(raw: AnyConnection) -> None:
    if raw.closed:
        raise Closed("this psycopg connection is closed, by you or by the loss of its server: open a new one")
    status = raw.pgconn.transaction_status
    if status == TransactionStatus.INERROR:
        raise NoTransaction("a statement in this transaction has failed before: roll back, and begin again")
    if raw.autocommit and status == TransactionStatus.IDLE:
        raise NoTransaction(
            "this psycopg connection is in autocommit mode and outside a transaction: use `with connection.transaction():`"
        )


def join(handle: object) -> JoinedPsycopg | JoinedAsyncPsycopg | None:
    """The adapter for a connection of psycopg's; None for any other of its types."""
    if isinstance(handle, psycopg.Connection):
        return JoinedPsycopg(handle)
    if isinstance(handle, psycopg.AsyncConnection):
        return JoinedAsyncPsycopg(handle)
    return None

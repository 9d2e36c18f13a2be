"""One psycopg connection that executes steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from faultproof.engines.postgres.faults import NotBegun, connection_lost, translated
from faultproof.engines.postgres.render import Rendered, bind, render
from faultproof.errors import InvalidInput, NoTransaction, OutcomeUnknown
from faultproof.ports.script import (
    NOTHING,
    Answer,
    Begin,
    Call,
    Commit,
    Release,
    Rollback,
    RollbackTo,
    Savepoint,
    Script,
    Statement,
    Step,
    Wake,
)

T = TypeVar("T")

_PLAIN: dict[type, bytes] = {
    Rollback: b"ROLLBACK",
    Savepoint: b"SAVEPOINT faultproof",
    Release: b"RELEASE SAVEPOINT faultproof",
    RollbackTo: b"ROLLBACK TO SAVEPOINT faultproof; RELEASE SAVEPOINT faultproof",
}
_rendered: dict[Statement, Rendered] = {}  # bounded: statements are declared at import, never made


class Connection:
    """Executes steps on an autocommit connection, whose transactions are begun and ended by steps."""

    def __init__(self, raw: psycopg.AsyncConnection[tuple[Any, ...]], name: str) -> None:
        self.raw = raw
        self.name = name
        self._woken: dict[str, None] = {}  # bounded: topics of one transaction; a dict keeps their order
        self._begun = False

    @property
    def is_idle(self) -> bool:
        """Open, and outside any transaction."""
        return self.raw.pgconn.transaction_status == TransactionStatus.IDLE

    async def drive(self, script: Script[T]) -> T:
        """Run a script to its end; one whose caller is cancelled is dropped where it is."""
        return await drive(script, self.execute)

    async def execute(self, step: Step) -> Answer:
        """Run one step."""
        if type(step) is Call:
            return await self._call(step)
        if type(step) is Wake:
            self._woken[step.topic] = None
            return NOTHING
        if type(step) is Begin:
            return await self._begin(step)
        if type(step) is Commit:
            return await self._commit()
        return await self._plain(step)

    async def execute_raw(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Run the user's own SQL as it is; the driver's errors are the user's and pass through untranslated."""
        self._check()
        # Without parameters psycopg leaves a % alone, as users expect of SQL that takes none.
        cursor = await self.raw.execute(sql.encode(), parameters or None)
        return Answer(await cursor.fetchall() if cursor.description else (), cursor.rowcount)

    async def close(self) -> None:
        """Close; the server rolls back what is open."""
        await self.raw.close()

    def _check(self) -> None:
        # On an idle connection the server would commit each further statement alone, and answer COMMIT with a warning.
        if self._begun and self.is_idle:
            raise NoTransaction(
                f"the transaction in {self.name} was ended by a COMMIT or ROLLBACK of yours: begin again"
            )

    async def _call(self, call: Call) -> Answer:
        self._check()
        rendered = _rendered.get(call.statement)
        if rendered is None:
            rendered = _rendered[call.statement] = render(call.statement)
        try:
            cursor = await self.raw.execute(rendered.text, bind(rendered, call.values) or None)
            return Answer(await cursor.fetchall() if cursor.description else (), cursor.rowcount)
        except psycopg.Error as error:
            raise translated(error, self.name) from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise InvalidInput(f"a value does not fit into {self.name}: {error}") from error

    async def _begin(self, begin: Begin) -> Answer:
        self._woken.clear()
        # Said in full: the user's defaults may be others, and the guards of claims and logs need these.
        level = b"READ COMMITTED READ WRITE" if begin.writes else b"REPEATABLE READ READ ONLY"
        try:
            await self.raw.execute(b"BEGIN ISOLATION LEVEL " + level, prepare=False)
        except psycopg.Error as error:
            problem = translated(error, self.name)
            raise (NotBegun(str(problem)) if connection_lost(error) else problem) from error
        self._begun = True
        return NOTHING

    async def _commit(self) -> Answer:
        self._check()
        self._begun = False
        try:
            cursor = await self.raw.execute(b"COMMIT", prepare=False)
        except psycopg.Error as error:
            if connection_lost(error) or self.raw.closed:
                raise OutcomeUnknown(f"the commit to {self.name} was sent and its answer lost: {error}") from error
            raise translated(error, self.name) from error
        # The server answers COMMIT with ROLLBACK, and no error, where a statement before has failed.
        if cursor.statusmessage != "COMMIT":
            raise NoTransaction(f"the transaction in {self.name} was rolled back: a statement in it had failed before")
        return Answer([(topic,) for topic in self._woken], 0)

    async def _plain(self, step: Step) -> Answer:
        if type(step) is Rollback:
            self._woken.clear()
            self._begun = False
        try:
            await self.raw.execute(_PLAIN[type(step)], prepare=False)
        except psycopg.Error as error:
            if type(step) in (Rollback, RollbackTo):  # they never fail visibly; the connection will be replaced
                return NOTHING
            raise translated(error, self.name) from error
        return NOTHING


async def drive(script: Script[T], execute: Callable[[Step], Awaitable[Answer]]) -> T:
    """Run a script to its end with an asynchronous executor."""
    try:
        step = next(script)
        while True:
            try:
                answer = await execute(step)
            except Exception as error:
                step = script.throw(error)
            else:
                step = script.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result

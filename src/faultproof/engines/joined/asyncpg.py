"""asyncpg: the user's `Connection`, or what its pool lends, in a transaction of the user's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import asyncpg

from faultproof.engines.joined.inside import WHERE, Origin, inside
from faultproof.engines.postgres.render import Numbered, bind, render_numbered
from faultproof.engines.postgres.settings import health
from faultproof.engines.postgres.states import Lost, problem
from faultproof.errors import Closed, FaultproofError, InvalidInput, Misuse, NoTransaction
from faultproof.ports.database import Health
from faultproof.ports.script import Call, Release, RollbackTo, Savepoint, Script, Step, drive_async
from faultproof.ports.statement import NOTHING, Answer, Statement

T = TypeVar("T")

_PLAIN: dict[type, str] = {
    Savepoint: "SAVEPOINT faultproof",
    Release: "RELEASE SAVEPOINT faultproof",
    # Without parameters asyncpg sends both at once.
    RollbackTo: "ROLLBACK TO SAVEPOINT faultproof; RELEASE SAVEPOINT faultproof",
}
_OURS = asyncpg.Record  # and not a class of the user's
_RETURNS_ROWS = re.compile(r"\bRETURNING\b")
_rendered: dict[Statement, Numbered] = {}  # bounded: statements are declared at import, never made


class JoinedAsyncpg:
    """Runs scripts on the user's connection; its codecs and its cache of statements stay as they are."""

    def __init__(self, raw: asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]) -> None:
        self._raw = raw
        self._origin = Origin()
        self._check()

    async def run(self, script: Script[T], *, single: bool = False) -> T:
        self._origin.check_loop()
        self._check()
        # asyncpg finds out when the statement is under way, and is stuck with it. It has no public word for its loop.
        if getattr(self._raw, "_loop", None) not in (None, asyncio.get_running_loop()):
            raise Misuse("this asyncpg connection belongs to another event loop: connect in the one that uses it")
        return await drive_async(inside(script, {}, single=single), self._execute)

    async def health(self) -> Health:
        return await self.run(health(), single=True)

    async def _execute(self, step: Step) -> Answer:
        try:
            if isinstance(step, Call):
                return await self._call(step)
            await self._raw.execute(_PLAIN[type(step)])
            return NOTHING
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            raise translated(error) from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise InvalidInput(f"a value does not fit into {WHERE}: {error}") from error

    async def _call(self, call: Call) -> Answer:
        numbered = spelled(call.statement)
        values = arguments(numbered, call)
        if call.statement.reads or _RETURNS_ROWS.search(numbered.text):
            rows = [tuple(row) for row in await self._raw.fetch(numbered.text, *values, record_class=_OURS)]
            return Answer(rows, len(rows))
        # "INSERT 0 3": only `execute` tells it, and only `fetch` brings rows.
        status: str = await self._raw.execute(numbered.text, *values)
        count = status.rpartition(" ")[2]
        return Answer((), int(count) if count.isdigit() else -1)

    def _check(self) -> None:
        try:
            if self._raw.is_closed():
                raise Closed("this asyncpg connection is closed, by you or by the loss of its server: open a new one")
            if not self._raw.is_in_transaction():
                raise NoTransaction(
                    "this asyncpg connection is outside a transaction: use `async with connection.transaction():`"
                )
        except asyncpg.InterfaceError as error:
            raise Closed("this connection has been given back to its pool: join the one that you hold") from error


def spelled(statement: Statement) -> Numbered:
    """The statement as asyncpg takes it."""
    numbered = _rendered.get(statement)
    if numbered is None:
        numbered = _rendered[statement] = render_numbered(statement)
    return numbered


def arguments(numbered: Numbered, call: Call) -> Sequence[Any]:
    """Its values, in the order of their numbers."""
    bound = bind(numbered, call.values)
    return [bound[name] for name in numbered.order]


def translated(error: Exception) -> FaultproofError:
    """asyncpg's error as one of ours."""
    line = str(error).split("\n", 1)[0]
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return problem(state, line, WHERE)
    if "another operation" in line:
        return Misuse(
            "this asyncpg connection is busy with another operation: await one call after the other, or use one "
            "connection for each task"
        )
    if isinstance(error, asyncpg.DataError):
        return InvalidInput(f"a value does not fit into {WHERE}: {line}")
    if isinstance(error, asyncpg.InterfaceError) and "closed" in line:
        return Closed(f"the connection to {WHERE} is closed: {line}")
    if isinstance(error, asyncpg.InterfaceError):
        return Misuse(f"{WHERE}: {line}")
    return Lost(f"the connection to {WHERE} was lost, and with it the transaction: {line}")


def join(handle: object) -> JoinedAsyncpg | None:
    """The adapter for a connection of asyncpg's, lent by a pool or not; None for any other of its types."""
    if isinstance(handle, (asyncpg.Connection, asyncpg.pool.PoolConnectionProxy)):
        return JoinedAsyncpg(handle)
    return None

"""What every engine checks around a transaction that a user holds open: who is inside, and for how long."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import TracebackType

from faultproof.errors import Closed, DeadlineExceeded, TransactionOpen, UsedAfterFork


class Scope:
    """The time during which a task holds a transaction of `database` open."""

    def __init__(self, database: object) -> None:
        self.database = database
        self.is_over = False
        self.outer: Scope | None = None

    def __enter__(self) -> Scope:
        self.outer = _innermost.get()
        _innermost.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Tasks that were started inside keep a copy of the context for ever; `is_over` is what tells them.
        self.is_over = True
        _innermost.set(self.outer)

    def check(self) -> None:
        """Raise unless statements may still run in the transaction."""
        if self.is_over:
            raise Closed("this transaction has ended: open a new one")


_innermost: ContextVar[Scope | None] = ContextVar("faultproof_open_transaction", default=None)


def is_inside(database: object) -> bool:
    """Whether this task, or the one that started it, holds a transaction of `database` open."""
    scope = _innermost.get()
    while scope is not None:
        if scope.database is database and not scope.is_over:
            return True
        scope = scope.outer
    return False


def refuse_inside(database: object) -> None:
    """Raise `TransactionOpen` if this task, or the one that started it, holds a transaction of `database` open."""
    if is_inside(database):
        raise TransactionOpen("a transaction is open in this task and this call would wait for it: pass `tx=`")


def refuse_after_fork(pid: int) -> None:
    """Raise `UsedAfterFork` unless this still is the process `pid`."""
    if os.getpid() != pid:
        raise UsedAfterFork("this database was connected before a fork: connect in the child process instead")


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Cancel what runs inside after so many seconds, and say so."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(f"the transaction was open for {seconds} s and has been rolled back") from error

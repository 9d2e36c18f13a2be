"""What every engine checks: in which process and event loop it is used, and who is inside an open transaction."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, TypeVar

from faultproof.errors import Closed, Misuse, TransactionOpen, UsedAfterFork
from faultproof.primitives.shadowing import refuse_in_shadow

T = TypeVar("T")


class Home:
    """The process and the event loop that a database was connected in. It works nowhere else: threads and sockets stay in
    the process, and what waits in one loop is never woken from another."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raise `UsedAfterFork` in another process, and `Misuse` in another event loop or outside any."""
        refuse_after_fork(self._pid)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise Misuse(
                "this database belongs to the event loop that it was connected in, and this is another: connect in each "
                "`asyncio.run`, or keep one loop (`faultproof.Blocking` has one for synchronous code)"
            )

    def check_closing(self) -> None:
        """Like `check`; but from a loop that was closed, any other may let go of what it has left behind."""
        if self._loop.is_closed():
            refuse_after_fork(self._pid)
        else:
            self.check()


class Scope:
    """The time during which a task holds a transaction of `database` open. `usable` raises where that cannot be used."""

    def __init__(self, database: object, usable: Callable[[], None]) -> None:
        self.database = database
        self.is_over = False
        self.outer: Scope | None = None
        self._usable = usable
        self._unawaited = 0

    def begin(self) -> None:
        """From here on this task, and those that it starts, are inside."""
        self.outer = _innermost.get()
        _innermost.set(self)

    def end(self) -> None:
        """Nothing may run in the transaction any more."""
        # Tasks that were started inside keep a copy of the context for ever; `is_over` is what tells them.
        self.is_over = True
        _innermost.set(self.outer)

    def check(self) -> None:
        """Raise unless statements may still run in the transaction, and here."""
        if self.is_over:
            raise Closed("this transaction has ended: open a new one")
        refuse_in_shadow()
        self._usable()

    def call(self, work: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """Work in the transaction, to be awaited. It counts from now on, so that its loss is noticed before the commit."""
        self._unawaited += 1
        return _Call(self._checked(work), self._dealt_with)

    def refuse_unawaited(self) -> None:
        """Raise `Misuse` if a call was made and never awaited: the user believes that it is part of what is committed."""
        if self._unawaited:
            raise Misuse(
                "a call in this transaction was never awaited, so all of it has been rolled back: put `await` before each "
                "call on `tx` or with `tx=`"
            )

    def _dealt_with(self) -> None:
        self._unawaited -= 1

    async def _checked(self, work: Callable[[], Awaitable[T]]) -> T:
        self.check()
        return await work()


class _Call(Coroutine[Any, Any, T]):
    """A coroutine that tells when it is first awaited, cancelled or closed: whoever does that knows of it. Python's own
    cannot: one that was cancelled before its first step looks like one that was forgotten."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], dealt_with: Callable[[], None]) -> None:
        self._coroutine = coroutine  # nobody else has it, so it goes, and warns, with this one
        self._dealt_with: Callable[[], None] | None = dealt_with

    def __await__(self) -> Generator[Any, Any, T]:
        self._tell()
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        self._tell()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self._tell()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._tell()
        self._coroutine.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # `cr_frame` and the like, for tracebacks of tasks and for debuggers

    def _tell(self) -> None:
        if self._dealt_with is not None:
            self._dealt_with()
            self._dealt_with = None


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
        raise UsedAfterFork(
            "this database was connected before a fork: close it before the fork, or spawn instead of forking"
        )

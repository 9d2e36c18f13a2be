"""What every engine checks around a transaction that a user holds open: who is inside, and in which process."""

from __future__ import annotations

import os
from contextvars import ContextVar

from faultproof.errors import Closed, TransactionOpen, UsedAfterFork


class Scope:
    """The time during which a task holds a transaction of `database` open."""

    def __init__(self, database: object) -> None:
        self.database = database
        self.is_over = False
        self.outer: Scope | None = None

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
        raise UsedAfterFork(
            "this database was connected before a fork: close it before the fork, or spawn instead of forking"
        )

"""A database that shows on the board when a transaction is open, and tells when it needs repair."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from faultproof.errors import Repair
from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import Runnable, Script, begun
from faultproof.primitives.around import Around
from faultproof.shop.board import Flag, State

T = TypeVar("T")


class Watched(Around):
    """The `Database` port around another. The library knows nothing of being watched, or killed."""

    def __init__(
        self, inner: Database, flag: Flag, *, closing: State = State.COMMITTING, repair: Callable[[Repair], None]
    ) -> None:
        """`closing`: what a transaction of the user's own shows at its end. `repair`: hears of a full disk and the like."""
        super().__init__(inner)
        self._flag = flag
        self._closing = closing
        self._repair = repair
        self._latest: object = None

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction(timeout)

    async def transact(self, work: Runnable[T]) -> T:
        turn = object()

        def shown() -> Script[T]:
            self._begin(turn)
            result = yield from begun(work)
            self._flag.show(State.COMMITTING)
            return result

        with _Telling(self._repair):
            try:
                return await self._inner.transact(shown if callable(work) else shown())
            finally:
                self._end(turn)

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        with _Telling(self._repair):
            return await self._inner.read(script, snapshot=snapshot)

    @asynccontextmanager
    async def _transaction(self, timeout: float) -> AsyncIterator[Transaction]:
        turn = object()
        with _Telling(self._repair):
            try:
                async with self._inner.transaction(timeout=timeout) as tx:
                    self._begin(turn)
                    yield tx
                    self._flag.show(self._closing)
            finally:
                self._end(turn)

    def _begin(self, turn: object) -> None:
        self._latest = turn
        self._flag.show(State.OPEN)

    def _end(self, turn: object) -> None:
        # Once a commit is answered the next transaction may be open already: that one clears the flag itself.
        if self._latest is turn:
            self._flag.show(State.IDLE)


class _Telling:
    """Lets errors pass, and tells of those that no retry can help."""

    def __init__(self, repair: Callable[[Repair], None]) -> None:
        self._repair = repair

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Repair):
            self._repair(error)

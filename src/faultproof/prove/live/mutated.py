"""A database with something left out of the scripts that it is given: a mutant, in a process of the operating system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import Call, Runnable, Script, Step, begun
from faultproof.ports.statement import Answer
from faultproof.primitives.around import Around
from faultproof.prove.live.protocol import Mutation
from faultproof.prove.rewriting import rewritten, through

T = TypeVar("T")


class MutatedDatabase(Around):
    """Every script runs as the mutation has it, also those in a transaction that the user has opened; the user's own SQL
    runs as it is."""

    def __init__(self, inner: Database, mutation: Mutation) -> None:
        super().__init__(inner)
        self._left_out = frozenset(mutation.left_out)
        self._conditions = {name: frozenset(numbers) for name, numbers in mutation.conditions.items()}

    async def transact(self, work: Runnable[T]) -> T:
        if callable(work):
            return await self._inner.transact(lambda: self.changed_script(begun(work)))
        return await self._inner.transact(self.changed_script(work))

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        return await self._inner.read(self.changed_script(script), snapshot=snapshot)

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction(timeout)

    @asynccontextmanager
    async def _transaction(self, timeout: float) -> AsyncIterator[Transaction]:
        async with self._inner.transaction(timeout=timeout) as tx:
            yield _Mutated(tx, self)

    def changed_script(self, script: Script[T]) -> Script[T]:
        """As it runs."""
        return through(script, self._see)

    def _see(self, step: Step) -> Step | Answer:
        return rewritten(step, self._rewrite)

    def _rewrite(self, call: Call) -> Call | None:
        name = call.statement.name
        if name in self._left_out:
            return None
        if name not in self._conditions:
            return call
        from faultproof.prove.mutants.parsed import changed  # takes a parser, which the nursery has imported

        return call._replace(statement=changed(call.statement, self._conditions[name]))


class _Mutated:
    """The user's transaction on such a database."""

    def __init__(self, inner: Transaction, database: MutatedDatabase) -> None:
        self._inner = inner
        self._database = database

    @property
    def database(self) -> Database:
        return self._inner.database

    def run(self, script: Script[T], *, single: bool = False) -> Awaitable[T]:
        return self._inner.run(self._database.changed_script(script), single=single)

    async def execute(self, sql: str, *parameters: Any) -> int:
        return await self._inner.execute(sql, *parameters)

    async def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return await self._inner.fetch(sql, *parameters)

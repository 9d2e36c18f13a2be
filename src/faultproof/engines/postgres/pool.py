"""A bounded set of connections: lent to one transaction each, replaced when they break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psycopg

from faultproof.engines.postgres.connection import Connection
from faultproof.errors import Closed, Overloaded
from faultproof.ports.script import Rollback

SIZE = 8
"""Connections of one `Database`. PostgreSQL itself gets slower with more than a few per core."""
WAIT_S = 5.0
"""How long a transaction waits for a connection."""
ROLLBACK_S = 5.0
"""How long a rollback may take before the connection is closed instead."""


class Pool:
    """Lends connections, the last one used first."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], first: Connection) -> None:
        self._connect = connect
        self._idle = [first]
        self._free = asyncio.Semaphore(SIZE)
        self._closed = False

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction; what is left open on it afterwards is rolled back."""
        try:
            # Not `wait_for`: before Python 3.12 it forgets a cancel that comes in the moment of the result.
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded(f"all {SIZE} connections are in use", retry_after=WAIT_S) from error
        try:
            if self._closed:
                raise Closed("the database is closed: connect again")
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                # Shielded, so that a second cancel cannot leave the transaction, and its locks, open.
                await asyncio.shield(self._take_back(connection))
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close what is idle now, and the rest when it comes back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _take_back(self, connection: Connection) -> None:
        if not connection.is_idle:
            with suppress(psycopg.Error, TimeoutError):
                async with asyncio.timeout(ROLLBACK_S):
                    await connection.execute(Rollback())
        if connection.is_idle and not self._closed:
            self._idle.append(connection)
        else:
            await connection.close()

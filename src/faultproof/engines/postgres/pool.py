"""A bounded set of connections: lent to one transaction each, replaced when they break."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import psycopg
import psycopg_pool

from faultproof.engines.postgres.address import Address, cannot_reach, without_password
from faultproof.engines.postgres.options import PostgresOptions
from faultproof.engines.postgres.wire import Raw, is_alive, is_idle, is_settled, settle
from faultproof.errors import Busy, Closed

IDLE_S = 60.0
"""A connection beyond the pool's minimum that was not used for so long is closed."""


class Pool(Protocol):
    """Lends connections that are outside any transaction."""

    @property
    def size(self) -> int:
        """How many at most."""
        ...

    async def take(self) -> Raw:
        """A connection. Raises `Busy` when none comes free in time, and `TryAgain` when the server cannot be reached."""
        ...

    async def replace(self, raw: Raw) -> Raw:
        """Another one instead of one that is broken."""
        ...

    def give_back_idle(self, raw: Raw) -> bool:
        """Give back at once a connection that was seen to be idle; False where that takes more."""
        ...

    async def give_back(self, raw: Raw) -> None:
        """What is still open on it is rolled back with it."""
        ...

    def renew(self) -> None:
        """Whatever is open now is not lent again."""
        ...

    async def close(self) -> None:
        """Close what is idle now, and the rest when it comes back."""
        ...


class OwnPool:
    """Connections of this `Database`'s own; the last one used is lent first, so that the others may go."""

    def __init__(self, connect: Callable[[], Awaitable[Raw]], options: PostgresOptions, first: Raw) -> None:
        self._connect = connect
        self._options = options
        self._idle: deque[tuple[Raw, float]] = deque([(first, 0.0)])  # bounded: by the semaphore
        self._free = asyncio.Semaphore(options.pool_max)
        self._closed = False

    @property
    def size(self) -> int:
        return self._options.pool_max

    async def fill(self) -> None:
        """Open the minimum."""
        while len(self._idle) < self._options.pool_min:
            self._idle.append((await self._connect(), _now()))

    async def take(self) -> Raw:
        await self._wait()
        try:
            if self._closed:
                raise Closed("the database is closed: connect again")
            while self._idle:
                raw, _ = self._idle.pop()
                if is_alive(raw):
                    return raw
                await raw.close()
            return await self._connect()
        except BaseException:
            self._free.release()
            raise

    async def _wait(self) -> None:
        """For one that is free."""
        if not self._free.locked():  # nearly always, and then this does not wait
            await self._free.acquire()
            return
        try:
            # Not `wait_for`: before Python 3.12 it forgets a cancel that comes in the moment of the result.
            async with asyncio.timeout(self._options.pool_timeout):
                await self._free.acquire()
        except TimeoutError as error:
            raise all_in_use(self._options.pool_max, self._options.pool_timeout) from error

    async def replace(self, raw: Raw) -> Raw:
        await raw.close()
        return await self._connect()

    def give_back_idle(self, raw: Raw) -> bool:
        now = _now()
        if self._closed or self._has_unused(now, coming=1) or not is_settled(raw):
            return False
        self._idle.append((raw, now))
        self._free.release()
        return True

    async def give_back(self, raw: Raw) -> None:
        try:
            if is_idle(raw) and not self._closed and await settle(raw):
                self._idle.append((raw, _now()))
                await self._close_unused()
            else:
                await raw.close()
        finally:
            self._free.release()

    def renew(self) -> None:
        idle, self._idle = self._idle, deque()  # bounded: by the semaphore
        for raw, _ in idle:
            raw.pgconn.finish()

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            raw, _ = self._idle.pop()
            await raw.close()

    async def _close_unused(self) -> None:
        while self._has_unused(_now()):
            raw, _ = self._idle.popleft()
            await raw.close()

    def _has_unused(self, now: float, *, coming: int = 0) -> bool:
        """One beyond the minimum, with those that come back just now, has been idle for long."""
        too_many = len(self._idle) + coming > self._options.pool_min
        return too_many and bool(self._idle) and self._idle[0][1] < now - IDLE_S


class UsersPool:
    """The user's `AsyncConnectionPool`. Its connections go back as they came."""

    def __init__(self, pool: psycopg_pool.AsyncConnectionPool[Any], timeout: float, address: Address) -> None:
        self._pool = pool
        self._timeout = timeout
        self._address = address
        self._autocommit: dict[int, bool] = {}  # bounded: by the pool
        self._closed = False

    @property
    def size(self) -> int:
        return self._pool.max_size

    async def take(self) -> Raw:
        if self._closed:
            raise Closed("the database is closed: connect again")
        try:
            raw: Raw = await self._pool.getconn(self._timeout)
        except psycopg_pool.PoolTimeout as error:
            raise all_in_use(self.size, self._timeout) from error
        except psycopg_pool.TooManyRequests as error:
            raise Busy(f"too many wait for the pool of {self._address.name}", retry_after=self._timeout) from error
        except psycopg_pool.PoolClosed as error:
            raise Closed(f"the pool of {self._address.name} is not open: open it before, and close it after") from error
        except psycopg.Error as error:
            raise cannot_reach(self._address, error) from without_password(error)
        self._autocommit[id(raw)] = raw.autocommit
        if not raw.autocommit:
            await raw.set_autocommit(True)
        return raw

    async def replace(self, raw: Raw) -> Raw:
        await raw.close()
        await self.give_back(raw)
        return await self.take()

    def give_back_idle(self, raw: Raw) -> bool:
        return False  # psycopg's pool is asked

    async def give_back(self, raw: Raw) -> None:
        autocommit = self._autocommit.pop(id(raw), None)
        if autocommit is None:  # it was to be replaced, went back, and there was no other
            return
        if not is_idle(raw):
            await raw.close()
        elif not autocommit:
            with suppress(psycopg.Error):
                await raw.set_autocommit(False)
        await self._pool.putconn(raw)

    def renew(self) -> None:
        """It is the user's: each connection is replaced when it turns out to be of no use."""

    async def close(self) -> None:
        self._closed = True  # and the pool stays open, for who opened it


def all_in_use(size: int, timeout: float) -> Busy:
    """No connection came free."""
    return Busy(f"all {size} connections are in use (waited {timeout} s)", retry_after=timeout)


def _now() -> float:
    return asyncio.get_running_loop().time()

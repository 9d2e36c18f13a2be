"""Connecting: the first connection shows whom to, and the rest is put together accordingly."""

from __future__ import annotations

import inspect
from typing import Any

import psycopg
import psycopg_pool
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from faultproof.clock import Env
from faultproof.engines.postgres.address import Address, address_of, cannot_reach, described, without_password
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.engines.postgres.direct import Direct
from faultproof.engines.postgres.faults import translated
from faultproof.engines.postgres.install import is_installed
from faultproof.engines.postgres.log import PostgresLog
from faultproof.engines.postgres.news import Wakeups
from faultproof.engines.postgres.options import PostgresOptions
from faultproof.engines.postgres.pool import OwnPool, Pool, UsersPool
from faultproof.engines.postgres.server import Server, look_at
from faultproof.engines.postgres.wire import Command, Raw
from faultproof.errors import CannotOpen, FaultproofError, InvalidInput, SchemaMismatch, TryAgain

LOCK_TIMEOUT_S = 5.0
"""How long a statement waits for a lock that another transaction holds."""


async def connect(
    where: str | psycopg_pool.AsyncConnectionPool[Any], *, env: Env, create: bool, options: PostgresOptions
) -> PostgresDatabase:
    """See `open_database`."""
    address = address_of(where) if isinstance(where, str) else await _address_of_pool(where)
    plain = Connecting(address)
    try:
        if isinstance(where, str):
            database = await _with_own_pool(plain, address, env, options)
        else:
            database = await _with_users_pool(where, plain, address, env, options)
    except psycopg.Error as error:
        raise _cannot_open(translated(error, address.name)) from error
    except TryAgain as error:
        raise _cannot_open(error) from error
    try:
        if not create and not await database.read(is_installed()):
            raise SchemaMismatch(
                f"{address.name} has no tables of faultproof's: name another database, or call `install()` first"
            )
    except BaseException:
        await database.close()
        raise
    return database


def _cannot_open(error: FaultproofError) -> FaultproofError:
    """What may succeed later is no good now: there is nothing yet to try again with."""
    return CannotOpen(str(error)) if isinstance(error, TryAgain) else error


async def _with_own_pool(plain: Connecting, address: Address, env: Env, options: PostgresOptions) -> PostgresDatabase:
    first = await plain()
    try:
        server = await look_at(first, address, pooler=options.pooler)
        # Settings of the session are ours to keep, unless the next transaction may meet another session.
        lending = plain if server.pooled else Connecting(address, first=_settings())
        await lending.prepare(first)
        pool = OwnPool(lending, options, first)
        await pool.fill()
    except BaseException:
        await first.close()
        raise
    said_first = (_settings(local=True),) if server.pooled else ()
    return _put_together(env, pool, server, plain, options, said_first)


async def _with_users_pool(
    users: psycopg_pool.AsyncConnectionPool[Any],
    plain: Connecting,
    address: Address,
    env: Env,
    options: PostgresOptions,
) -> PostgresDatabase:
    pool = UsersPool(users, options.pool_timeout, address)
    raw = await pool.take()
    try:
        server = await look_at(raw, address, pooler=options.pooler)
    finally:
        await pool.give_back(raw)
    return _put_together(env, pool, server, plain, options, (_settings(local=True),))


def _put_together(
    env: Env, pool: Pool, server: Server, plain: Connecting, options: PostgresOptions, first: tuple[Command, ...]
) -> PostgresDatabase:
    logs = PostgresLog(env.clock)
    wakeups = plain.wakeups(env, server, logs, options)
    return PostgresDatabase(env=env, pool=pool, server=server, logs=logs, wakeups=wakeups, first=first)


class Connecting:
    """Makes connections to one address, in autocommit: transactions are begun by scripts."""

    def __init__(self, address: Address, first: Command | None = None) -> None:
        """`first`: what is said on each new one."""
        self._address = address
        self._conninfo = make_conninfo("", **address.options)
        self._first = first

    async def __call__(self) -> Raw:
        """Raises `TryAgain`: a server that restarts is away for a moment."""
        try:
            raw = await Direct.connect(self._conninfo, autocommit=True)
            try:
                await self.prepare(raw)
            except BaseException:  # a cancel too: nobody else knows of it yet
                await raw.close()
                raise
        except psycopg.Error as error:
            raise cannot_reach(self._address, error) from without_password(error)
        return raw

    def wakeups(self, env: Env, server: Server, logs: PostgresLog, options: PostgresOptions) -> Wakeups:
        """On a connection of their own, outside the pool."""
        return Wakeups(env, self._conninfo, logs.floors, poll_s=options.poll, hears=not server.pooled)

    async def prepare(self, raw: Raw) -> None:
        """Make one that is there already like the others."""
        if self._first is not None:
            await raw.execute(self._first.text, prepare=False)


async def _address_of_pool(pool: psycopg_pool.AsyncConnectionPool[Any]) -> Address:
    """Where the pool's connections lead: wake-ups are heard and sent on connections of our own."""
    if not isinstance(pool, psycopg_pool.AsyncConnectionPool):
        raise InvalidInput(f"a database is named by a URL or a psycopg_pool.AsyncConnectionPool, not by {type(pool)}")
    conninfo, options = await _resolved(pool.conninfo), await _resolved(pool.kwargs) or {}
    # What is not libpq's (row factories and the like) is for the pool's own connections.
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return described({**conninfo_to_dict(conninfo), **{name: options[name] for name in known & options.keys()}})


async def _resolved(given: Any) -> Any:
    """What a pool was given: a value, or a function that makes it, which may be asynchronous."""
    made = given() if callable(given) else given
    return await made if inspect.isawaitable(made) else made


def _settings(*, local: bool = False) -> Command:
    milliseconds = int(LOCK_TIMEOUT_S * 1_000)
    return Command(b"SET %s lock_timeout = %d" % (b"LOCAL" if local else b"SESSION", milliseconds), prepare=True)

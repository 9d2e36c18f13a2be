"""`join`: a transaction of the user's own, on whatever library opened it, as the `tx` of durable calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, overload

from faultproof.clock import Env, SystemClock
from faultproof.engines.sqlite.joined import JoinedSqlite
from faultproof.errors import NotSupported
from faultproof.ports.database import Database, JoinedSyncTx, JoinedTx
from faultproof.primitives.shadowing import refuse_in_shadow

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy as sa
    import sqlalchemy.ext.asyncio as sa_async
    import sqlalchemy.orm as sa_orm


class AsyncpgConnection(Protocol):
    """What asyncpg's `Connection` has, and what its pool lends; asyncpg itself comes without types."""

    def is_in_transaction(self) -> bool: ...

    def get_server_pid(self) -> int: ...


class DjangoConnection(Protocol):
    """What `django.db.connection` and the members of `django.db.connections` have."""

    alias: str
    in_atomic_block: bool
    needs_rollback: bool


@overload
def join(handle: sqlite3.Connection | psycopg.Connection[Any], *, env: Env | None = None) -> JoinedSyncTx: ...


@overload
def join(
    handle: psycopg.AsyncConnection[Any] | AsyncpgConnection,
    *,
    env: Env | None = None,
) -> JoinedTx: ...


@overload
def join(
    handle: sa_async.AsyncConnection | sa_async.AsyncSession | sa_async.async_scoped_session[Any],
    *,
    wake: Database | None = None,
    env: Env | None = None,
) -> JoinedTx: ...


@overload
def join(
    handle: sa.Connection | sa_orm.Session | sa_orm.scoped_session[Any] | DjangoConnection,
    *,
    wake: Database | None = None,
    env: Env | None = None,
) -> JoinedSyncTx: ...


def join(handle: Any, *, wake: Database | None = None, env: Env | None = None) -> JoinedTx | JoinedSyncTx:
    """Your own open transaction, as the `tx` of any durable call; you commit it.

    `handle`: a `sqlite3.Connection`; psycopg's `Connection` or `AsyncConnection`; asyncpg's `Connection`; SQLAlchemy's
    `Connection`, `Session`, `AsyncConnection` or `AsyncSession`; `django.db.connection`. On a synchronous handle durable
    calls return their result directly, on an asynchronous one they are awaited.

    After your commit others hear of it at once where the library tells of commits (SQLAlchemy, Django) and `wake` is given:
    the open `Database` that sends the news, in whatever thread or event loop it lives. Otherwise they hear by their poll
    (50 ms). `health()` of what is returned says what the commit will promise.

    Raises `NoTransaction` when the handle would commit our statement by itself, `Closed` when it is closed, and
    `NotSupported` for anything else. Asynchronous sessions are looked at when they are first used.
    """
    refuse_in_shadow()
    joined = _joined(handle, SystemClock().wall_us if env is None else env.clock.wall_us, wake)
    if joined is None:
        raise NotSupported(
            f"a {type(handle).__module__}.{type(handle).__qualname__} cannot be joined: pass the connection or session of "
            "sqlite3, psycopg, asyncpg, SQLAlchemy or Django whose transaction is open"
        )
    return joined


def _joined(handle: object, now: Callable[[], int], wake: Database | None) -> JoinedTx | JoinedSyncTx | None:
    """Asks for the library by name, so that one is imported here only where its user has done so before."""
    if isinstance(handle, sqlite3.Connection):
        _refuse_wake(wake, "sqlite3")
        return JoinedSqlite(handle, now)
    for library in (kind.__module__.partition(".")[0] for kind in type(handle).__mro__):
        if library == "psycopg":
            from faultproof.engines.joined.psycopg import join as join_psycopg

            _refuse_wake(wake, library)
            return join_psycopg(handle)
        if library == "asyncpg":
            from faultproof.engines.joined.asyncpg import join as join_asyncpg

            _refuse_wake(wake, library)
            return join_asyncpg(handle)
        if library == "sqlalchemy":
            from faultproof.engines.joined.sqlalchemy import join as join_sqlalchemy

            return join_sqlalchemy(handle, now, wake)
        if library == "django":
            from faultproof.engines.joined.django import join as join_django

            return join_django(handle, now, wake)
    return None


def _refuse_wake(wake: Database | None, library: str) -> None:
    if wake is not None:
        raise NotSupported(
            f"{library} tells nobody of a commit, so `wake` could not be used: leave it out, and listeners hear by their "
            "poll; or call `wake` of the database yourself after your commit"
        )

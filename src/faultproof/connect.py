"""Where engines and patterns meet: `connect` opens a database by URL, `join` wraps a transaction of the user's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from faultproof.clock import Env
from faultproof.engines import postgres
from faultproof.engines.postgres.options import PostgresOptions as PostgresOptions
from faultproof.engines.sqlite import open_database
from faultproof.engines.sqlite.joined import JoinedSqlite
from faultproof.errors import InvalidInput, NotSupported
from faultproof.ports.database import Database, SyncTx

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool


class Connecting(Awaitable[Database]):
    """What `connect` returns: await it and close the database yourself, or use it with `async with`."""

    def __init__(self, opening: Callable[[], Coroutine[object, None, Database]]) -> None:
        self._opening = opening
        self._database: Database | None = None

    def __await__(self) -> Generator[object, None, Database]:
        return self._opening().__await__()

    async def __aenter__(self) -> Database:
        self._database = await self
        return self._database

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._database is not None
        await self._database.close()


def connect(
    database: str | os.PathLike[str] | AsyncConnectionPool[Any],
    *,
    env: Env | None = None,
    create: bool = True,
    options: PostgresOptions | None = None,
) -> Connecting:
    """Open a database: `shop.db`, `Path("/data/shop.db")`, `sqlite:///data/shop.db?synchronous=normal`, or
    `postgresql://user@host/shop`.

    What a PostgreSQL URL leaves out, libpq finds (PGHOST, PGPASSWORD, ~/.pgpass); what it may say (`sslmode`, several
    hosts …) is in libpq's documentation. Given a `psycopg_pool.AsyncConnectionPool`, transactions use its connections, and
    it stays yours to open and close. `options` are for PostgreSQL.

    The default durability is the engine's safest: a commit that was answered survives power loss, on SQLite
    (`synchronous=full`) and on a PostgreSQL server as it comes; `Database.durability` says. With `create=False` a database
    that is missing, or holds no tables of faultproof's, is refused and left as it is. It belongs to the event loop that it
    was connected in.

    Raises `InvalidInput` for a URL that is none, `CannotOpen` and other `Repair` errors when the file cannot be used or
    the server not be reached, refuses or only reads, `NotSupported` for a PostgreSQL before 15 or a pooler in statement
    mode, and `MissingExtra` without psycopg.
    """
    return Connecting(partial(_open, database, env or Env(), create, options))


async def _open(
    database: str | os.PathLike[str] | AsyncConnectionPool[Any],
    env: Env,
    create: bool,
    options: PostgresOptions | None,
) -> Database:
    name = os.fspath(database) if isinstance(database, os.PathLike) else database
    if not isinstance(name, str):
        if hasattr(name, "getconn"):
            return await postgres.open_database(name, env=env, create=create, options=options)
        raise InvalidInput(f"a database is named by a path or a URL, as text or a `Path`, got {database!r}")
    if name.startswith(("postgresql://", "postgres://")):
        return await postgres.open_database(name, env=env, create=create, options=options)
    if options is not None:
        raise InvalidInput("`options` are for PostgreSQL: an SQLite URL says what there is to say")
    return await _open_sqlite(name, env, create)


async def _open_sqlite(url: str, env: Env, create: bool) -> Database:
    scheme, path, options = _parsed(url)
    if scheme != "sqlite":
        raise InvalidInput(
            f"{scheme!r} is not a database that faultproof knows: use a path, sqlite:///path or postgresql://…"
        )
    unknown = set(options) - {"synchronous"}
    if unknown:
        raise InvalidInput(f"unknown option {sorted(unknown)[0]!r} in the URL: sqlite takes synchronous=full|normal")
    return await open_database(path, env=env, synchronous=options.get("synchronous", "full"), create=create)


def _parsed(url: str) -> tuple[str, str, dict[str, str]]:
    try:
        url.encode()
    except UnicodeEncodeError as error:  # how Python passes on the bytes of a name that is in no encoding it knows
        raise InvalidInput(f"{url!r} is not UTF-8, as the names of SQLite's files must be") from error
    if "://" not in url:
        return "sqlite", url, {}
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInput(f"{url!r} is not a URL ({error}): use a path, or sqlite:///path") from error
    if parts.scheme == "sqlite" and parts.netloc:
        raise InvalidInput(
            f"an SQLite URL has three slashes before a relative path and four before an absolute one: {url}"
        )
    if parts.fragment or not url.isprintable():  # which a URL would lose on the way, and so name another file
        raise InvalidInput(f"{url!r} has a # or an unprintable character: write it as % and two digits, or use a path")
    options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    try:
        return parts.scheme, unquote(parts.path.removeprefix("/"), errors="strict"), options
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{url!r} is not UTF-8, as the names of SQLite's files must be") from error


def join(handle: sqlite3.Connection, *, env: Env | None = None) -> SyncTx:
    """The user's own open transaction, as the `tx` of any durable call; the user commits it.

    The call then runs synchronously on that connection and returns its result directly, not an awaitable. faultproof
    cannot see the commit, so other processes hear of it by their poll (50 ms), not at once. Raises `NoTransaction` when
    the handle would commit our statement by itself, and `Closed` when it is closed.
    """
    if isinstance(handle, sqlite3.Connection):
        return JoinedSqlite(handle, env or Env())
    raise NotSupported(
        f"a {type(handle).__module__}.{type(handle).__qualname__} cannot be joined: pass a sqlite3.Connection"
    )

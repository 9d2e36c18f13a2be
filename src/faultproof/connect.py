"""Where engines and patterns meet: `connect` opens a database by URL or path."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from faultproof.clock import Env
from faultproof.engines import postgres
from faultproof.engines.postgres.options import PostgresOptions as PostgresOptions
from faultproof.engines.sqlite import open_database
from faultproof.errors import InvalidInput
from faultproof.ports.database import Database

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
    scheme, path, options = parsed(url)
    if scheme != "sqlite":
        raise InvalidInput(
            f"{scheme!r} is not a database that faultproof knows: use a path, sqlite:///path or postgresql://…"
        )
    unknown = set(options) - {"synchronous"}
    if unknown:
        raise InvalidInput(f"unknown option {sorted(unknown)[0]!r} in the URL: sqlite takes synchronous=full|normal")
    return await open_database(path, env=env, synchronous=options.get("synchronous", "full"), create=create)


def parsed(url: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, path and options of a database's name; raises `InvalidInput` for one that cannot be a name."""
    try:
        url.encode()
    except UnicodeEncodeError as error:  # how Python passes on the bytes of a name that is in no encoding it knows
        raise InvalidInput(f"{url!r} is not UTF-8, as the names of SQLite's files must be") from error
    if "://" not in url:
        return "sqlite", url, {}
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInput(f"{url!r} is not a URL ({error}): use a path, sqlite:///path or postgresql://…") from error
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

"""Where engines and patterns meet: `connect` opens a database by URL, `join` wraps a transaction of the user's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Generator
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

from faultproof.clock import Env
from faultproof.engines.sqlite import open_database
from faultproof.engines.sqlite.joined import JoinedSqlite
from faultproof.errors import InvalidInput, NotSupported
from faultproof.ports.database import Database, SyncTx


class Connecting(Awaitable[Database]):
    """What `connect` returns: await it and close the database yourself, or use it with `async with`."""

    def __init__(self, url: str | os.PathLike[str], env: Env, *, create: bool) -> None:
        self._url = url
        self._env = env
        self._create = create
        self._database: Database | None = None

    def __await__(self) -> Generator[object, None, Database]:
        return _open(self._url, self._env, self._create).__await__()

    async def __aenter__(self) -> Database:
        self._database = await self
        return self._database

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._database is not None
        await self._database.close()


def connect(url: str | os.PathLike[str], *, env: Env | None = None, create: bool = True) -> Connecting:
    """Open a database: `shop.db`, `Path("/data/shop.db")`, `sqlite:///data/shop.db?synchronous=normal`.

    The default durability is the engine's safest (`synchronous=full`: a commit that was answered survives power loss).
    With `create=False` a file that is missing, or holds no tables of faultproof's, is refused and left as it is.
    It belongs to the event loop that it was connected in. Raises `InvalidInput` for a URL that is none, and a `Repair`
    error when the file cannot be used.
    """
    return Connecting(url, env or Env(), create=create)


async def _open(url: str | os.PathLike[str], env: Env, create: bool) -> Database:
    name = os.fspath(url) if isinstance(url, os.PathLike) else url
    if not isinstance(name, str):
        raise InvalidInput(f"a database is named by a path or a URL, as text or a `Path`, got {url!r}")
    scheme, path, options = _parsed(name)
    if scheme in ("postgresql", "postgres"):
        raise NotSupported("this release runs on SQLite only; PostgreSQL is the next engine: give a file path")
    if scheme != "sqlite":
        raise InvalidInput(f"{scheme!r} is not a database that faultproof knows: use a path, or sqlite:///path")
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

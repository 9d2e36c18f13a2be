"""Where a run keeps its tables, and how its audit gets to read them: an SQLite file, or a schema on PostgreSQL.

The schema is the shop's own, `faultproof_shop`: it is made at the beginning, a run that finds one is refused, and it is
dropped at the end unless there is something to look into. Nothing else in that database is touched. Given no server, the
shop starts one of its own, which goes when it goes, and which it may then crash as well.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, quote, urlsplit

from faultproof.connect import parsed
from faultproof.errors import CannotOpen, InvalidInput, MissingExtra, NotSupported
from faultproof.ports.database import Database
from faultproof.shop.ledger import Ledger, PostgresLedger, SqliteLedger

if TYPE_CHECKING:
    import psycopg

SCHEMA = "faultproof_shop"
OWN = "postgresql"
"""As `--db`: a server of the shop's own."""


class Store(Protocol):
    """One run's database."""

    url: str
    """For the processes."""
    kept: bool
    """Set it before the end: the tables stay."""
    crash: Callable[[], None] | None
    """Restart the server without a shutdown; None where it is not ours to restart."""

    async def name(self, database: Database) -> str:
        """What a person looks into."""
        ...

    def reading(self, name: str) -> AbstractContextManager[Ledger]:
        """The tables, for an audit that cannot write."""
        ...


class SqliteStore:
    """A file, which belongs to whoever named it or to the run's directory."""

    crash: Callable[[], None] | None = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.kept = True

    def make(self) -> None:
        """Raises `InvalidInput` for a file that has tables already, whoever made them; it is left as it is."""
        _, path, _ = parsed(self.url)
        try:
            with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)) as connection:
                is_used = connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except sqlite3.Error:  # not there, or what opening it will say of it
            return
        if is_used:
            raise InvalidInput(f"{path} has tables already, and an audit must know all that is there: name a new file")

    async def name(self, database: Database) -> str:
        async with database.transaction() as tx:
            return str((await tx.fetch("PRAGMA database_list"))[0][2])

    @contextmanager
    def reading(self, name: str) -> Iterator[Ledger]:
        with closing(sqlite3.connect(f"file:{quote(name)}?mode=ro", uri=True, isolation_level=None)) as connection:
            yield SqliteLedger(connection)


class PostgresStore:
    """A schema on a server."""

    def __init__(self, url: str, crash: Callable[[], None] | None = None) -> None:
        self.url = _in_schema(url)
        self.kept = False
        # A connection that breaks is what these runs are about: its driver need not tell the terminal.
        logging.getLogger("psycopg").addHandler(logging.NullHandler())
        self.crash = crash

    async def name(self, database: Database) -> str:
        async with database.transaction() as tx:
            ((name,),) = await tx.fetch("SELECT current_database()")
        return f"PostgreSQL, database {name}, schema {SCHEMA}"

    @contextmanager
    def reading(self, name: str) -> Iterator[Ledger]:
        with _connected(self.url) as connection:
            yield PostgresLedger(connection)

    def make(self) -> None:
        """Raises `InvalidInput` if the schema is there already, whoever made it."""
        with _connected(self.url) as connection:
            import psycopg  # which is installed, or there would be no connection

            try:
                connection.execute("CREATE SCHEMA faultproof_shop")
            except psycopg.errors.DuplicateSchema as error:
                raise InvalidInput(
                    f"that database has a schema {SCHEMA} already, which this run did not make: look at what an earlier "
                    f"one has left there and drop it (DROP SCHEMA {SCHEMA} CASCADE), or name another database"
                ) from error
            except psycopg.errors.InsufficientPrivilege as error:
                raise CannotOpen(
                    "the shop makes a schema of its own, and this user may not: GRANT CREATE ON DATABASE to it"
                ) from error

    def drop(self) -> None:
        """Only what `make` has made."""
        with _connected(self.url) as connection:
            # Connections of processes that were killed a moment ago may still hold locks.
            connection.execute("SET lock_timeout = '30s'")
            connection.execute("DROP SCHEMA faultproof_shop CASCADE")


def is_postgres(url: str) -> bool:
    """Whether that is a PostgreSQL server, given or to be started."""
    return url == OWN or url.startswith(("postgresql://", "postgres://"))


@contextmanager
def stored(url: str) -> Iterator[Store]:
    """The place for one run; at its end it is cleaned up unless it is `kept`."""
    if url == OWN:
        with _own_server() as store:
            yield store
    elif is_postgres(url):
        store = PostgresStore(url)
        store.make()
        try:
            yield store
        finally:
            if not store.kept:
                store.drop()
    else:
        file = SqliteStore(url)
        file.make()
        yield file


@contextmanager
def _own_server() -> Iterator[PostgresStore]:
    try:
        from faultproof.shop.postgres_server import PostgresServer, ServerFailed
    except ImportError as error:
        raise NotSupported(
            "a server of the shop's own runs on Linux only: give the address of one that runs"
        ) from error
    try:
        server = PostgresServer()
        server.start()
    except ServerFailed as error:
        raise CannotOpen(f"a server of the shop's own did not start: {error.args[0].splitlines()[0]}") from error
    with server:
        store = PostgresStore(server.url, server.crash)
        store.make()
        yield store


def _in_schema(url: str) -> str:
    """The address with the schema in it: every connection, the users' and ours, finds the tables there alone."""
    try:
        query = parse_qs(urlsplit(url).query)
    except ValueError as error:
        raise InvalidInput(f"that is not a PostgreSQL URL: {error}") from error
    if "options" in query:
        raise InvalidInput("the shop chooses the schema itself: give an address without options=…")
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{SCHEMA}"


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    """A synchronous connection of the run's own, in autocommit."""
    try:
        import psycopg

        from faultproof.engines.postgres.address import address_of, cannot_reach, without_password
    except ImportError as error:
        raise MissingExtra("PostgreSQL needs its driver: pip install faultproof[postgres]") from error
    address = address_of(url)
    try:
        connection = psycopg.connect(psycopg.conninfo.make_conninfo("", **address.options), autocommit=True)
    except psycopg.Error as error:
        raise CannotOpen(str(cannot_reach(address, error))) from without_password(error)
    with closing(connection):
        yield connection

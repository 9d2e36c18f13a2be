"""pytest fixtures for servers; `tests/conftest.py` imports them by name."""

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.servers.postgres import DEBIAN_15, PostgresServer

_database_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One durable server for the whole run. A test that kills or stops it need not start it again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_15_server() -> Iterator[PostgresServer]:
    """The oldest version; only for tests that are made where its binaries are (`SERVERS`)."""
    with PostgresServer(binaries=DEBIAN_15) as server:
        yield server


SERVERS = ["postgres_server", *(["postgres_15_server"] if (DEBIAN_15 / "postgres").exists() else [])]
"""The fixtures of the versions to run on."""


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database for this test alone, dropped afterwards whoever is still in it."""
    yield from empty_database(postgres_server)


def empty_database(server: PostgresServer) -> Iterator[str]:
    """What a fixture gives to its test and takes back from it: the address of a database."""
    name = f"test_{next(_database_numbers)}"
    # template0 and not the default, which a test could have written to.
    _administer(server, "CREATE DATABASE {} TEMPLATE template0", name)
    yield server.url_of(name)
    _administer(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def _administer(server: PostgresServer, statement: str, name: str) -> None:
    server.start()  # does nothing where it runs; the test before may have killed it
    # A connection each time: one that is kept would be cut by the same tests.
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))

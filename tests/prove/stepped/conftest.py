"""The server that is stepped on. It may be anybody's: each case makes a schema of its own, and drops it."""

import pytest

from tests.servers.postgres import PostgresServer


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """Of a database that others use too."""
    postgres_server.start()  # does nothing where it runs
    return postgres_server.url

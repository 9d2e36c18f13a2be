"""What only PostgreSQL does: writers at the same time, two snapshots in one transaction, servers that go away."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from faultproof.clock import Env
from faultproof.engines.postgres import open_database
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.engines.postgres.options import PostgresOptions
from tests.engines.postgres.encrypted import ENCRYPTING
from tests.engines.postgres.pooler import POOLERS
from tests.servers.fixtures import SERVERS, empty_database
from tests.servers.postgres import PostgresServer

collect_ignore = [*([] if ENCRYPTING else ["test_tls.py"]), *([] if POOLERS else ["test_poolers.py"])]
"""Not skipped where no server speaks TLS or there is no pooler: the header of the run says so."""

Open = Callable[..., Awaitable[PostgresDatabase]]


@pytest.fixture(params=[SERVERS[0], *(pytest.param(oldest, marks=pytest.mark.soak) for oldest in SERVERS[1:])])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    """Each version that is there. The oldest only with `make soak`: the conformance suites run on it always."""
    server: PostgresServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def postgres_url(server: PostgresServer) -> Iterator[str]:
    """The address of an empty database for this test alone."""
    yield from empty_database(server)


@pytest.fixture
async def connect(postgres_url: str) -> AsyncIterator[Open]:
    """Opens one more `Database` on it."""
    opened: list[PostgresDatabase] = []

    async def open_one(options: PostgresOptions | None = None) -> PostgresDatabase:
        opened.append(await open_database(postgres_url, env=Env(), options=options))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def db(connect: Open) -> PostgresDatabase:
    """A `Database` with the tables of claims and logs, and a log of one partition."""
    database = await connect()
    await database.install(database.claims.schema, database.logs.schema)
    await database.transact(database.logs.create("orders", partitions=2, epoch="e"))
    return database


@pytest.fixture
async def peer(db: PostgresDatabase, connect: Open) -> PostgresDatabase:
    """Another `Database` on the same tables."""
    return await connect()

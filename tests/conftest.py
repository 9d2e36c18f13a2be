"""Fixtures that every test may ask for; a server starts when the first test asks."""

import signal

import pytest

from tests.engines.postgres.encrypted import ENCRYPTING
from tests.engines.postgres.pooler import POOLERS
from tests.servers.fixtures import SERVERS, postgres_15_server, postgres_server, postgres_url
from tests.servers.postgres import DEBIAN_15

# A shell that starts this in the background has it ignore SIGINT, and every process that a test starts would do so too.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["anyio_backend", "postgres_15_server", "postgres_server", "postgres_url"]


def pytest_report_header() -> str:
    """Which servers this run is about: a version that is not there leaves no trace otherwise."""
    oldest = f"15 from {DEBIAN_15}" if len(SERVERS) > 1 else f"not 15, which is not in {DEBIAN_15}"
    poolers = f"pgbouncer from {POOLERS[0]}" if POOLERS else "no pgbouncer"
    encrypting = ", ".join(f"TLS of {each}" for each in ENCRYPTING) or "no server with TLS"
    return f"PostgreSQL: 18 from the wheel; {oldest}; {poolers}; {encrypting}"


@pytest.fixture
def anyio_backend() -> str:
    """What runs tests marked `anyio`: asyncio alone, which faultproof is written for."""
    return "asyncio"

"""Fixtures that every test may ask for; a server starts when the first test asks."""

import pytest

from tests.servers.fixtures import postgres_server, postgres_url

__all__ = ["anyio_backend", "postgres_server", "postgres_url"]


@pytest.fixture
def anyio_backend() -> str:
    """What runs tests marked `anyio`: asyncio alone, which faultproof is written for."""
    return "asyncio"

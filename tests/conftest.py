"""Fixtures that every test may ask for; a server starts when the first test asks."""

import signal

import pytest

from tests.servers.fixtures import postgres_server, postgres_url

# A shell that starts this in the background has it ignore SIGINT, and every process that a test starts would do so too.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["anyio_backend", "postgres_server", "postgres_url"]


@pytest.fixture
def anyio_backend() -> str:
    """What runs tests marked `anyio`: asyncio alone, which faultproof is written for."""
    return "asyncio"

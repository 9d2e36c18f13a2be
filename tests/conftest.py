"""Fixtures that every test may ask for; a server starts when the first test asks."""

from tests.servers.fixtures import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

"""The tests' servers are of the same make as the shop's."""

from faultproof.shop.postgres_server import DEBIAN_15, PostgresServer, ServerFailed

__all__ = ["DEBIAN_15", "PostgresServer", "ServerFailed"]

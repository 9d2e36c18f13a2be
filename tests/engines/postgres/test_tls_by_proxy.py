"""What the address demands by `sslmode` of a server that does not speak TLS, and of a port before it that does."""

from pathlib import Path

import pytest

import faultproof as fp
from faultproof.errors import CannotOpen
from tests.engines.postgres.encrypted import certificate, encrypted
from tests.engines.postgres.test_connecting import WRITTEN, clerk, refused
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.anyio

__all__ = ["clerk"]


async def test_sslmode_is_respected(server: PostgresServer, clerk: str, tmp_path: Path) -> None:
    database = clerk.rpartition("/")[2]
    unencrypted = await refused(f"{clerk}?sslmode=require")
    assert isinstance(unencrypted, CannotOpen)
    assert str(unencrypted).endswith("cannot be reached: server does not support SSL, but SSL was required")
    made, key = certificate(tmp_path)
    with encrypted(server.port, made, key) as port:
        there = f"postgresql://clerk:{WRITTEN}@localhost:{port}/{database}?gssencmode=disable&hostaddr=127.0.0.1"
        untrusted = await refused(f"{there}&sslmode=verify-full&sslrootcert={tmp_path / 'nobody'}")
        assert isinstance(untrusted, CannotOpen)
        elsewhere = there.replace("@localhost", "@example.org")
        other_name = await refused(f"{elsewhere}&sslmode=verify-full&sslrootcert={made}")
        assert "does not match host name" in str(other_name)
        async with fp.connect(f"{there}&sslmode=verify-full&sslrootcert={made}") as db:
            async with db.transaction() as tx:
                assert await tx.fetch("SELECT current_user") == [("clerk",)]

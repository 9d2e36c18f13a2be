"""The server's own TLS: every connection, that of wake-ups too, demands of the server what the address demands."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import psycopg_pool
import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.engines.postgres import open_database
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.engines.postgres.options import PostgresOptions
from faultproof.errors import CannotOpen, TryAgain
from faultproof.ports.database import News
from faultproof.ports.script import Script, Wake, sql
from tests.cli.executable import refusals
from tests.engines.postgres.encrypted import ENCRYPTING, certificate
from tests.engines.postgres.test_connecting import SECRET, WRITTEN, refused
from tests.fakes import WAIT_S, eventually, until
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.anyio


class Encrypting(PostgresServer):
    """A server that takes encrypted connections only, and shows a certificate for `localhost`."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        super().__init__(binaries=binaries, settings={"ssl": "on"})
        for name in ("own", "stranger"):
            (directory / name).mkdir()
        self.root, self._key = certificate(directory / "own")
        self.stranger, self._stranger_key = certificate(directory / "stranger")
        self._put(self.root, self._key)
        (self.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")

    def address(self, sslmode: str, *, root: Path | None = None, host: str = "localhost") -> str:
        """With a password worth hiding."""
        trusting = f"&sslrootcert={root}" if root else ""
        where = f"{host}:{self.port}/postgres?hostaddr=127.0.0.1"
        return f"postgresql://clerk:{WRITTEN}@{where}&gssencmode=disable&sslmode={sslmode}{trusting}"

    def swap(self) -> None:
        """From now on it shows another certificate for the same name, or its own again."""
        self.root, self.stranger = self.stranger, self.root
        self._key, self._stranger_key = self._stranger_key, self._key
        self._put(self.root, self._key)
        with psycopg.connect(self.url, autocommit=True) as raw:
            raw.execute("SELECT pg_reload_conf()")
        eventually(self._shows_it, "the new certificate is shown")

    def _shows_it(self) -> bool:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as plain:
            plain.sendall(struct.pack("!ii", 8, 80877103))  # asks for TLS
            assert plain.recv(1) == b"S"
            with trusting.wrap_socket(plain) as encrypted:
                return encrypted.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(self.root.read_text())

    def _put(self, made: Path, key: Path) -> None:
        owner = self.data.stat()
        for name, source in (("server.crt", made), ("server.key", key)):
            there = self.data / name
            there.touch(mode=0o600)
            os.chown(there, owner.st_uid, owner.st_gid)
            there.write_bytes(source.read_bytes())


@pytest.fixture(scope="module", params=ENCRYPTING, ids=str)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypting]:
    with Encrypting(request.param, tmp_path_factory.mktemp("certificates")) as server:
        with psycopg.connect(server.url, autocommit=True) as raw:
            raw.execute(f"CREATE ROLE clerk LOGIN PASSWORD '{SECRET}'")
        yield server


@sql("SELECT 1")
def one() -> int: ...


def wake(topic: str) -> Script[None]:
    yield Wake(topic)


@asynccontextmanager
async def opened(address: str, how: str) -> AsyncIterator[PostgresDatabase]:
    """By a URL, or by the user's pool, which is told by keywords what to demand."""
    async with AsyncExitStack() as stack:
        where: str | psycopg_pool.AsyncConnectionPool = address
        if how == "pool":
            plain, _, demanded = address.partition("&sslmode=")
            keywords = dict(zip(("sslmode", "sslrootcert"), demanded.split("&sslrootcert="), strict=False))
            where = psycopg_pool.AsyncConnectionPool(plain, min_size=2, max_size=2, open=False, kwargs=keywords)
            await stack.enter_async_context(where)
            await where.wait(WAIT_S)
        db = await open_database(where, env=Env(), options=PostgresOptions(pool_min=2))
        stack.push_async_callback(db.close)
        yield db


CONNECTIONS = """SELECT CASE WHEN query LIKE 'LISTEN%' THEN 'hears' WHEN query LIKE '%pg_notify%' THEN 'speaks' ELSE 'pool' END,
                        ssl, version LIKE 'TLSv1.%'
                 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'clerk'"""


def connections(server: Encrypting) -> list[tuple[str, bool, bool]]:
    """What each of ours does, whether it is encrypted, and by a protocol of today."""
    with psycopg.connect(server.url) as raw:
        return sorted(raw.execute(CONNECTIONS).fetchall())


async def silent(news: News) -> None:
    """Until what it tells when it begins to hear has been told."""
    while await news.wait(0.3):
        pass


async def told(db: PostgresDatabase, news: News) -> None:
    """What `db` commits is heard of."""
    await db.transact(wake("topic"))
    async with asyncio.timeout(WAIT_S):
        assert await news.wait(WAIT_S)


@pytest.mark.parametrize("how", ["URL", "pool"])
@pytest.mark.parametrize("sslmode", ["require", "verify-full"])
async def test_every_connection_is_encrypted(server: Encrypting, sslmode: str, how: str) -> None:
    address = server.address(sslmode, root=server.root if sslmode == "verify-full" else None)
    async with opened(address, how) as db, opened(address, how) as peer:
        news = db.changed("topic")
        await silent(news)
        await told(peer, news)
        seen = connections(server)
        assert [what for what, _, _ in seen] == ["hears", *["pool"] * 4, "speaks"]
        assert {(ssl, recent) for _, ssl, recent in seen} == {(True, True)}
        news.close()


async def test_server_that_cannot_be_trusted_is_refused(server: Encrypting, tmp_path: Path) -> None:
    here = f"the database postgres on localhost:{server.port}"
    untrusted = f"{here} cannot be reached: SSL error: certificate verify failed"
    expected = {
        server.address("verify-full", root=server.stranger): untrusted,
        server.address("verify-ca", root=server.stranger): untrusted,
        server.address("verify-full", root=server.root, host="db.example.org"): (
            f"the database postgres on db.example.org:{server.port} cannot be reached: server certificate for"
            ' "localhost" does not match host name "db.example.org"'
        ),
        server.address("verify-full", root=tmp_path / "nobody"): (
            f'{here} cannot be reached: root certificate file "{tmp_path}/nobody" does not exist'
        ),
        server.address("disable"): (
            f'{here} refuses the connection: no pg_hba.conf entry for host "127.0.0.1", user "clerk", database "postgres",'
            " no encryption"
        ),
    }
    for address, sentence in expected.items():
        error = await refused(address)
        assert (type(error), str(error)) == (CannotOpen, sentence)
    said = await asyncio.to_thread(refusals, *(["outbox", "lag", "--db", address] for address in expected))
    assert said == [*expected.values()]
    # Whoever does not ask for the name does not get it checked.
    async with fp.connect(server.address("verify-ca", root=server.root, host="db.example.org")) as db:
        assert await db.read(one()) == 1


@pytest.mark.parametrize("how", ["URL", "pool"])
async def test_another_server_in_its_place_gets_no_connection(server: Encrypting, how: str) -> None:
    """Neither the pool's nor that of wake-ups, which may be made long after the first; and they come back with it."""
    address = server.address("verify-full", root=server.root)

    def untrusted() -> int:
        """How many clients hung up on it."""
        return server.log_tail(100_000).count("alert unknown ca")

    async with opened(address, how) as db, opened(address, how) as peer:
        news = db.changed("topic")
        await silent(news)
        server.swap()
        try:
            before = untrusted()
            with psycopg.connect(server.url, autocommit=True) as raw:
                await peer.transact(wake("topic"))
                raw.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
                await until(lambda: untrusted() >= before + 4)  # who tells and who hears, again and again
                assert [what for what, _, _ in connections(server)] == ["pool"] * 4
                if how == "URL":  # the user's pool connects as the user says
                    raw.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'clerk'")
                    with pytest.raises(TryAgain, match="certificate verify failed"):
                        await peer.read(one())
                    assert connections(server) == []
        finally:
            server.swap()
        await silent(news)
        await told(peer, news)
        news.close()

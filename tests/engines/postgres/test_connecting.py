"""Connecting: what is refused, in one clear sentence each and without the password; what is found out and kept to."""

import asyncio
import contextvars
import struct
import subprocess
import sys
from dataclasses import fields

import psycopg
import psycopg_pool
import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.engines.postgres import open_database
from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.errors import (
    Busy,
    CannotOpen,
    Closed,
    FaultproofError,
    InvalidInput,
    NotSupported,
    SchemaMismatch,
    TryAgain,
)
from faultproof.ports.database import Database
from faultproof.ports.schema import Schema
from faultproof.ports.script import ddl, sql
from faultproof.prove.live.address import changed, places
from faultproof.prove.live.messages import Message
from faultproof.prove.live.proxy import Proxy
from tests.cli.executable import refusals
from tests.docs.markdown import REPOSITORY, rows, section
from tests.engines.postgres.conftest import Open
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
SECRET = "s3cret/%@?x"
WRITTEN = "s3cret%2F%25%40%3Fx"
"""The same in a URL."""


async def refused(url: str, *, create: bool = True) -> FaultproofError:
    """What connecting raises. Nothing that anybody may print shows any part of the password."""
    with pytest.raises(FaultproofError) as caught:
        await fp.connect(url, create=create)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "\n" not in str(caught.value)
    return caught.value


async def said_by_the_shell(url: str) -> str:
    """The one sentence with which the command line ends, with status 2."""
    (said,) = await asyncio.to_thread(refusals, ["outbox", "lag", "--db", url])
    assert "s3cret" not in said
    return said


def as_role(url: str, *, role: str = "clerk", password: str = WRITTEN) -> str:
    return f"postgresql://{role}:{password}@{url.partition('@')[2]}"


@pytest.fixture
def clerk(postgres_url: str) -> str:
    """The address with a role that has a password worth hiding, and no rights."""
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        if not raw.execute("SELECT FROM pg_roles WHERE rolname = 'clerk'").fetchall():
            raw.execute(f"CREATE ROLE clerk LOGIN PASSWORD '{SECRET}'")
    return as_role(postgres_url)


# --- the address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://clerk:s3cret@x@127.0.0.1/shop",
        "postgresql://clerk:s3cret/x@127.0.0.1/shop",
        "postgresql://clerk:s3cret?x@127.0.0.1/shop",
        "postgresql://clerk:s3cret#x@127.0.0.1/shop",
        "postgresql://clerk:s3cret%zz@127.0.0.1/shop",
        "postgresql://clerk:s3cret@127.0.0.1:port/shop",
        "postgresql://clerk:s3cret@127.0.0.1/shop?no_such_option=s3cret",
        "postgresql://clerk:s3cret@127.0.0.1/shop?sslmode=never",
        "postgresql://clerk:s3cret@[::1/shop",
    ],
)
async def test_wrong_url_is_refused_without_repeating_any_of_it(url: str) -> None:
    error = await refused(url)
    assert isinstance(error, InvalidInput | CannotOpen)


async def test_password_with_special_characters_is_read_when_it_is_encoded(clerk: str) -> None:
    async with fp.connect(clerk) as db:
        assert "s3cret" not in f"{db!r} {db.durability} {await db.health()} {vars(db)}"


async def test_what_the_url_leaves_out_comes_from_libpq(
    server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = psycopg.conninfo.conninfo_to_dict(postgres_url)
    for name, value in address.items():
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), str(value))
    async with fp.connect("postgresql://") as db, db.transaction() as tx:
        assert await tx.fetch("SELECT current_database()") == [(address["dbname"],)]
    error = await refused("postgresql:///no_such_database")
    assert str(error).startswith(f"the database no_such_database on 127.0.0.1:{server.port} refuses the connection: ")


# --- servers that cannot be had ---------------------------------------------------------------------------------------


async def test_server_that_is_not_there(server: PostgresServer) -> None:
    error = await refused("postgresql://clerk:s3cret@127.0.0.1:1/shop")
    assert (type(error), str(error)) == (
        CannotOpen,
        "the database shop on 127.0.0.1:1 cannot be reached: Connection refused",
    )
    error = await refused("postgresql://clerk:s3cret@no-such-host.invalid/shop")
    assert str(error).startswith("the database shop on no-such-host.invalid")
    assert isinstance(error, CannotOpen)


async def test_server_that_refuses_says_why(server: PostgresServer, clerk: str) -> None:
    wrong = as_role(clerk, password="s3cret")
    error = await refused(wrong)
    assert isinstance(error, CannotOpen)
    assert str(error).endswith('refuses the connection: password authentication failed for user "clerk"')
    assert await said_by_the_shell(wrong) == str(error)
    database = clerk.rpartition("/")[2]
    for refusing, allowing, reason in (
        (
            "ALTER ROLE clerk CONNECTION LIMIT 0",
            "ALTER ROLE clerk CONNECTION LIMIT -1",
            'too many connections for role "clerk"',
        ),
        (
            f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {database} TO PUBLIC",
            f'permission denied for database "{database}"',
        ),
    ):
        with psycopg.connect(server.url, autocommit=True) as raw:
            raw.execute(refusing)
            error = await refused(clerk)
            said = await said_by_the_shell(clerk)
            raw.execute(allowing)
        assert isinstance(error, CannotOpen)
        assert str(error).endswith(f"refuses the connection: {reason}")
        assert said == str(error)


async def test_role_without_rights_is_told_which(clerk: str, db: PostgresDatabase, connect: Open) -> None:
    async with fp.connect(clerk) as without:
        with pytest.raises(CannotOpen, match=r"permission denied .*: grant what docs/postgresql.md lists"):
            await without.transact(without.claims.add("job", ["a"]))
        with pytest.raises(CannotOpen, match="permission denied"):
            await without.install(Schema(name="x", versions=[["CREATE TABLE x (n BIGINT)"]], works_from=1, works_to=1))
    said = await said_by_the_shell(clerk)
    assert "permission denied for table faultproof_schema: grant what docs/postgresql.md lists" in said
    assert await db.read(db.claims.holders("job")) == []


async def test_standby_is_refused_and_passed_over_where_the_primary_is_named_too(
    server: PostgresServer, clerk: str
) -> None:
    with PostgresServer() as standby:
        with psycopg.connect(standby.url, autocommit=True) as raw:
            raw.execute(f"CREATE ROLE clerk LOGIN PASSWORD '{SECRET}'")
            raw.execute(f"CREATE DATABASE {clerk.rpartition('/')[2]}")
        standby.stop()
        (standby.data / "standby.signal").touch()
        standby.start()
        url = standby.url
        error = await refused(url)
        assert isinstance(error, CannotOpen)
        assert str(error).startswith(
            f"the database postgres on 127.0.0.1:{standby.port} is a standby, which only reads: "
        )
        assert await said_by_the_shell(url) == str(error)
        both = clerk.replace("@127.0.0.1:", f"@127.0.0.1:1,127.0.0.1:{standby.port},127.0.0.1:")
        assert "is a standby" in str(await refused(both))
        async with fp.connect(f"{both}?target_session_attrs=read-write") as db, db.transaction() as tx:
            assert await tx.fetch("SELECT inet_server_port()") == [(server.port,)]
        (standby.data / "standby.signal").unlink()


async def test_server_before_15_is_refused() -> None:
    """There is none to install: this one says what version 14 says when it greets, and no more."""

    gone = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def message(kind: bytes, body: bytes) -> bytes:
            return kind + struct.pack("!i", len(body) + 4) + body

        while True:
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            await reader.readexactly(length - 8)
            if code == 196608:  # the start of protocol 3.0; before it TLS is asked for
                break
            writer.write(b"N")
        writer.write(
            message(b"R", struct.pack("!i", 0))
            + message(b"S", b"server_version\x0014.9\0")
            + message(b"S", b"client_encoding\0UTF8\0")
            + message(b"Z", b"I")
        )
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    async with asyncio.timeout(WAIT_S), await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
        url = f"postgresql://x@127.0.0.1:{listening.sockets[0].getsockname()[1]}/shop?gssencmode=disable"
        error = await refused(url)
        await gone.wait()
        assert await said_by_the_shell(url) == str(error)
    assert isinstance(error, NotSupported)
    assert str(error).endswith("runs version 14; faultproof needs PostgreSQL 15 or newer")


async def test_without_create_a_database_of_somebody_else_is_left_as_it_is(postgres_url: str) -> None:
    error = await refused(postgres_url, create=False)
    assert isinstance(error, SchemaMismatch)
    assert "has no tables of faultproof's" in str(error)
    with psycopg.connect(postgres_url) as raw:
        assert raw.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_without_the_driver_the_extra_is_named() -> None:
    code = """
import asyncio, sys
sys.modules["psycopg"] = None
import faultproof
from faultproof.errors import MissingExtra
try:
    asyncio.run(faultproof.connect("postgresql://localhost/shop").__aenter__())
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install faultproof[postgres]" in done.stdout


# --- what is found out ------------------------------------------------------------------------------------------------


async def test_durability_says_what_the_server_does(postgres_url: str, db: PostgresDatabase) -> None:
    assert db.durability == "PostgreSQL, synchronous_commit=on, fsync=on"
    assert (await db.health()).warnings == ()
    async with fp.connect(f"{postgres_url}?options=-csynchronous_commit%3Doff") as careless:
        assert careless.durability == "PostgreSQL, synchronous_commit=off, fsync=on"
        assert [text.split(":")[0] for text in (await careless.health()).warnings] == ["synchronous_commit is off"]


async def test_tables_are_found_through_the_search_path(postgres_url: str) -> None:
    """As the page says: in a schema of their own, from the first installation to an event that is delivered."""
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("CREATE SCHEMA faultproof")
        url = f"{postgres_url}?options=-csearch_path%3Dfaultproof"
        delivered: list[int] = []
        came = asyncio.Event()

        async def handle(event: fp.Event[dict[str, int]], tx: object) -> None:
            delivered.append(event.body["n"])
            came.set()

        async with asyncio.timeout(WAIT_S), fp.connect(url) as db:
            outbox = fp.Outbox(db, events={"Said": dict})
            await outbox.install()
            worker = fp.Worker(db.env, outbox.sequencer(), outbox.consumer("all", handle))
            running = asyncio.create_task(worker.run())
            await outbox.publish({"n": 1}, key="a", type="Said")
            await came.wait()
            worker.stop()
            await running
            await outbox.close()
        found = raw.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'faultproof%'").fetchall()
    assert (delivered, found) == ([1], [("faultproof",)])


# --- the user's pool --------------------------------------------------------------------------------------------------


@sql("INSERT INTO orders (item) VALUES (:item)")
def insert(item: str) -> None: ...


@sql("SELECT item FROM orders ORDER BY item")
def items() -> list[str]: ...


async def test_users_pool_is_used_and_stays_the_users(postgres_url: str) -> None:
    pool = psycopg_pool.AsyncConnectionPool(
        postgres_url, min_size=1, max_size=2, open=False, kwargs={"row_factory": psycopg.rows.dict_row}
    )
    with pytest.raises(Closed, match="is not open"):
        await fp.connect(pool)
    async with pool:
        await pool.wait(WAIT_S)  # it connects beside us, and may need longer than the little that the database waits
        db = await fp.connect(pool, options=fp.PostgresOptions(pool_timeout=0.05))
        await db.transact(ddl("CREATE TABLE orders (item TEXT NOT NULL)"))
        await db.transact(insert("apple"))
        async with db.transaction() as tx:
            await tx.run(insert("pear"))
            assert await tx.fetch("SHOW lock_timeout") == [("5s",)]
            assert await tx.fetch("SELECT count(*) FROM orders") == [(2,)]
            async with pool.connection() as theirs:
                with pytest.raises(Busy, match="all 2 connections are in use"):
                    await asyncio.create_task(elsewhere(db), context=contextvars.Context())
                assert await (await theirs.execute("SELECT count(*) AS n FROM orders")).fetchall() == [{"n": 1}]
        async with pool.connection() as theirs:
            assert not theirs.autocommit
            assert await (await theirs.execute("SHOW lock_timeout")).fetchall() == [{"lock_timeout": "0"}]
        assert await db.read(items()) == ["apple", "pear"]
        await db.close()
        async with pool.connection() as theirs:
            assert await (await theirs.execute("SELECT count(*) AS n FROM orders")).fetchall() == [{"n": 2}]


async def elsewhere(db: Database) -> None:
    """Outside the transaction of the task that asks."""
    async with asyncio.timeout(WAIT_S):
        await db.health()


async def test_value_that_is_no_database_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a database is named by"):
        await fp.connect(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="options"):
        await fp.connect("shop.db", options=fp.PostgresOptions())
    for wrong in ({"pool_min": 0}, {"pool_max": 0}, {"pool_timeout": 0.0}, {"poll": float("nan")}):
        with pytest.raises(InvalidInput, match=f"`{next(iter(wrong))}` must be"):
            fp.PostgresOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="not a PostgreSQL URL"):
        await open_database("no url at all", env=Env())


def test_options_on_the_page_are_those_of_the_code() -> None:
    page = (REPOSITORY / "docs/postgresql.md").read_text(encoding="utf-8")
    table = {cells[0].strip("`"): cells[1] for cells in rows(section(page, "Options"))}
    defaults = {each.name: each.default for each in fields(fp.PostgresOptions)}
    assert table == {
        f"PostgresOptions.{name}": f"{default:g}" if isinstance(default, int | float) else str(default)
        for name, default in defaults.items()
    }


async def test_users_pool_gets_back_what_broke(server: PostgresServer, postgres_url: str) -> None:
    """The server is away when a broken connection is to be replaced: each connection goes back once all the same."""
    async with psycopg_pool.AsyncConnectionPool(postgres_url, min_size=2, max_size=2, timeout=1.0) as pool:
        async with fp.connect(pool, options=fp.PostgresOptions(pool_timeout=0.2)) as db:
            await db.transact(ddl("CREATE TABLE orders (item TEXT NOT NULL)"))
            server.kill()
            for _ in range(4):
                with pytest.raises(TryAgain):
                    await db.transact(insert("lost"))
            server.start()
            async with asyncio.timeout(WAIT_S):
                while True:
                    try:
                        await db.transact(lambda: insert("apple"))
                        break
                    except TryAgain:  # the pool is still connecting, at its own pace
                        await asyncio.sleep(0.05)  # sleeps: in another's task
            assert await db.read(items()) == ["apple"]


async def test_server_that_goes_away_while_it_is_looked_at_is_not_taken_for_a_pooler(postgres_url: str) -> None:
    def cut(number: int, message: Message) -> None:
        if b"BEGIN" in message.body:
            proxy.reset()

    ((host, port),) = places(postgres_url)
    proxy = Proxy(host, port, heard=cut)
    await proxy.start()
    error = await refused(changed(postgres_url, host="127.0.0.1", port=proxy.port))
    await proxy.close()
    assert proxy.fired == {"reset": 1}
    assert isinstance(error, CannotOpen)
    assert "pooler" not in str(error)

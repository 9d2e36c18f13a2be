"""What the running role needs: exactly what the page says, and nothing less will do."""

import asyncio
import re
from collections.abc import Iterator

import psycopg
import pytest

import faultproof as fp
from faultproof.errors import CannotOpen, FaultproofError
from tests.docs.markdown import REPOSITORY
from tests.servers.fixtures import empty_database
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
PAGE = (REPOSITORY / "docs/postgresql.md").read_text(encoding="utf-8")
BLOCK = PAGE.partition("<!-- grants -->")[2].partition("```sql\n")[2].partition("```")[0]


def single_rights() -> list[str]:
    """Each right in a statement of its own."""
    found: list[str] = []
    for rights, what in re.findall(r"GRANT ([\w, ]+) ON (.+) TO clerk;", BLOCK):
        found += [f"GRANT {right} ON {what} TO clerk" for right in rights.split(", ")]
    return found


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """One version is enough for rights, and there are many of them."""
    yield from empty_database(postgres_server)


@pytest.fixture
def clerk(postgres_url: str) -> Iterator[str]:
    """The address with a role that may do nothing yet, on a database with an outbox."""

    async def install() -> None:
        async with fp.connect(postgres_url) as db:
            await outbox_on(db).install()

    asyncio.run(install())
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("DROP ROLE IF EXISTS clerk")
        raw.execute("CREATE ROLE clerk LOGIN PASSWORD 'x'")
        raw.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        yield f"postgresql://clerk:x@{postgres_url.partition('@')[2]}"
        raw.execute("DROP OWNED BY clerk")
        raw.execute("DROP ROLE clerk")


def outbox_on(db: object) -> fp.Outbox:
    return fp.Outbox(db, events={"Said": dict}, options=fp.OutboxOptions(partitions=1))  # type: ignore[arg-type]


async def everything(url: str) -> None:
    """An outbox from its installation (which finds everything there) to a discarded dead letter and a group forgotten."""
    async with asyncio.timeout(WAIT_S), fp.connect(url, create=False) as db:
        outbox = outbox_on(db)
        await outbox.install()
        await outbox.publish({"n": 1}, key="a", type="Said")
        await outbox.publish({"n": 2}, key="a", type="Said", delay=0.001)

        async def refuse(event: object, tx: object) -> None:
            raise ValueError

        loops = [
            outbox.sequencer(),
            outbox.consumer("all", refuse, fp.ConsumerOptions(attempts=1)),
            outbox.retention(keep=0.0),
        ]
        for loop in loops:
            (await loop.open()).close()
        letters = outbox.dead_letters("all")
        while not (dead := await letters.list()):
            for loop in loops[:2]:
                await loop.step()
        assert await letters.replay(dead[0].id)
        while not await letters.list():
            await loops[1].step()
        assert await letters.discard_all()
        await outbox.lag()
        await loops[2].step()
        for loop in loops:
            await loop.close()
        await outbox.forget("all")
        await outbox.begin_epoch()
        await outbox.close()


async def test_rights_on_the_page_are_enough(clerk: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(BLOCK)
    await everything(clerk)


@pytest.mark.parametrize("right", single_rights())
async def test_one_right_less_is_not(clerk: str, postgres_url: str, right: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(BLOCK)
        raw.execute(right.replace("GRANT", "REVOKE").replace("TO clerk", "FROM clerk"))
    with pytest.raises(FaultproofError) as caught:
        await everything(clerk)
    assert isinstance(caught.value, CannotOpen) or "USAGE ON SCHEMA" in right, caught.value


async def test_the_right_to_create_is_enough_to_install(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("DROP ROLE IF EXISTS installer")
        raw.execute("CREATE ROLE installer LOGIN PASSWORD 'x'")
        raw.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        raw.execute("GRANT USAGE ON SCHEMA public TO installer")
        url = f"postgresql://installer:x@{postgres_url.partition('@')[2]}"
        async with fp.connect(url) as db:
            with pytest.raises(CannotOpen, match="permission denied for schema public"):
                await outbox_on(db).install()
        raw.execute("GRANT CREATE ON SCHEMA public TO installer")
        async with fp.connect(url) as db:
            await outbox_on(db).install()
        raw.execute("DROP OWNED BY installer")
        raw.execute("DROP ROLE installer")


async def test_who_only_publishes_needs_less(clerk: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("GRANT USAGE ON SCHEMA public TO clerk")
        raw.execute("GRANT INSERT ON faultproof_intake TO clerk")
        raw.execute("GRANT SELECT ON faultproof_log_partition, faultproof_schema TO clerk")
    async with fp.connect(clerk) as db:
        outbox = outbox_on(db)
        await outbox.publish({"n": 1}, key="a", type="Said")
        await outbox.close()

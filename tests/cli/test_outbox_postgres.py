"""The outbox's verbs on PostgreSQL: the same as on a file."""

import asyncio
import json

import faultproof as fp
from tests.cli.executable import faultproof, refusals


async def publish(url: str) -> None:
    async with fp.connect(url) as db:
        outbox = fp.Outbox(db, events={"Said": dict})
        await outbox.install()
        await outbox.publish({"text": "hello"}, key="a", type="Said")
        await outbox.close()


def test_lag_is_seen_from_outside(postgres_url: str) -> None:
    asyncio.run(publish(postgres_url))
    assert json.loads(faultproof("outbox", "lag", "--db", postgres_url, "--json").stdout)["intake"]["events"] == 1


def test_what_cannot_be_had_is_one_sentence_and_exit_status_2(postgres_url: str) -> None:
    address = postgres_url.partition("@")[2]
    said = refusals(
        ["outbox", "lag", "--db", f"postgresql://postgres:s3cret@{address}"],
        ["outbox", "lag", "--db", f"postgresql://postgres:s3cret/x@{address}"],
        ["outbox", "lag", "--db", postgres_url],
        ["outbox", "lag", "--db", "postgresql://postgres:s3cret@127.0.0.1:1/shop"],
        ["outbox", "lag", "--db", f"{postgres_url}?sslmode=require"],
    )
    assert "s3cret" not in " ".join(said)
    assert said[0].endswith('refuses the connection: password authentication failed for user "postgres"')
    assert said[1].startswith("that is not a PostgreSQL URL: ")
    assert "has no tables of faultproof's" in said[2]
    assert said[3] == "the database shop on 127.0.0.1:1 cannot be reached: Connection refused"
    assert said[4].endswith(" cannot be reached: server does not support SSL, but SSL was required")

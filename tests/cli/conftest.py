"""What several verbs are tried on."""

import asyncio
from pathlib import Path

import pytest

from tests.cli.mailroom import mailroom


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with an outbox whose group `post` has one dead letter."""
    path = tmp_path_factory.mktemp("mail") / "mail.db"

    async def fill() -> None:
        async with mailroom(path) as room:
            room.refused = {"ada"}
            await room.publish("ada", key="a")
            await room.settled(dead=1)

    asyncio.run(fill())
    return path

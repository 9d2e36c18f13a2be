"""A file that was open at a fork is refused in the child, where SQLite's locks on it hold nobody off."""

import asyncio
import os
from pathlib import Path

import faultproof as fp
from faultproof.errors import UsedAfterFork


async def _open_and_close(path: str) -> None:
    async with fp.connect(path):
        pass


def _child_says(path: str) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_open_and_close(path))
            os.write(writing, b"opened")
        except UsedAfterFork:
            os.write(writing, b"refused")
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


def test_a_child_cannot_open_what_its_parent_had_open(tmp_path: Path) -> None:
    path, link = tmp_path / "shop.db", tmp_path / "link.db"
    link.symlink_to(path)

    async def main() -> tuple[str, str]:
        async with fp.connect(str(path)):
            return _child_says(str(path)), _child_says(str(link))

    assert asyncio.run(main()) == ("refused", "refused")


def test_a_child_may_open_what_its_parent_has_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "shop.db")
    asyncio.run(_open_and_close(path))
    assert _child_says(path) == "opened"

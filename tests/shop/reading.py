"""Looking into a database file from outside."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds, on a connection of its own."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()

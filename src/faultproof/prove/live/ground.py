"""Where runs take place: a database for each, made, marked, cleaned up, and looked at from outside."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from faultproof.clock import Env
from faultproof.connect import connect
from faultproof.prove.proof import Proof
from faultproof.signals import Signals

PREFIX = "faultproof-prove-"
_MARKER = "made-by-faultproof-prove"
_SPARE_S = 5.0
"""How long a look from outside waits for a lock of SQLite's."""


class Away(Exception):
    """The database cannot be looked into at the moment: it was killed, or is starting."""


class Checker(Protocol):
    """Looks into the database of a run, from outside of it. Raises `Away`."""

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """A query on what is committed now."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Within the block all queries see one moment."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


class Place(Protocol):
    """The database of one run, with the tables of the proof."""

    @property
    def url(self) -> str:
        """For its processes."""
        ...

    def checker(self) -> Checker:
        """For its judge. Raises `Away`."""
        ...

    def close(self) -> None:
        """Remove it; by then nobody uses it."""
        ...


class Ground(Protocol):
    """Makes places; `close` removes what is left, and says what could not be."""

    @property
    def name(self) -> str:
        """The engine, for reports; nothing of a password."""
        ...

    def place(self, number: int) -> Place:
        """A new database. From any thread."""
        ...

    def crews(self, processes: int) -> int:
        """For how many runs at the same time, of so many processes, there is room."""
        ...

    def close(self) -> list[str]:
        """Sentences about what is left behind; none if that is nothing."""
        ...


class Workshop:
    """A directory for the files of a prover's runs, whose leftovers a later one may recognise and remove."""

    def __init__(self, parent: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
        # Locked as long as this process lives, however it ends.
        self._marker = os.open(self.path / _MARKER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._marker, fcntl.LOCK_EX)

    def close(self) -> list[str]:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._marker)
        return [f"the directory {self.path} could not be removed"] if self.path.exists() else []


def abandoned(parent: Path | None = None) -> list[Path]:
    """Directories of provers of this user's that were killed: they carry the marker, and nobody holds its lock."""
    return [
        path
        for path in sorted(Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"))
        if not path.is_symlink() and _is_abandoned(path / _MARKER)
    ]


def _is_abandoned(marker: Path) -> bool:
    try:
        file = os.open(marker, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # not ours
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file).st_uid == os.getuid()
    except OSError:
        return False
    finally:
        os.close(file)


# -- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteGround:
    """Files in a directory of their own; the proof's tables are made once and copied."""

    def __init__(self, proof: Proof, directory: Path) -> None:
        self.name = f"SQLite {sqlite3.sqlite_version}"
        self._directory = directory
        self._image = directory / "prepared.db"
        prepare(proof, str(self._image))

    def place(self, number: int) -> SqlitePlace:
        path = self._directory / f"{number}.db"
        shutil.copyfile(self._image, path)
        return SqlitePlace(path)

    def crews(self, processes: int) -> int:
        return 64

    def close(self) -> list[str]:
        return []  # with the directory


class SqlitePlace:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self._path = path

    def checker(self) -> SqliteChecker:
        return SqliteChecker(self._path)

    def close(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.url}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(f"{self.url}-wake", ignore_errors=True)


class SqliteChecker:
    """A connection that only reads. Used in the thread that made it."""

    def __init__(self, path: Path) -> None:
        # Read-only, it could not recover the log of processes that were killed; so it may write, and does not.
        uri = f"file:{quote(str(path))}?mode=rw"
        self._raw = sqlite3.connect(uri, uri=True, timeout=_SPARE_S, isolation_level=None)
        self._raw.execute("PRAGMA wal_autocheckpoint=0")
        self._raw.execute("PRAGMA query_only=ON")

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self._raw.execute(sql).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._raw.execute("BEGIN")
        try:
            yield
        finally:
            self._raw.execute("ROLLBACK")

    def close(self) -> None:
        self._raw.close()


def prepare(proof: Proof, url: str) -> None:
    """Make the proof's tables there."""

    async def prepared() -> None:
        async with connect(url, env=Env(signals=Signals(sinks=()))) as database:
            await proof.prepare(database)

    asyncio.run(prepared())

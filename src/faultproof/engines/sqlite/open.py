"""Opening an SQLite file as a `Database`, and what this engine can do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from concurrent.futures import Future
from contextlib import closing
from typing import get_args
from urllib.parse import quote

from faultproof.clock import Env
from faultproof.engines.sqlite.checkpoint import Checkpointer
from faultproof.engines.sqlite.connection import Connection, Synchronous, open_connection, refuse_inherited
from faultproof.engines.sqlite.database import LOCK_BASE_S, LOCK_CAP_S, LOCK_TIMEOUT_S, SqliteDatabase
from faultproof.engines.sqlite.faults import translated
from faultproof.engines.sqlite.lane import ThreadLane
from faultproof.engines.sqlite.wake import DatagramWakeups
from faultproof.engines.sqlite.watch import POLL_S
from faultproof.errors import Busy, CannotOpen, InvalidInput, SchemaMismatch
from faultproof.primitives.retry import full_jitter

CAPABILITIES = frozenset(
    {
        "claims",
        "log",
        "wake-up",
        "interactive-transactions",
        "joined-sqlite3",
        "joined-sqlalchemy",
        "joined-django",
    }
)
"""What the conformance suites exercise on this engine. Not here: concurrent writers, log-based capture."""


async def open_database(
    path: str, *, env: Env, synchronous: str = "full", create: bool = True, poll_s: float = POLL_S
) -> SqliteDatabase:
    """Open the file, creating it if its directory exists; or, without `create`, only a file that `install` was run on."""
    if synchronous not in get_args(Synchronous):
        raise InvalidInput(f"synchronous={synchronous!r} is not one of full (the default) and normal")
    if "\0" in path or not path or path == ":memory:":
        raise InvalidInput(f"{path!r} is not a path of a file; a database that several connections use needs one")
    try:
        path = os.path.realpath(path)  # SQLite puts its log beside the file itself, not beside a link to it
    except OSError as error:
        raise CannotOpen(f"{path} cannot be found from here, because the current directory is gone: {error}") from error
    refuse_inherited(path)
    if os.path.isdir(path):
        raise CannotOpen(f"{path} is a directory: name a file in it")
    if not os.path.isdir(os.path.dirname(path)):
        raise CannotOpen(f"the directory {os.path.dirname(path)} does not exist: create it first")
    level: Synchronous = "full" if synchronous == "full" else "normal"
    writer, reader, checkpoints = await _open(path, env, level, create)
    lane = ThreadLane(writer, name="faultproof-writer")
    return SqliteDatabase(
        env=env,
        writer=lane,
        reader=ThreadLane(reader, name="faultproof-reader"),
        wakeups=DatagramWakeups(path, env, others=lambda: lane.call(Connection.others_committed), poll_s=poll_s),
        checkpointer=Checkpointer(path, checkpoints),
        durability=f"SQLite WAL, synchronous={level.upper()}",
    )


async def _open(path: str, env: Env, synchronous: Synchronous, create: bool) -> list[Connection]:
    """Writer, reader and checkpoints. The first connection of all turns the file to WAL and needs it to itself for that
    moment, and so does one that recovers it after a crash: wait for it."""
    started, tries = env.clock.monotonic(), 0
    while True:
        try:
            return await _in_thread(path, env, synchronous, create)
        except Busy:
            if env.clock.monotonic() - started >= LOCK_TIMEOUT_S:
                raise
        await env.clock.sleep(full_jitter(tries, base=LOCK_BASE_S, cap=LOCK_CAP_S, rng=env.rng))
        tries += 1


async def _in_thread(path: str, env: Env, synchronous: Synchronous, create: bool) -> list[Connection]:
    opened: Future[list[Connection]] = Future()
    try:
        await asyncio.to_thread(lambda: opened.set_result(_connections(path, env, synchronous, create)))
    except BaseException:  # the thread goes on, even past the end of the loop: it closes then what it has opened itself
        opened.add_done_callback(_close)
        raise
    return opened.result()


def _close(opened: Future[list[Connection]]) -> None:
    for connection in opened.result():
        connection.close()


def _connections(path: str, env: Env, synchronous: Synchronous, create: bool) -> list[Connection]:
    if not create:
        _refuse_others(path)
    opened: list[Connection] = []
    try:
        for reader in (False, True, False):
            opened.append(open_connection(path, now=env.clock.wall_us, synchronous=synchronous, reader=reader))
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    return opened


def _refuse_others(path: str) -> None:
    """Refuse a file that is not there or not ours. To open it is too late: that turns any database to WAL."""
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        is_file = False
    except OSError as error:  # it may be there: this process cannot see
        raise CannotOpen(
            f"{path} cannot be looked at ({error.strerror}): check the name and the rights to it"
        ) from error
    if not is_file:
        raise CannotOpen(f"there is no database {path}: check the name, or let the application make it first")
    try:
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=rw", uri=True, timeout=0)) as raw:
            ours = raw.execute("SELECT 1 FROM sqlite_schema WHERE name = 'faultproof_schema'").fetchone()
    except sqlite3.Error as error:
        raise translated(error, path) from error
    if ours is None:
        raise SchemaMismatch(f"{path} has no tables of faultproof's: name another database, or call `install()` first")

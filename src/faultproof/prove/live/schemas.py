"""Runs on PostgreSQL: each in a schema of its own, on a server of the prover's or in a database of the user's.

Every schema that is made carries a marker in its comment, and the prover holds an advisory lock as long as it lives. Nothing
is ever dropped that does not carry it: neither a schema of another's that happens to be called so, nor one of a prover
that still runs.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from faultproof.errors import CannotOpen, InvalidInput
from faultproof.prove.live.address import changed, in_schema, places, strangers
from faultproof.prove.live.ground import Away, prepare
from faultproof.prove.proof import Proof

_NAME = re.compile(r"faultproof_prove_([0-9a-f]{12})_(\d{1,6})")
_MARKER = "made by `faultproof prove`, run {run}: it may be dropped when that run is over"
_CONNECT_S = 10
_CONNECTIONS_A_PROCESS = 6
"""At most: the pool's, the line's for wake-ups, and what a crash has left."""

_OURS: LiteralString = """
    SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace
    WHERE nspname LIKE 'faultproof\\_prove\\_%' AND pg_get_userbyid(nspowner) = current_user
    ORDER BY nspname"""


class PostgresGround:
    """Schemas in one database. Raises `InvalidInput` for an address beyond this machine, unless that was allowed."""

    def __init__(self, proof: Proof, url: str, *, allow_remote: bool = False) -> None:
        refuse_remote(url, allow_remote)
        self._proof = proof
        self._url = changed(url, connect_timeout=_CONNECT_S)
        self._run = secrets.token_hex(6)
        self._made: set[str] = set()
        self._own = _connected(self._url)
        self._own.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7))", (self._run,))
        self.name = f"PostgreSQL {self._own.info.server_version // 10_000}"

    def place(self, number: int) -> PostgresPlace:
        schema = f"faultproof_prove_{self._run}_{number}"
        raw = _connected(self._url)
        try:
            _create(raw, schema, self._run)
            self._made.add(schema)
            place = PostgresPlace(self, raw, schema, in_schema(self._url, schema))
            prepare(self._proof, place.url)
        except BaseException:
            raw.close()
            raise
        return place

    def drop(self, raw: psycopg.Connection[Any], schema: str) -> None:
        """Drop one that was made here."""
        _drop(raw, schema, self._run)
        self._made.discard(schema)

    def connected(self) -> psycopg.Connection[Any]:
        """Raises `CannotOpen`."""
        return _connected(self._url)

    def crews(self, processes: int) -> int:
        """How many runs at the same time the server has connections for."""
        ((left,),) = self._own.execute(
            """SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                      - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"""
        ).fetchall()
        return max(1, int(left) // (processes * _CONNECTIONS_A_PROCESS + 2))

    def close(self) -> list[str]:
        wrong: list[str] = []
        for schema in sorted(self._made):
            try:
                with self.connected() as raw:
                    self.drop(raw, schema)
            except InvalidInput:
                wrong.append(f"the schema {schema} could not be dropped: it does not carry this run's marker")
            except (psycopg.Error, CannotOpen) as error:
                wrong.append(f"the schema {schema} could not be dropped: {str(error).splitlines()[0]}")
        with suppress(psycopg.Error):  # it may have been cut by our own faults
            self._own.close()
        with suppress(psycopg.Error, CannotOpen), _connected(self._url) as raw:  # verified, not believed
            left = [name for name, marker in raw.execute(_OURS) if marker == _MARKER.format(run=self._run)]
            wrong += [f"the schema {name} is still there" for name in left]
        return wrong


class PostgresPlace:
    """One schema, and one connection to it: making it, judging and dropping it take turns. Used in one thread."""

    def __init__(self, ground: PostgresGround, raw: psycopg.Connection[Any], schema: str, url: str) -> None:
        self.url = url
        self._schema = schema
        self._ground = ground
        self._raw = raw

    def checker(self) -> PostgresChecker:
        try:
            raw = self._usable()
            raw.execute("SELECT set_config('search_path', %s, false)", (self._schema,))
        except (CannotOpen, psycopg.OperationalError) as error:
            raise Away(str(error)) from error
        return PostgresChecker(raw)

    def close(self) -> None:
        try:
            self._ground.drop(self._usable(), self._schema)
        except psycopg.OperationalError:
            if not self._raw.closed:
                raise
            self._ground.drop(self._usable(), self._schema)  # the server was killed, and nobody had noticed here
        finally:
            self._raw.close()

    def _usable(self) -> psycopg.Connection[Any]:
        if self._raw.closed:
            self._raw = self._ground.connected()
        return self._raw


class PostgresChecker:
    """Reads through the place's connection."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self._raw = raw

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        with self._noticing():
            return self._raw.execute(sql.encode()).fetchall()  # the proof's own text, as its author wrote it

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._noticing():
            self._raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            with self._noticing():
                self._raw.execute("ROLLBACK")

    def close(self) -> None:
        """The place keeps its connection."""

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except psycopg.OperationalError as error:
            if self._raw.closed:
                raise Away(str(error)) from error
            raise


def refuse_remote(url: str, allow_remote: bool) -> None:
    """Raise `InvalidInput` for an address that leads beyond this machine."""
    if not allow_remote and (named := strangers(url)):
        raise InvalidInput(
            f"{named[0]} is not this machine: the prover kills, stops and cuts what uses that database; "
            "give --allow-remote if that is what you want"
        )


def leftovers(url: str) -> list[str]:
    """Schemas of provers that were killed: marked, this role's own, and their run holds its lock no more."""
    with _connected(url) as raw:
        return [name for name, run in _marked(raw) if _is_over(raw, run)]


def sweep(url: str) -> list[str]:
    """Drop them; what was dropped."""
    swept = []
    with _connected(url) as raw:
        for name, run in _marked(raw):
            if _is_over(raw, run):
                _drop(raw, name, run)
                swept.append(name)
    return swept


def _marked(raw: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    found = []
    for name, marker in raw.execute(_OURS).fetchall():
        match = _NAME.fullmatch(name)
        if match is not None and marker == _MARKER.format(run=match[1]):
            found.append((name, match[1]))
    return found


def _is_over(raw: psycopg.Connection[Any], run: str) -> bool:
    ((free,),) = raw.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 7))", (run,)).fetchall()
    if free:
        raw.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 7))", (run,))
    return bool(free)


def _create(raw: psycopg.Connection[Any], schema: str, run: str) -> None:
    with raw.transaction():  # the marker with it, or neither
        raw.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        raw.execute(
            sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), sql.Literal(_MARKER.format(run=run)))
        )


def _drop(raw: psycopg.Connection[Any], schema: str, run: str) -> None:
    """Drop it if it carries this run's marker. Whoever still has a transaction open in it is waited for, for a while."""
    if (schema, run) not in _marked(raw):
        raise InvalidInput(f"the schema {schema} does not carry this run's marker, so it is not dropped")
    raw.execute("SET lock_timeout = '10s'")
    raw.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def _connected(url: str) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(url, autocommit=True)
    except psycopg.Error as error:
        ((host, port), *_) = places(url)
        raise CannotOpen(f"PostgreSQL on {host}:{port} cannot be used: {str(error).splitlines()[0]}") from None

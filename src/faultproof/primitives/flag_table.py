"""Flags from a table of the database: set once, and every process that has it open hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput, SchemaMismatch
from faultproof.ports.database import Database, News, Tx
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, Wake, sql
from faultproof.primitives.flags import Value
from faultproof.primitives.install import FirstUse
from faultproof.primitives.transactions import check_tx

FLAGS_MAX = 10_000
VALUE_BYTES_MAX = 1_000
TOPIC = "flags"

SCHEMA = Schema(
    name="flags",
    versions=[
        [
            "CREATE TABLE IF NOT EXISTS faultproof_flag (name TEXT PRIMARY KEY, value TEXT NOT NULL, at_us BIGINT NOT NULL)"
        ]
    ],
    works_from=1,
    works_to=1,
)


class _Said(NamedTuple):
    name: str
    value: str


@sql("SELECT name, value FROM faultproof_flag ORDER BY name LIMIT :most")
def _all(most: int) -> list[_Said]: ...


@sql(
    """INSERT INTO faultproof_flag (name, value, at_us) VALUES (:name, :value, {now})
       ON CONFLICT (name) DO UPDATE SET value = excluded.value, at_us = excluded.at_us"""
)
def _set(name: str, value: str) -> None: ...


@sql("DELETE FROM faultproof_flag WHERE name = :name")
def _unset(name: str) -> None: ...


class FlagTable:
    """The flags in a database, for as many services as like: a name that one does not declare is another's.

    ::

        table = fp.FlagTable(database)
        await table.install()                            # once
        await table.set("pricing.shadow", False)         # by whoever operates it, in any process

    Whoever has opened flags on it hears of a commit at once, and looks every `look` seconds where the news is lost. While the
    database cannot be read, flags stay as they are.
    """

    is_shared = True

    def __init__(self, database: Database, *, look: float = 5.0) -> None:
        bounds.seconds("look", look)
        self._database = database
        self._first = FirstUse(SCHEMA)
        self.look = look

    async def install(self) -> None:
        """Make the table, or bring it to this release's version. Any number of processes may."""
        await self._database.install(SCHEMA)

    async def set(self, name: str, value: Value, *, tx: Tx | None = None) -> None:
        """Say it, for every process. `value`: true or false, a share from 0 to 1, or a variant's name. With `tx` it commits or
        vanishes with that transaction: with a line about who said so, for one."""
        bounds.name("a flag", name)
        if not isinstance(value, bool | str):
            bounds.number("value", value, least=0, most=1)
        written = msgspec.json.encode(value).decode()
        if len(written.encode()) > VALUE_BYTES_MAX:
            raise InvalidInput(f"a flag's value has at most {VALUE_BYTES_MAX} bytes, got {bounds.short(value)}")
        if tx is None:
            await self._database.transact(lambda: self._said(_set(name, written)))
            return
        check_tx(tx, self._database)
        await tx.run(self._said(_set(name, written)))

    async def unset(self, name: str) -> None:
        """Say nothing of it any more: what the code declares counts."""
        await self._database.transact(lambda: self._said(_unset(bounds.name("a flag", name))))

    def news(self) -> News:
        return self._database.changed(TOPIC)

    async def read(self) -> Mapping[str, object]:
        said = await self._database.read(self._read(), snapshot=False)
        if len(said) > FLAGS_MAX:
            raise SchemaMismatch(f"the table of flags has more than {FLAGS_MAX:,} rows: remove what nobody declares")
        return {each.name: _decoded(each.value) for each in said}

    def _said(self, change: Script[None]) -> Script[None]:
        yield from self._first.check()
        yield from change
        yield Wake(TOPIC)

    def _read(self) -> Script[list[_Said]]:
        yield from self._first.check()
        return (yield from _all(FLAGS_MAX + 1))


def _decoded(value: str) -> object:
    try:
        return msgspec.json.decode(value)
    except ValueError:
        return None  # what no flag can be

"""Creating and upgrading tables, as a script: idempotent, and refused where the versions do not fit."""

from __future__ import annotations

from typing import NamedTuple

from faultproof.errors import SchemaMismatch
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, ddl, sql


@sql("SELECT version FROM faultproof_schema WHERE name = :name")
def version_of(name: str) -> int | None:
    """The version installed of a component, if any."""


class Installed(NamedTuple):
    """A component and its version."""

    name: str
    version: int


@sql("SELECT name, version FROM faultproof_schema")
def _installed() -> list[Installed]: ...


@sql(
    """INSERT INTO faultproof_schema (name, version) VALUES (:name, :version)
       ON CONFLICT (name) DO UPDATE SET version = excluded.version"""
)
def _record(name: str, version: int) -> None: ...


def install(schema: Schema) -> Script[None]:
    """Bring one component to this release's version. The engine runs it in a transaction that no other installs beside."""
    yield from ddl("CREATE TABLE IF NOT EXISTS faultproof_schema (name TEXT PRIMARY KEY, version BIGINT NOT NULL)")
    installed = (yield from version_of(schema.name)) or 0
    if installed > schema.works_to:
        raise _too_new(schema, installed)
    if installed < schema.version:
        for statements in schema.versions[installed:]:
            for statement in statements:
                yield from ddl(statement)
        yield from _record(schema.name, schema.version)


def check(*schemas: Schema) -> Script[None]:
    """Raise `SchemaMismatch` unless this release can run on what is installed of each; one statement."""
    versions = {component.name: component.version for component in (yield from _installed())}
    for schema in schemas:
        installed = versions.get(schema.name)
        if installed is None:
            raise SchemaMismatch(
                f"the tables of {schema.name!r} are not in this database: call `install()` once before"
            )
        if installed > schema.works_to:
            raise _too_new(schema, installed)
        if installed < schema.works_from:
            raise SchemaMismatch(
                f"the tables of {schema.name!r} have version {installed}, made by an older release; this one works with "
                f"{schema.works_from} to {schema.works_to}: call `install()` with it once before"
            )


class FirstUse:
    """`check`, made once in a process: before it uses the tables for the first time, whichever call that is.

    A process that is merely started need not call `install()`, and tables of another release would take what it writes.
    """

    def __init__(self, *schemas: Schema) -> None:
        self._schemas = schemas
        self.is_over = False

    def check(self) -> Script[None]:
        """Nothing, if this release can run on them; what it finds is kept. Raises `SchemaMismatch` if it cannot."""
        if not self.is_over:
            yield from check(*self._schemas)
            self.is_over = True


def _too_new(schema: Schema, installed: int) -> SchemaMismatch:
    return SchemaMismatch(
        f"the tables of {schema.name!r} have version {installed}, made by a newer release; this one works with "
        f"{schema.works_from} to {schema.works_to}: upgrade faultproof"
    )

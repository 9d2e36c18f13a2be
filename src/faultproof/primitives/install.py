"""Creating and upgrading tables, as a script: idempotent, and refused where the versions do not fit."""

from __future__ import annotations

from faultproof.errors import SchemaMismatch
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, ddl, sql


@sql("SELECT version FROM faultproof_schema WHERE name = :name")
def version_of(name: str) -> int | None:
    """The version installed of a component, if any."""


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
        raise SchemaMismatch(
            f"the tables of {schema.name!r} have version {installed}, made by a newer release; this one works with "
            f"{schema.works_from} to {schema.works_to}: upgrade faultproof"
        )
    if installed < schema.version:
        for statements in schema.versions[installed:]:
            for statement in statements:
                yield from ddl(statement)
        yield from _record(schema.name, schema.version)


def check(schema: Schema) -> Script[None]:
    """Raise `SchemaMismatch` unless this release can run on what is installed."""
    installed = yield from version_of(schema.name)
    if installed is None or not schema.works_from <= installed <= schema.works_to:
        raise SchemaMismatch(
            f"the tables of {schema.name!r} have version {installed or 0}; this release works with "
            f"{schema.works_from} to {schema.works_to}: call `install()` with this release, or use a newer one"
        )

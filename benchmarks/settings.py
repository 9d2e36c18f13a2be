"""Durability in effect, asked of the server or the file, never of a configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Ask = Callable[[str], Awaitable[Sequence[Sequence[Any]]]]
"""Runs a query on the contestant's own connection, where its library could have set something."""

_POSTGRES = ("synchronous_commit", "fsync", "full_page_writes", "commit_delay", "wal_level", "server_version")
_SYNCHRONOUS = {"0": "off", "1": "normal", "2": "full", "3": "extra"}

DURABILITY = ("synchronous_commit", "fsync", "full_page_writes", "unlogged tables", "journal_mode", "synchronous")
"""Settings that contestants must share to be compared."""


async def postgres_settings(ask: Ask) -> dict[str, str]:
    """Of a PostgreSQL session. Tables that are not logged are durability too, and hide well."""
    found = {name: str((await ask(f"SHOW {name}"))[0][0]) for name in _POSTGRES}
    unlogged = await ask("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'")
    return {**found, "unlogged tables": str(unlogged[0][0])}


async def sqlite_settings(ask: Ask) -> dict[str, str]:
    """Of an SQLite connection."""
    synchronous = str((await ask("PRAGMA synchronous"))[0][0])
    return {
        "journal_mode": str((await ask("PRAGMA journal_mode"))[0][0]),
        "synchronous": _SYNCHRONOUS.get(synchronous, synchronous),
        "SQLite": str((await ask("SELECT sqlite_version()"))[0][0]),
    }


def differences(contestants: dict[str, dict[str, str]]) -> list[str]:
    """A sentence for each durability setting that not all share; ratios between those mean little."""
    found = []
    for name in DURABILITY:
        values = {contestant: settings[name] for contestant, settings in contestants.items() if name in settings}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{contestant}: {value}" for contestant, value in values.items())
            found.append(f"{name} is not the same for all ({said})")
    return found

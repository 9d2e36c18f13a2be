"""What a commit promises here and now, asked of the server itself. Needs no driver."""

from __future__ import annotations

from typing import NamedTuple

from faultproof.ports.database import Health
from faultproof.ports.script import Script, sql


class Settings(NamedTuple):
    """What a commit promises here and now."""

    synchronous_commit: str
    fsync: str
    full_page_writes: str

    @property
    def durability(self) -> str:
        """For reports, in the server's own words."""
        return f"PostgreSQL, synchronous_commit={self.synchronous_commit}, fsync={self.fsync}"

    @property
    def warnings(self) -> list[str]:
        """What an operator may not know."""
        found = []
        if self.fsync != "on":
            found.append("fsync is off: a crash of the machine loses commits, or the whole database")
        if self.full_page_writes != "on":
            found.append("full_page_writes is off: a crash of the machine may damage tables")
        if self.synchronous_commit == "off":
            found.append("synchronous_commit is off: a crash of the server loses the last commits that were answered")
        return found


@sql("SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')")
def settings() -> Settings: ...


@sql("SELECT current_setting('server_version')")
def _version() -> str: ...


def health() -> Script[Health]:
    """The server as the transaction that asks sees it."""
    version, now = (yield from _version()), (yield from settings())
    return Health(f"PostgreSQL {version.split()[0]}", now.durability, tuple(now.warnings))

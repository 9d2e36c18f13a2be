"""Looking whom one has connected to: refused is what nothing here could work on, and said is what it promises."""

from __future__ import annotations

from typing import NamedTuple

from faultproof.engines.postgres.address import Address
from faultproof.engines.postgres.faults import connection_lost, line
from faultproof.engines.postgres.settings import Settings
from faultproof.engines.postgres.wire import Command, CommandFailed, Raw, send
from faultproof.errors import CannotOpen, NotSupported

VERSION_MIN = 150_000


class Server(NamedTuple):
    """What was found."""

    name: str
    version: str
    durability: str
    pooled: bool
    """A pooler stands before it: each transaction may meet another server process."""


async def look_at(raw: Raw, address: Address, *, pooler: bool | None) -> Server:
    """Raises `NotSupported` for a server that is too old or a pooler in statement mode, and `CannotOpen` for a standby."""
    version = raw.info.server_version
    if version < VERSION_MIN:
        raise NotSupported(f"{address.name} runs version {version // 10_000}; faultproof needs PostgreSQL 15 or newer")
    try:
        await send(raw, [_BEGIN], prepare=False)
        (found,) = await send(raw, [_PROBE], prepare=False)
        ((backend, recovering, commit, fsync, full),) = found.answer.rows
        await send(raw, [_END], prepare=False)
    except CommandFailed as failed:
        refused = failed.error.sqlstate == "08P01"  # by a pooler: a protocol violation, but nothing is lost
        if failed.command is not _BEGIN or (connection_lost(failed.error) and not refused):
            raise failed.error from None
        raise NotSupported(
            f"{address.name} begins no transaction ({line(failed.error)}): a pooler before it must be in transaction or "
            "session mode"
        ) from failed.error
    if recovering:
        raise CannotOpen(
            f"{address.name} is a standby, which only reads: give the primary's address, or all of them with "
            "target_session_attrs=read-write"
        )
    return Server(
        address.name,
        f"PostgreSQL {version // 10_000}.{version % 10_000}",
        Settings(commit, fsync, full).durability,
        # A pooler makes up the process id that it tells its clients.
        backend != raw.info.backend_pid if pooler is None else pooler,
    )


_BEGIN, _END = Command(b"BEGIN"), Command(b"COMMIT")
_PROBE = Command(
    b"""SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('synchronous_commit'),
          current_setting('fsync'), current_setting('full_page_writes')"""
)

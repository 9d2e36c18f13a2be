"""What an operator does to an outbox from outside its application: named by database and name, without event classes."""

from __future__ import annotations

from faultproof.errors import InvalidInput
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.membership import group_kind
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.primitives.install import check
from faultproof.primitives.leases import members_kind


def require(database: Database, log: str, group: str | None = None) -> Script[None]:
    """Nothing, if this release can work on the tables, the log exists, and so does the group, if one is named.

    Raises `SchemaMismatch` for tables or a log that are not there, and `InvalidInput` for a group, naming those there
    are.
    """
    yield from check(*sql.schemas(database))
    yield from database.logs.epoch(log)
    if group is None:
        return
    groups = yield from sql.groups(log)
    if group not in groups:
        known = f"its groups are {', '.join(groups)}" if groups else "it has no groups yet"
        raise InvalidInput(f"no group {group!r} has ever consumed {log!r}: {known}")


def forget(database: Database, log: str, group: str) -> Script[None]:
    """Remove a group with its progress, its parked events and its leases: a consumer still at it notices by those."""
    # Held as by who joins, before or after: or one that joins meanwhile finds cursors, which go with this commit, and adds
    # leases, which stay; with leases and no cursors it would wait for ever.
    yield from database.logs.hold(log)
    yield from sql.leave_group(log, group)
    yield from sql.forget_parked(log, group)
    for kind in (group_kind(log, group), members_kind(group_kind(log, group))):
        yield from database.claims.remove(kind)

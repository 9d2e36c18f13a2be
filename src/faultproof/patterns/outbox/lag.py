"""Lag: what is committed and not yet delivered, how old it is, and who is at it."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.membership import group_kind
from faultproof.patterns.outbox.sequencer import lease_kind
from faultproof.ports.claims import Holder
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.signals import LAG_AGE, LAG_EVENTS


class GroupLag(NamedTuple):
    """One group."""

    group: str
    events: int
    """In the log, where the group has not come to yet."""
    age_s: float
    """Of the oldest event that is not settled, parked ones included; a delayed one counts from when it became due."""
    parked: int
    """Set aside: waiting for another attempt, or behind an event that does or is dead."""
    dead: int
    holders: dict[str, list[int]]
    """Process -> the partitions it consumes."""


class Lag(NamedTuple):
    """The whole outbox."""

    events: int
    """Committed and not yet sequenced."""
    age_s: float
    """Of the oldest of them."""
    delayed: int
    """Published with a delay, not yet due."""
    sequencers: dict[str, list[int]]
    """Process -> the partitions it sequences."""
    groups: list[GroupLag]


async def measure(database: Database, log: str) -> Lag:
    """Look at one consistent snapshot, and emit the signals."""
    lag = await database.read(_measure(database, log))
    signals = database.env.signals
    signals.emit(LAG_EVENTS, lag.events, log=log, group="")
    signals.emit(LAG_AGE, lag.age_s, log=log, group="")
    for group in lag.groups:
        signals.emit(LAG_EVENTS, group.events + group.parked, log=log, group=group.group)
        signals.emit(LAG_AGE, group.age_s, log=log, group=group.group)
    return lag


def _measure(database: Database, log: str) -> Script[Lag]:
    intake = yield from database.logs.intake(log)
    sequencers = yield from database.claims.holders(lease_kind(log))
    now_us = yield from sql.engine_now_us()
    parked = {count.group: count for count in (yield from sql.parked_counts(log))}
    backlogs = yield from sql.backlogs(log)
    groups = []
    for name in sorted({backlog.group for backlog in backlogs}):
        mine = [backlog for backlog in backlogs if backlog.group == name]
        count = parked.get(name)
        unsettled = [backlog.oldest_us for backlog in mine] + [count.oldest_us if count else None]
        oldest_us = min((at_us for at_us in unsettled if at_us is not None), default=now_us)
        holders = yield from database.claims.holders(group_kind(log, name))
        groups.append(
            GroupLag(
                name,
                sum(backlog.events for backlog in mine),
                max(0, now_us - oldest_us) / 1_000_000,
                count.waiting if count else 0,
                count.dead if count else 0,
                _by_owner(holders),
            )
        )
    return Lag(intake.events, intake.age_us / 1_000_000, intake.delayed, _by_owner(sequencers), groups)


def _by_owner(holders: list[Holder]) -> dict[str, list[int]]:
    partitions: dict[str, list[int]] = defaultdict(list)
    for holder in holders:
        if holder.state == "held" and holder.owner is not None:
            partitions[holder.owner].append(int(holder.id))
    return {owner: sorted(numbers) for owner, numbers in sorted(partitions.items())}

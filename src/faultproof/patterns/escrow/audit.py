"""Audit: what the rows say, added up by the database on one snapshot."""

from __future__ import annotations

from typing import NamedTuple

from faultproof.patterns.escrow import sql
from faultproof.ports.script import Script

FINDINGS_MAX = 1_000


class StockAudit(NamedTuple):
    """What an audit found."""

    violations: tuple[str, ...]
    """A sentence each, at most a thousand of each kind; none if all is well."""
    items: int
    holds: int
    """Those that are held."""
    overdue: int
    """Among them, those whose time is up and whose stock has not been returned yet. That is no violation: nobody can confirm
    them. If it grows, no expiry loop runs."""


def audit(escrow: str) -> Script[StockAudit]:
    """On a snapshot: between its statements nothing may change."""
    found: list[str] = []
    for row in (yield from sql.wrong_sums(escrow, FINDINGS_MAX)):
        found += _sentences(row)
    for key, item in (yield from sql.orphans(escrow, FINDINGS_MAX)):
        found.append(f"the hold {key!r} is of {item!r}, and there is no such item")
    for key, _ in (yield from sql.torn(escrow, FINDINGS_MAX)):
        found.append(f"the lines of the hold {key!r} do not stand together")
    counts = yield from sql.counts(escrow)
    return StockAudit(tuple(found), counts.items, counts.holds, counts.overdue)


def _sentences(row: sql.Sums) -> list[str]:
    found = []
    if min(row.available, row.reserved, row.sold) < 0:
        found.append(f"{row.item!r} has a number below zero: {row.available}, {row.reserved}, {row.sold}")
    if row.available + row.reserved + row.sold != row.total:
        found.append(f"of {row.item!r} {row.available} + {row.reserved} + {row.sold} are there, and not {row.total}")
    if row.reserved != row.held:
        found.append(f"of {row.item!r} {row.reserved} are reserved, and {row.held} are in holds")
    if row.sold < row.confirmed:
        found.append(f"of {row.item!r} {row.sold} are sold, and {row.confirmed} are in holds that were confirmed")
    return found

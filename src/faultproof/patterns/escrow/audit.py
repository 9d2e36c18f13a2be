"""Audit: what the rows say, added up by the database on one snapshot."""

from __future__ import annotations

from typing import NamedTuple

from faultproof.ports.script import Script, sql

FINDINGS_MAX = 1_000


class Audit(NamedTuple):
    """What an audit found."""

    violations: tuple[str, ...]
    """A sentence each, at most a thousand of each kind; none if all is well."""
    items: int
    holds: int
    """Those that are held."""
    overdue: int
    """Among them, those whose time is up and whose stock has not been returned yet. That is no violation: nobody can confirm
    them. If it grows, no expiry loop runs."""


class _Sums(NamedTuple):
    item: str
    total: int
    available: int
    reserved: int
    sold: int
    held: int
    confirmed: int


class _Counts(NamedTuple):
    items: int
    holds: int
    overdue: int


class _Strange(NamedTuple):
    key: str
    item: str


@sql(
    """SELECT i.item, i.total, i.available, i.reserved, i.sold, coalesce(s.held, 0), coalesce(s.confirmed, 0)
       FROM faultproof_escrow_item AS i LEFT JOIN (
         SELECT item, CAST(sum(CASE WHEN state = 'held' THEN quantity ELSE 0 END) AS BIGINT) AS held,
                CAST(sum(CASE WHEN state = 'confirmed' THEN quantity ELSE 0 END) AS BIGINT) AS confirmed
         FROM faultproof_escrow_hold WHERE escrow = :escrow GROUP BY item) AS s ON s.item = i.item
       WHERE i.escrow = :escrow AND (
         i.available < 0 OR i.reserved < 0 OR i.sold < 0 OR i.available + i.reserved + i.sold <> i.total
         OR i.reserved <> coalesce(s.held, 0) OR i.sold < coalesce(s.confirmed, 0))
       ORDER BY i.item LIMIT :limit"""
)
def _wrong_sums(escrow: str, limit: int) -> list[_Sums]: ...


@sql(
    """SELECT h.key, h.item FROM faultproof_escrow_hold AS h
       LEFT JOIN faultproof_escrow_item AS i ON i.escrow = h.escrow AND i.item = h.item
       WHERE h.escrow = :escrow AND i.item IS NULL ORDER BY h.key, h.line LIMIT :limit"""
)
def _orphans(escrow: str, limit: int) -> list[_Strange]: ...


@sql(
    """SELECT key, min(item) FROM faultproof_escrow_hold WHERE escrow = :escrow
       GROUP BY key HAVING min(state) <> max(state) OR min(until_us) <> max(until_us) OR count(*) <> max(line) + 1
       ORDER BY key LIMIT :limit"""
)
def _torn(escrow: str, limit: int) -> list[_Strange]: ...


@sql(
    """SELECT (SELECT count(*) FROM faultproof_escrow_item WHERE escrow = :escrow),
         count(DISTINCT key), count(DISTINCT CASE WHEN until_us <= {now} THEN key END)
       FROM faultproof_escrow_hold WHERE escrow = :escrow AND state = 'held'"""
)
def _counts(escrow: str) -> _Counts: ...


def audit(escrow: str) -> Script[Audit]:
    """On a snapshot: between its statements nothing may change."""
    found: list[str] = []
    for row in (yield from _wrong_sums(escrow, FINDINGS_MAX)):
        found += _sentences(row)
    for key, item in (yield from _orphans(escrow, FINDINGS_MAX)):
        found.append(f"the hold {key!r} is of {item!r}, and there is no such item")
    for key, _ in (yield from _torn(escrow, FINDINGS_MAX)):
        found.append(f"the lines of the hold {key!r} do not stand together")
    counts = yield from _counts(escrow)
    return Audit(tuple(found), counts.items, counts.holds, counts.overdue)


def _sentences(row: _Sums) -> list[str]:
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

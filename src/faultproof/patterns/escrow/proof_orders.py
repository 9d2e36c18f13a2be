"""What the customers in escrow's proof want, and whether what they were told and what they got agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from faultproof.patterns.escrow.requests import Hold
from faultproof.ports.script import Script, sql
from faultproof.prove.proof import Evidence, noted


@sql("INSERT INTO told (key) VALUES (:key)")
def _tell(key: str) -> None: ...


def tell_of(hold: Hold) -> Script[None]:
    """As `on_expired`: in the transaction that returns its stock."""
    yield from _tell(hold.key)


class Order(NamedTuple):
    """What one customer wants, and does then: "confirm", "release", or "dawdle" until it is too late to confirm."""

    key: str
    items: dict[str, int]
    then: str


ORDERS = {
    "service-1": (
        Order("o-1", {"milk": 1, "bread": 1}, "confirm"),
        Order("o-2", {"milk": 2}, "release"),
        Order("o-3", {"bread": 1, "milk": 1}, "dawdle"),
    ),
    "service-2": (
        Order("o-4", {"milk": 1, "bread": 2}, "dawdle"),
        Order("o-5", {"milk": 1}, "confirm"),
        Order("o-6", {"bread": 1}, "confirm"),
    ),
}
WANTED = {order.key: order.items for orders in ORDERS.values() for order in orders}


def done(evidence: Evidence) -> bool:
    if noted(evidence, "finished") < ORDERS.keys():
        return False
    return not evidence.fetch(
        "SELECT 1 FROM faultproof_escrow_hold WHERE state = 'held' AND key NOT LIKE 'kept-%' LIMIT 1"
    )


def wrong_sums(evidence: Evidence) -> list[str]:
    wrong = []
    for item, total, available, reserved, sold, held, confirmed in evidence.fetch(
        """SELECT i.item, i.total, i.available, i.reserved, i.sold,
             sum(CASE WHEN h.state = 'held' THEN h.quantity ELSE 0 END),
             sum(CASE WHEN h.state = 'confirmed' THEN h.quantity ELSE 0 END)
           FROM faultproof_escrow_item i LEFT JOIN faultproof_escrow_hold h ON h.item = i.item
           GROUP BY i.item, i.total, i.available, i.reserved, i.sold"""
    ):
        if available + reserved + sold != total or min(available, reserved, sold) < 0:
            wrong.append(f"{item}: {available} available, {reserved} held, {sold} sold of {total}")
        if (reserved, sold) != (held, confirmed):
            wrong.append(f"{item}: {reserved} held and {sold} sold by its numbers, {held} and {confirmed} by the holds")
    return wrong


def _states(evidence: Evidence) -> dict[str, str]:
    """Of each order, as its first line stands."""
    rows = evidence.fetch(
        "SELECT key, state FROM faultproof_escrow_hold WHERE key LIKE 'o-%' ORDER BY key DESC, line DESC"
    )
    return {key.partition("#")[0]: state for key, state in rows}


def wrong_holds(evidence: Evidence) -> list[str]:
    wrong = []
    states = _states(evidence)
    items: dict[str, dict[str, int]] = defaultdict(dict)
    for key, item, quantity, state in evidence.fetch(
        "SELECT key, item, quantity, state FROM faultproof_escrow_hold WHERE key LIKE 'o-%' ORDER BY key, line"
    ):
        order = key.partition("#")[0]
        if items[order].get(item):
            wrong.append(f"{order} has more than one hold of {item}")
        items[order][item] = quantity
        if states[order] != state:
            wrong.append(f"the lines of {order} do not stand together")
    return wrong + [
        f"{order} holds {held}, not {WANTED[order]}" for order, held in items.items() if held != WANTED[order]
    ]


def wrong_expiries(evidence: Evidence) -> list[str]:
    told = sorted(key.partition("#")[0] for (key,) in evidence.fetch("SELECT key FROM told"))
    expired = sorted(order for order, state in _states(evidence).items() if state == "expired")
    return [] if told == expired else [f"{expired} have expired, and it was told of {told}"]


def broken_words(evidence: Evidence) -> list[str]:
    """What a customer was told, and is not so."""
    wrong: list[str] = []
    states = _states(evidence)
    until: dict[str, object] = {}
    for kind, order, *facts in evidence.notes:
        if kind == "finished":
            continue
        if order not in states:
            wrong += [f"{order} was told {kind!r}, and there is no hold"] * (kind != "refused")
        elif kind in ("confirmed", "released", "expired") and states[order] != kind:
            wrong.append(f"{order} was told {kind!r}, and is {states[order]}")
        elif kind == "held" and until.setdefault(order, facts) != facts:
            wrong.append(f"{order} was told of two holds")
    return wrong


def happens(kind: str) -> Callable[[Evidence], bool]:
    return lambda evidence: bool(noted(evidence, kind))

"""The second half of the audit: orders against their sagas, the stock, and what the provider itself has written down.

Every accepted order is fulfilled or undone. Fulfilled: charged once, shipped once, and its items sold. Undone: what was
charged is refunded, what was to be shipped is cancelled, and its items are there again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from faultproof.shop.findings import Check, Findings
from faultproof.shop.fulfilment import Order
from faultproof.shop.ledger import Ledger


class Held(NamedTuple):
    """One line of a hold."""

    order: str
    item: str
    quantity: int
    state: str


class Stocked(NamedTuple):
    """An item of the stock."""

    item: str
    total: int
    available: int
    reserved: int
    sold: int


class Settlement(NamedTuple):
    """What was found."""

    fulfilled: int
    compensated: int
    answers: int
    """Calls that the provider carried out, or refused for good."""
    answers_lost: int
    """Those whose answer never arrived, or too late."""
    checks: list[Check]


class _Account(NamedTuple):
    """What the provider has of one order: its keys of charges and shipments, and what is left of each."""

    charges: dict[str, int]
    shipments: dict[str, int]


def settle(ledger: Ledger, provider: Path) -> Settlement:
    """Compare everything. Run it when nothing writes any more; it changes nothing."""
    with ledger.snapshot():
        orders = [str(id) for (id,) in ledger.execute("SELECT id FROM shop_order ORDER BY id")]
        sagas = {
            str(id): (str(state), msgspec.json.decode(input, type=Order))
            for id, state, input in ledger.execute(
                "SELECT id, state, input FROM faultproof_saga WHERE saga = 'fulfilment'"
            )
        }
        holds = [Held(*row) for row in ledger.execute(_HOLDS)]
        items = [Stocked(*row) for row in ledger.execute(_ITEMS)]
    accounts, fates = _provided(provider)
    states = Counter(state for state, _ in sagas.values())
    lost = fates["lost"] + fates["late"]
    return Settlement(
        states["completed"],
        states["compensated"],
        lost + fates["answered"] + fates["declined"] + fates["void"],
        lost,
        [
            *_ends(orders, sagas),
            _charges(sagas, accounts),
            _oversold(sagas, holds, items),
            _orphans(sagas, holds),
        ],
    )


_HOLDS = "SELECT key, item, quantity, state FROM faultproof_escrow_hold WHERE escrow = 'stock'"
_ITEMS = "SELECT item, total, available, reserved, sold FROM faultproof_escrow_item WHERE escrow = 'stock'"


def _provided(path: Path) -> tuple[dict[str, _Account], Counter[str]]:
    accounts: dict[str, _Account] = defaultdict(lambda: _Account({}, {}))
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT key, action, order_id, amount, of FROM done").fetchall()
        fates = Counter(fate for (fate,) in database.execute("SELECT fate FROM call"))
    for key, action, order, amount, _ in rows:
        if action in ("charge", "ship"):
            (accounts[order].charges if action == "charge" else accounts[order].shipments)[key] = amount
    for _, action, order, amount, of in rows:
        if action in ("refund", "cancel") and amount:
            done = accounts[order].charges if action == "refund" else accounts[order].shipments
            done[of] = done.get(of, 0) - amount
    return accounts, fates


def _ends(orders: Iterable[str], sagas: dict[str, tuple[str, Order]]) -> list[Check]:
    unfinished, attention = Findings(), Findings()
    for order in orders:
        unfinished.examined += 1
        attention.examined += 1
        state = sagas[order][0] if order in sagas else "never begun"
        if state == "attention":
            attention.add(f"order {order}: its saga waits for a person")
        elif state not in ("completed", "compensated"):
            unfinished.add(f"order {order}: its saga is {state}")
    return [
        unfinished.check("unfinished", "accepted orders are fulfilled or undone"),
        attention.check("needs_attention", "… and none waits for a person"),
    ]


def _charges(sagas: dict[str, tuple[str, Order]], accounts: dict[str, _Account]) -> Check:
    """The provider's own rows against what became of each order."""
    found = Findings(len(sagas))
    for order in sorted(accounts.keys() - sagas.keys()):
        found.add(f"order {order}: the provider knows it, and nobody here took it")
    for order, (state, wanted) in sagas.items():
        account = accounts.get(order, _Account({}, {}))
        charged, shipped = _left(account.charges), _left(account.shipments)
        if state == "completed" and (charged, shipped) != ([wanted.amount], [1]):
            found.add(
                f"order {order}: fulfilled, charged {charged or 'nothing'} for {wanted.amount}, shipments {shipped}"
            )
        elif state == "compensated" and (charged or shipped):
            found.add(f"order {order}: undone, and still charged {charged}, shipments {shipped}")
    return found.check("charge_mismatches", "the provider has charged and shipped what was fulfilled, once")


def _left(done: dict[str, int]) -> list[int]:
    return [amount for amount in done.values() if amount]


def _oversold(sagas: dict[str, tuple[str, Order]], holds: Iterable[Held], items: Iterable[Stocked]) -> Check:
    """The stock against what was delivered to it and what went out."""
    found = Findings()
    out, under_way, delivered = Counter[str](), Counter[str](), Counter[str]()
    for state, wanted in sagas.values():
        for line in wanted.lines:
            if state == "completed":
                out[line.item] += line.quantity
            elif state != "compensated":  # a run that gave up may have booked it, and not yet its saga's end
                under_way[line.item] += line.quantity
    for hold in holds:
        if hold.state == "restocked":
            delivered[hold.item] += hold.quantity
    for item in items:
        found.examined += 1
        if min(item[1:]) < 0 or item.available + item.reserved + item.sold != item.total:
            found.add(f"item {item.item!r}: {item.available} + {item.reserved} + {item.sold} is not {item.total}")
        elif item.total != delivered[item.item]:
            found.add(f"item {item.item!r}: {delivered[item.item]} were delivered, its total is {item.total}")
        elif not out[item.item] <= item.sold <= out[item.item] + under_way[item.item]:
            found.add(f"item {item.item!r}: {out[item.item]} went out, booked as sold are {item.sold}")
        elif out[item.item] > delivered[item.item]:
            found.add(f"item {item.item!r}: {out[item.item]} went out, and there were {delivered[item.item]}")
    return found.check("oversold", "available, reserved and sold add up, and nobody got what was not there")


def _orphans(sagas: dict[str, tuple[str, Order]], holds: Iterable[Held]) -> Check:
    """Holds against the orders that they were for."""
    found = Findings()
    for hold in holds:
        if hold.state == "restocked":
            continue
        found.examined += 1
        state = sagas[hold.order][0] if hold.order in sagas else "unknown"
        right = {"confirmed": "completed", "released": "compensated", "expired": "compensated"}.get(hold.state)
        if state != right and state not in ("attention", "running", "compensating"):
            found.add(f"order {hold.order} is {state}, and {hold.quantity} of {hold.item!r} are {hold.state} for it")
        elif hold.state == "held":
            found.add(f"order {hold.order}: {hold.quantity} of {hold.item!r} are still held for it")
    return found.check("orphan_holds", "no hold is left over")

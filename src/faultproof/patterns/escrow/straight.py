"""Reserving without looking: one round trip, for a batch of which nothing need be refused.

Reservations of one item commute, and the tables know what must never be (O'Neil's idea): the holds are written, what is asked
is taken, and where stock falls short, an item is missing or a key was used before, a constraint undoes it all. Then the
requests are decided one by one (`operations.py`). The item comes last, so that it is locked for hardly longer than its
commit takes: others write their holds meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.patterns.escrow import sql
from faultproof.patterns.escrow.requests import Hold, Request, Reserve
from faultproof.ports.script import Patience, Script, later

ITEMS_MAX = 4
"""Each is a statement of its own."""

Sums = dict[str, int]


def wanted(requests: Sequence[Request]) -> Sums | None:
    """How many of each item, in order of the items as everybody locks them; None for what has to be decided one by one."""
    sums: Sums = {}
    for request in requests:
        if type(request) is not Reserve:
            return None
        for item, quantity in request.lines:
            sums[item] = sums.get(item, 0) + quantity
    if len(sums) > ITEMS_MAX or len({request.key for request in requests}) < len(requests):
        return None
    return dict(sorted(sums.items()))


class Reserved(NamedTuple):
    """What the server said, complete once it has committed."""

    at_us: list[int]
    """When the holds were written; the same for each line."""
    waited_us: list[int]
    """How long for each item's lock."""

    @property
    def waited_s(self) -> float:
        """How long for all locks."""
        return sum(self.waited_us) / 1_000_000

    def holds(self, requests: Sequence[Reserve]) -> list[Hold]:
        """What their owners are told."""
        now = self.at_us[0]
        return [Hold(r.key, dict(r.lines), "held", now + r.ttl_us, r.ttl_us / 1_000_000) for r in requests]


def reserved(escrow: str, requests: Sequence[Reserve], sums: Sums, patience: float) -> Script[Reserved]:
    """Hold what is wanted.

    Ends in `ConstraintViolated` where something has to be refused or is there already, and in `Busy` where an item was
    locked for `patience` seconds.
    """
    done = Reserved([], [])
    rows = [
        sql.NewLine(request.key, number, item, quantity, request.ttl_us)
        for request in requests
        for number, (item, quantity) in enumerate(request.lines)
    ]
    yield Patience(patience)
    yield from later(sql.hold_all(escrow, list(sums), len(sums), rows), done.at_us.extend, refuses=False)
    for item, quantity in sums.items():
        yield from later(sql.take(escrow, item, quantity), done.waited_us.extend, refuses=False)
    return done

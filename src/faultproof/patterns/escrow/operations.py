"""The one script through which everything is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faultproof.patterns.escrow import sql
from faultproof.patterns.escrow.books import Books, Decision
from faultproof.patterns.escrow.requests import Hold, Request, Reserve, Restock
from faultproof.ports.script import Script, later

DUE_MAX = 1_000
"""Lines of the longest overdue holds among which a call looks for those that keep its items from it."""

OnExpired = Callable[[Hold], Script[None]]


def apply(
    escrow: str,
    requests: Sequence[Request],
    *,
    waits: bool,
    on_expired: OnExpired | None = None,
    locked: Callable[[], None] = lambda: None,
) -> Script[list[Decision]]:
    """Decide all requests on the items and holds that they concern, in two round trips at most.

    First lock, then read in a later statement, then decide, then write; all in the caller's transaction. `locked` is
    called when the locks are had.
    """
    items = list({item: None for r in requests if isinstance(r, (Reserve, Restock)) for item, _ in r.lines})
    keys = [request.key for request in requests]
    books = Books(waits=waits)
    lock = sql.lock if waits else sql.lock_or_skip
    yield from later(lock(escrow, items, keys, DUE_MAX), books.put_items)
    yield from later(sql.lines(escrow, items, keys, DUE_MAX), books.put_lines)
    books.now = yield from sql.clock()
    locked()
    decisions = books.decide(requests)
    yield from _written(escrow, books)
    if on_expired is not None:
        for hold in books.expired:
            yield from on_expired(hold)
    return decisions


def _written(escrow: str, books: Books) -> Script[None]:
    """The difference; a batch that decides nothing writes nothing."""
    if moves := books.moves(new=False):
        yield from sql.move(escrow, moves)
    if moves := books.moves(new=True):
        yield from sql.create(escrow, moves)
    if lines := books.new_lines():
        yield from sql.insert(escrow, lines)
    if changes := books.changes():
        yield from sql.change(escrow, changes)

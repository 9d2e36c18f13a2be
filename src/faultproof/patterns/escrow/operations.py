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
    """Decide all requests on the items and holds that they concern, in the caller's transaction: lock, read in a later
    statement, decide, write. Where the transaction is its own that is two round trips, however many requests.

    `waits`: for items that are locked elsewhere; without it what needs them is `Contended`. `locked` is called when the
    locks are had.
    """
    books = yield from opened(escrow, requests, waits=waits)
    locked()
    decisions = books.decide(requests)
    yield from written(escrow, books)
    if on_expired is not None:
        for hold in books.expired:
            yield from on_expired(hold)
    return decisions


def opened(escrow: str, requests: Sequence[Request], *, waits: bool) -> Script[Books]:
    """Items locked, holds read behind the locks, and the time."""
    named = [request for request in requests if isinstance(request, (Reserve, Restock))]
    items = list(dict.fromkeys(item for request in named for item, _ in request.lines))
    keys = [request.key for request in requests]
    # Those who name their items need none besides: under their key is the same hold, or none of theirs.
    called = keys if not named else [r.key for r in requests if not isinstance(r, (Reserve, Restock))]
    books = Books(waits=waits)
    lock = sql.lock if waits else sql.lock_or_skip
    yield from later(lock(escrow, items, called, DUE_MAX), books.put_items)
    yield from later(sql.lines(escrow, items, keys, DUE_MAX), books.put_lines)
    books.now = yield from sql.clock()
    return books


def written(escrow: str, books: Books) -> Script[None]:
    """The difference; a batch that decides nothing writes nothing."""
    yield from write_items(escrow, books)
    yield from write_holds(escrow, books)


def write_items(escrow: str, books: Books) -> Script[None]:
    """What has become of the items."""
    if moves := books.moves(escrow, new=False):
        yield from sql.move(moves)
    if moves := books.moves(escrow, new=True):
        yield from sql.create(moves)


def write_holds(escrow: str, books: Books) -> Script[None]:
    """What has become of the holds."""
    if lines := books.new_lines():
        yield from sql.insert(escrow, lines)
    if changes := books.changes(escrow):
        yield from sql.change(changes)

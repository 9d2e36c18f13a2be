"""The one script through which everything is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faultproof.patterns.escrow import sql
from faultproof.patterns.escrow.books import Books, Decision
from faultproof.patterns.escrow.requests import Hold, Request, Reserve, Restock
from faultproof.ports.script import Script, later

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
    statement, decide, write. Where the transaction is its own that is two round trips, however many requests, and a third
    when stock may fall short and holds that are due are keeping some.

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
    books, due = Books(waits=waits), list[str]()
    lock = sql.lock if waits else sql.lock_or_skip
    yield from later(lock(escrow, items, called), books.put_items)
    yield from later(sql.lines(escrow, keys), books.put_lines)
    for books.now, key in (yield from sql.instant(escrow, items)):
        if key is not None and key not in books.entries and key not in due:
            due.append(key)
    if due and books.may_fall_short(requests):  # or they can wait for the loop, and nobody waits for them
        # Without waiting: who waits with locks in his hand waits for others who do.
        yield from later(sql.lock_or_skip(escrow, [], due), books.put_items)
        books.put_lines((yield from sql.lines(escrow, due)))
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
        yield from sql.insert(escrow, books.now, lines)
    if changes := books.changes():
        yield from sql.change(escrow, books.now, [change.key for change in changes], changes)

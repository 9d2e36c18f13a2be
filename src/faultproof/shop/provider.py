"""Payment and shipping: somebody else's process, with a database of its own, slow and unreliable.

It is what a saga has to live with. It declines cards and refuses addresses, for good. It fails before it has done
anything, does the work and loses the answer, and sometimes does the work only after whoever asked has given up. What it
does promise is what good providers promise: the same `Idempotency-Key` is the same piece of work, and what was undone
before it came (`of` names its key) will not be done any more.

    python -m faultproof.shop.provider < Terms, one JSON line; ends when its input does
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sqlite3
import sys
from itertools import count
from typing import Literal, NamedTuple

import msgspec

from faultproof.shop.serving import Answer, Handle, Request, serving

Fate = Literal["answered", "failed", "lost", "late", "declined", "void"]
KEY_CHARS_MAX = 255

SCHEMA = """
CREATE TABLE IF NOT EXISTS done (
  key TEXT PRIMARY KEY, action TEXT NOT NULL, order_id TEXT NOT NULL, amount INTEGER NOT NULL, of TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS done_of ON done (of) WHERE of IS NOT NULL;
CREATE TABLE IF NOT EXISTS decided (
  action TEXT NOT NULL, order_id TEXT NOT NULL, refused INTEGER NOT NULL, PRIMARY KEY (action, order_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS call (n INTEGER PRIMARY KEY, key TEXT NOT NULL, action TEXT NOT NULL, fate TEXT NOT NULL);
"""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How bad it is. Parts of all calls, except for `declined` and `refused`: parts of all orders. Times in seconds.

    A tenth of all orders must be undone, and a twentieth of all answers lost, or a run shows too little. So both are more
    than that by themselves, whatever the stock does; and they are dealt out and not drawn: a run of three orders has one
    that is declined as surely as one of three thousand has its 240.
    """

    listener: int
    """An inherited socket that listens on loopback."""
    other: int | None = None
    """Another one: a second door to the same, which is ill for a while."""
    path: str
    """Of its database."""
    seed: int
    declined: float = 0.08
    """Cards that no attempt will charge."""
    refused: float = 0.06
    """Addresses that nothing can be shipped to."""
    failed: float = 0.05
    """Calls answered 503, with nothing done."""
    lost: float = 0.08
    """Calls whose work is done, and whose answer never arrives whole."""
    late: float = 0.01
    """Calls whose work is done after `late_s`, when whoever asked has given up and perhaps asked for the undo."""
    late_s: float = 1.5
    slow_s: float = 0.004
    """The usual time of a call is up to this."""
    ill_from: int = 20
    """The other door answers 503 from so many calls on …"""
    ill_calls: int = 30
    """… to so many."""
    slow_quotes: float = 0.1
    """Quotes that take `late_s`."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call. `of`: the key of what is to be undone; `carrier`: by whom it is shipped."""

    order: str
    amount: int = 0
    of: str | None = None
    carrier: str | None = None


class Done(NamedTuple):
    """Work that was done, as it is stored."""

    action: str
    order: str
    amount: int


ACTIONS = {
    "/payment/charge_card": "charge",
    "/payment/refund_card": "refund",
    "/shipping/create_shipment": "ship",
    "/shipping/cancel_shipment": "cancel",
}
QUOTES = {"/carriers/air/quote": 900, "/carriers/barge/quote": 300, "/carriers/coach/quote": 500}
"""By path: what one unit costs; but the barge is slow to answer now and then."""
UNDOES = {"refund": "charge", "cancel": "ship"}


class Share:
    """So many of all, evenly, and the second among them; at the end it has been as many as the part says."""

    def __init__(self, part: float, *, begun: float | None = None) -> None:
        """`begun`: how much of the first one is there already, from 0 to 1."""
        self._part = part
        self._sum = max(0.0, 1 - 1.5 * part) if begun is None else begun

    def comes(self) -> bool:
        """Whether this is one of them."""
        self._sum += self._part
        if not self._part or self._sum < 1:
            return False
        self._sum -= 1
        return True


class Provider:
    """Does the work, and decides what becomes of each call."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._rng = random.Random(f"provider-{terms.seed}")  # noqa: S311  # to be repeated, not to be secret
        self._failed = Share(terms.failed)
        self._late = Share(terms.late, begun=0.5)  # it takes long: not in every small run
        self._lost = Share(terms.lost)
        self._slow = Share(terms.slow_quotes)
        self._refused = {"charge": Share(terms.declined), "ship": Share(terms.refused)}
        self._database = sqlite3.connect(terms.path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(SCHEMA)

    async def call(self, action: str, key: str, asked: Asked) -> tuple[Fate, dict[str, str | int]]:
        """Carry a call out; its fate, and what the answer says."""
        await asyncio.sleep(self._rng.random() * self._terms.slow_s)
        if self._failed.comes():
            self._note("failed", key, action)
            return "failed", {"error": "out of order: try again"}
        is_late = self._late.comes()
        if is_late:
            await asyncio.sleep(self._terms.late_s)
        self._database.execute("BEGIN IMMEDIATE")
        try:
            said = self._work(action, key, asked)
            fate = self._fate(said, is_late=is_late)
            self._note(fate, key, action)
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        if isinstance(said, str):
            return fate, {"error": said}
        return fate, {"reference": f"{action}-{key}", "amount": said.amount}

    async def quote(self, path: str, asked: Asked) -> dict[str, str | int]:
        """What a carrier wants. It writes nothing down."""
        is_slow = path == "/carriers/barge/quote" and self._slow.comes()
        await asyncio.sleep(self._terms.late_s if is_slow else self._rng.random() * self._terms.slow_s)
        return {"price": QUOTES[path] * max(1, asked.amount)}

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _fate(self, said: Done | str, *, is_late: bool) -> Fate:
        if isinstance(said, str):
            return "declined" if said != "void" else "void"
        if is_late:
            return "late"
        return "lost" if self._lost.comes() else "answered"

    def _work(self, action: str, key: str, asked: Asked) -> Done | str:
        """Do it once for each key: what was done, or why it never will be."""
        done = self._found(key) or self._decided(action, key, asked)
        if isinstance(done, Done) and (done.action, done.order) != (action, asked.order):
            return "this key was used for something else"
        return done

    def _decided(self, action: str, key: str, asked: Asked) -> Done | str:
        if action in UNDOES:
            undone = self._found(asked.of or "")
            done = Done(action, asked.order, 0 if undone is None else undone.amount)
        elif self._database.execute("SELECT 1 FROM done WHERE of = ?", (key,)).fetchone():
            return "void"
        elif self._refuses(action, asked.order):
            return "the card was declined" if action == "charge" else "nothing can be shipped there"
        else:
            done = Done(action, asked.order, asked.amount if action == "charge" else 1)
        self._database.execute("INSERT INTO done VALUES (?, ?, ?, ?, ?)", (key, *done, asked.of))
        return done

    def _found(self, key: str) -> Done | None:
        row = self._database.execute("SELECT action, order_id, amount FROM done WHERE key = ?", (key,)).fetchone()
        return None if row is None else Done(*row)

    def _refuses(self, action: str, order: str) -> bool:
        """Once for each order, whatever the key."""
        row = self._database.execute(
            "SELECT refused FROM decided WHERE action = ? AND order_id = ?", (action, order)
        ).fetchone()
        if row is not None:
            return bool(row[0])
        refused = self._refused[action].comes()
        self._database.execute("INSERT INTO decided VALUES (?, ?, ?)", (action, order, refused))
        return refused

    def _note(self, fate: Fate, key: str, action: str) -> None:
        self._database.execute("INSERT INTO call (key, action, fate) VALUES (?, ?, ?)", (key, action, fate))


_STATUS: dict[Fate, int] = {"answered": 200, "late": 200, "lost": 200, "failed": 503, "declined": 402, "void": 409}


def answering(provider: Provider) -> Handle:
    """What the provider says to requests."""

    async def handle(request: Request) -> Answer:
        action = ACTIONS.get(request.path)
        if action is None and request.path not in QUOTES:
            return _answer(404, {"error": f"there is {', '.join([*ACTIONS, *QUOTES])}"})
        key = request.headers.get("idempotency-key", "")
        if action is not None and not 1 <= len(key) <= KEY_CHARS_MAX:
            return _answer(400, {"error": "send an Idempotency-Key"})
        try:
            asked = msgspec.json.decode(request.body, type=Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _answer(400, {"error": str(error)})
        if action is None:
            return _answer(200, await provider.quote(request.path, asked))
        fate, content = await provider.call(action, key, asked)
        return _answer(_STATUS[fate], content, lost=fate == "lost")

    return handle


def ailing(handle: Handle, terms: Terms) -> Handle:
    """The same, but for some calls in a row."""
    calls = count()

    async def handled(request: Request) -> Answer:
        if 0 <= next(calls) - terms.ill_from < terms.ill_calls:
            return _answer(503, {"error": "this door is closed for a moment: try again"})
        return await handle(request)

    return handled


def _answer(status: int, content: dict[str, str | int], *, lost: bool = False) -> Answer:
    return Answer(status, msgspec.json.encode(content), lost)


async def serve(terms: Terms) -> None:
    """Until SIGTERM, or until whoever started it is gone."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), _ended)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    provider = Provider(terms)
    handle = answering(provider)
    servers = [await serving(socket.socket(fileno=terms.listener), handle)]
    if terms.other is not None:
        servers.append(await serving(socket.socket(fileno=terms.other), ailing(handle, terms)))
    await ended.wait()  # unbounded: that is what it is for
    for server in servers:
        server.close()
    provider.close()


def _ended() -> None:
    if not os.read(sys.stdin.fileno(), 1_024):
        os._exit(0)


def main() -> None:
    """Read the terms from the first line of the input, and serve."""
    line = bytearray()
    while not line.endswith(b"\n"):  # byte by byte: what is read ahead would be invisible to the event loop
        read = os.read(sys.stdin.fileno(), 1)
        if not read:
            return
        line += read
    asyncio.run(serve(msgspec.json.decode(line, type=Terms)))


if __name__ == "__main__":
    main()

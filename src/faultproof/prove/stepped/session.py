"""One session of a case: a coroutine that is driven by hand from statement to statement, and its connection.

There is no event loop. A session waits for nothing but its turns, so whoever drives it decides when each of its
statements is sent; the Python between two of them runs at once.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready, Wait

from faultproof.prove.harness import HarnessError
from faultproof.prove.stepped.wire import Turn, Wire

T = TypeVar("T")

_HURRY = {True: b"SET deadlock_timeout = '1ms'", False: b"SET deadlock_timeout TO DEFAULT"}


class Session:
    """Between two statements (`turn` is the next), with one under way (`is_flying`), or at its end (`is_over`)."""

    def __init__(self, name: str, letter: str, wire: Wire, main: Coroutine[Turn, Any, Any]) -> None:
        self.name = name
        self.letter = letter
        self.wire = wire
        self.turn: Turn | None = None
        self.error: Exception | None = None
        """What it died of."""
        self.result: Any = None
        self.steps = 0
        self.is_flying = False
        self._main = main
        self._context = copy_context()  # as a task has one: who is inside a transaction is known by it
        self._wants = Wait.R
        self._hurries: bool | None = None  # in this transaction; None: as the connection
        self._go_on(lambda: main.send(None))

    @property
    def is_over(self) -> bool:
        """It has come to its end, or died."""
        return self.turn is None

    @property
    def pid(self) -> int:
        """Of the server's process."""
        return self.wire.pgconn.backend_pid

    @property
    def is_inside(self) -> bool:
        """In the middle of a transaction."""
        return self.wire.pgconn.transaction_status != TransactionStatus.IDLE

    def send(self) -> None:
        """Let the statement through that it waits with. Its answer is taken by `listen`."""
        assert self.turn is not None
        assert not self.is_flying
        self.steps += not self.turn.is_silent
        self.is_flying = True
        self._resume(lambda work: next(work))

    def heard(self, event: int) -> None:
        """Its socket has something for it, or takes something again."""
        readable = Ready.R if event & ~select.POLLOUT else Ready.NONE
        writable = Ready.W if event & select.POLLOUT else Ready.NONE
        self._resume(lambda work: work.send(readable | writable))

    @property
    def waits_for(self) -> int:
        """What to ask `poll` for."""
        return (select.POLLIN if self._wants & Wait.R else 0) | (select.POLLOUT if self._wants & Wait.W else 0)

    def hurry(self, closes: bool, *, seconds: float) -> None:
        """Have the server look for deadlocks at once if the next statement has to wait, or else (`closes` is False) as it
        usually does. What is said inside a transaction ends with it."""
        status = self.wire.pgconn.transaction_status
        if status == TransactionStatus.IDLE:
            self._hurries, known = None, self.wire.hurries
        else:
            known = self.wire.hurries if self._hurries is None else self._hurries
        if known == closes or status == TransactionStatus.INERROR:
            return
        at_once(self.wire.exchange([(_HURRY[closes], ())], prepare=False), self.wire, seconds=seconds)
        if status == TransactionStatus.IDLE:
            self.wire.hurries = closes
        else:
            self._hurries = closes

    def close(self) -> None:
        """Abandon it where it is."""
        self._main.close()

    def _resume(self, move: Callable[[Any], Any]) -> None:
        """Go on with sending and receiving, and with its Python once the answer is complete."""
        assert self.turn is not None
        try:
            self._wants = move(self.turn.work)
            return
        except StopIteration as stop:
            answer = stop.value
        except psycopg.Error as refused:
            self.is_flying = False
            self._hurries = None
            self.wire.note_refusal(refused)
            error = refused
            self._go_on(lambda: self._main.throw(error))
            return
        self.is_flying = False
        self._go_on(lambda: self._main.send(answer))

    def _go_on(self, move: Callable[[], Any]) -> None:
        self.turn = None
        try:
            turn = self._context.run(move)
        except StopIteration as stop:
            self.result = stop.value
        except HarnessError:
            raise
        except Exception as error:
            self.error = error
        else:
            if not isinstance(turn, Turn):
                raise HarnessError(f"session {self.name} waits for {turn!r}: in the stepped world only for statements")
            self.turn = turn


def at_once(main: Coroutine[Turn, Any, T], wire: Wire, *, seconds: float) -> T:
    """The result of a coroutine that has the database to itself. Raises what it raises."""
    session = Session("alone", "", wire, main)
    while not session.is_over:
        session.send()
        while session.is_flying:
            listen([session], seconds)
    if session.error is not None:
        raise session.error
    result: T = session.result
    return result


def listen(sessions: list[Session], seconds: float) -> bool:
    """Take what has come for any of these, waiting at most so long for it; whether anything had."""
    poller = select.poll()
    of = {}
    for session in sessions:
        of[session.wire.fileno()] = session
        poller.register(session.wire.fileno(), session.waits_for)
    events = poller.poll(seconds * 1_000)
    for descriptor, event in events:
        of[descriptor].heard(event)
    return bool(events)

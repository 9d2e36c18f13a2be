"""Calling the user's code on one event: within its time, and with a verdict on whose fault a failure is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from faultproof.errors import InvalidInput, LeaseLost, OutcomeUnknown, Repair, TryAgain
from faultproof.patterns.outbox.events import Event, EventTypes
from faultproof.ports.database import Transaction
from faultproof.ports.log import Record
from faultproof.primitives.apart import Escaped, apart
from faultproof.primitives.callables import check_arity, check_async

Handler = Callable[[Event[Any], Transaction], Awaitable[None]]
Sink = Callable[[Event[Any]], Awaitable[None]]


class Stopped(Exception):
    """A delivery went as far as `record`, and not past it."""

    def __init__(self, record: Record) -> None:
        super().__init__(record.id)
        self.record = record

    @property
    def why(self) -> BaseException:
        """What the handler raised."""
        return self.__cause__ or self


class Poisoned(Stopped):
    """The handler failed on `record`, and that counts against the event."""


class Handed(NamedTuple):
    """How far a delivery came, and what stopped it there."""

    done: list[Record]
    stopped: Exception | None


class Handling:
    """A handler, which works in a transaction, or a sink, which works outside of one."""

    def __init__(self, types: EventTypes, *, timeout: float, handler: Handler | None, sink: Sink | None) -> None:
        if not callable(handler if sink is None else sink):
            raise InvalidInput(f"a consumer needs a function to call, got {handler if sink is None else sink!r}")
        check_arity(handler, 2, "a handler takes (event, tx)")
        check_arity(sink, 1, "a sink takes (event)")
        check_async(handler if sink is None else sink, "a handler or sink")
        self._types = types
        self._timeout = timeout
        self._handler = handler
        self._sink = sink

    @property
    def is_relay(self) -> bool:
        """Events go to a sink."""
        return self._sink is not None

    async def handle(self, record: Record, tx: Transaction | None, *, epoch: str, attempt: int = 1) -> None:
        """Handle one event. Raises `Poisoned` if it is to blame, and what the handler raised if it is not.

        Not to blame: the database's own trouble, and `TryAgain`, the handler's word for "later, it is not the event".
        """
        try:
            event = self._types.decode(record, epoch=epoch, attempt=attempt)
            await self._call(event, tx)
        except (TryAgain, OutcomeUnknown, Repair):
            raise
        except LeaseLost:  # the guard's answer may come with the handler's first statement
            raise
        except Escaped as escaped:  # nobody cancelled us: that was the handler's own doing, or of what it awaited
            raise Poisoned(record) from escaped.__cause__
        except Exception as error:
            raise Poisoned(record) from error

    async def _call(self, event: Event[Any], tx: Transaction | None) -> None:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                if tx is not None and self._handler is not None:
                    await apart(_called(self._handler, event, tx))
                elif self._sink is not None:
                    await apart(_called(self._sink, event))
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"the handler took longer than {self._timeout} s") from error


async def _called(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    await function(*arguments)  # called in here: a process may be cancelled, or die, before this begins

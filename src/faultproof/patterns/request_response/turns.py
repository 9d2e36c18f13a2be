"""A request's turn in its session, decided in the transactions of its idempotency key."""

from __future__ import annotations

from faultproof.errors import InProgress, LeaseLost, Superseded
from faultproof.patterns.request_response import sql
from faultproof.ports.script import Script


class EarlierInProgress(InProgress):
    """An earlier request of this session is still being worked on."""


class Turn:
    """A request's place among those of its session, or of none.

    The last request that was taken is remembered. An earlier one that comes later is refused for ever, a later one until this
    one's lease has ended; it itself may come again until it is answered, also when its answer has been forgotten. Its answer is
    stored only while no later one has been taken. (`primitives.idempotency.Along`)
    """

    def __init__(self, scope: str, session: str | None, number: int) -> None:
        self._scope = scope
        self._session = session
        self._number = number
        self.token = 0
        """Of the key, since it was taken."""

    def taken(self, token: int, ttl_us: int) -> Script[None]:
        self.token = token
        if self._session is None:
            return
        if (yield from sql.take(self._scope, self._session, self._number, ttl_us)) is None:
            raise self._refused((yield from sql.last(self._scope, self._session)))

    def answered(self) -> Script[None]:
        if self._session is None:
            return
        if (yield from sql.answered(self._scope, self._session, self._number)) != 1:
            raise LeaseLost(
                f"a later request of this session than number {self._number} was taken meanwhile: its answer is not stored"
            )

    def freed(self) -> Script[None]:
        if self._session is not None:
            yield from sql.give_back(self._scope, self._session, self._number)

    def _refused(self, last: sql.Last | None) -> InProgress | Superseded:
        if last is None:  # it was trimmed between two statements
            return EarlierInProgress("this session was forgotten just now: ask again", retry_after=0.0)
        if last.number > self._number or (last.number == self._number and last.is_answered):
            return Superseded(
                f"number {last.number} of this session was taken before: number {self._number} never will be any more"
            )
        return EarlierInProgress(
            f"request number {last.number} of this session is still running: ask again later",
            retry_after=max(0.0, last.left_us / 1_000_000),
        )

"""`Keyed`: what a handler has in its hands of the request's key: its answer, stored together with its effects."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import overload

from faultproof.errors import InvalidInput, PayloadTooLarge
from faultproof.patterns.request_response.asgi import Kept, Scope, plain
from faultproof.patterns.request_response.headers import Asked
from faultproof.patterns.request_response.turns import Turn
from faultproof.ports.database import SyncTx, Tx
from faultproof.ports.script import Inline, Script
from faultproof.primitives.idempotency import Idempotency

_PLACE = "faultproof.idempotency"


class Keyed:
    """A request with its idempotency key, as its handler sees it: `Keyed.of(request.scope)`.

    ::

        async with db.transaction() as tx:
            total = …                                  # the effect
            await keyed.answer(201, body, tx=tx)       # and the answer: both are committed, or neither
        return Response(body, 201)                     # what was stored is what is sent
    """

    def __init__(self, address: Asked | None, keys: Idempotency[Kept], stored_as: str, turn: Turn, most: int) -> None:
        self._address = address
        self._keys = keys
        self._stored_as = stored_as
        self._turn = turn
        self._most = most

    @staticmethod
    def of(scope: Scope) -> Keyed:
        """Of this request. Raises `InvalidInput` where no `Idempotent` is around the application."""
        found = scope.get(_PLACE)
        if not isinstance(found, Keyed):
            raise InvalidInput("there is no `Idempotent` around this application: `app = fp.Idempotent(app, db)`")
        return found

    def lay(self, scope: Scope) -> Scope:
        """The scope with this in it, for the application."""
        return {**scope, _PLACE: self}

    @property
    def key(self) -> str | None:
        """What the client sent; None: it sent none, or asks with a method that changes nothing."""
        return None if self._address is None else self._address.key

    @property
    def session(self) -> str | None:
        """Whose request it is, if it belongs to a session."""
        return None if self._address is None else self._address.session

    @property
    def number(self) -> int:
        """Of the request in its session, from 1; 0 without one."""
        return 0 if self._address is None else self._address.number

    @overload
    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        tx: SyncTx,
    ) -> None: ...
    @overload
    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        tx: Tx,
    ) -> Awaitable[None]: ...
    @overload
    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        tx: Inline,
    ) -> Script[None]: ...
    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        tx: Tx | SyncTx | Inline,
    ) -> Awaitable[None] | Script[None] | None:
        """Store the answer in the transaction of the effects: all of it commits, or nothing. Without a key it does nothing.

        It is what this client and every later one with this key is told, once the transaction has committed, whatever the
        application sends or raises then. Raises `LeaseLost` where another server has taken over, or the session has gone on:
        let that end the transaction. With a handle of the user's that is synchronous, it is done when this returns.
        """
        kept = Kept(status, plain({"content-type": content_type, **(headers or {})}), body)
        if not 200 <= status < 500:
            raise InvalidInput(f"an answer that counts has a status from 200 to 499, not {status}")
        if len(body) > self._most:
            raise PayloadTooLarge(
                f"an answer has {len(body):,} bytes, and at most {self._most:,} are stored: store a reference to it",
                size_bytes=len(body),
                limit_bytes=self._most,
            )
        return tx.run(self._storing(kept))

    def _storing(self, kept: Kept) -> Script[None]:
        if self._address is not None:
            yield from self._keys.answering(self._stored_as, self._turn.token, kept, self._turn)

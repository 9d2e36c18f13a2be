"""The escrow: what users make, and reserve with."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar, overload

from faultproof import bounds
from faultproof.errors import Busy, UnknownHold, UnknownItem
from faultproof.patterns.escrow import requests, sql
from faultproof.patterns.escrow.audit import StockAudit, audit
from faultproof.patterns.escrow.books import Contended, Decision
from faultproof.patterns.escrow.expiry import Expiry
from faultproof.patterns.escrow.lanes import Lanes
from faultproof.patterns.escrow.operations import OnExpired, apply
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.requests import Confirm, Extend, Hold, Release, Request, StockItem
from faultproof.ports.database import Database, SyncTx, Tx
from faultproof.ports.script import Inline, Script
from faultproof.primitives.group_commit import Err
from faultproof.primitives.install import FirstUse
from faultproof.primitives.transactions import check_tx

T = TypeVar("T")


class Escrow:
    """Sells what there is, and no more: holds for a time, that are confirmed, released, or expire.

    Promise: after every commit `available + reserved + sold == total` for each item and none is below zero; a hold is of
    all its items or of none; "expired" and "stock returned" are one commit, once; of a confirm and an expiry one wins; the
    same key is the same hold. Bound: a call waits at most `lock_timeout` for items that others have locked.
    Source: specification, Escrow; O'Neil, "The Escrow Transactional Method" (TODS 1986), for the name and the idea that
    what is promised is set apart. Proof: `faultproof.patterns.escrow.proof:ESCROW`.
    """

    def __init__(
        self,
        database: Database,
        *,
        name: str = "stock",
        options: EscrowOptions | None = None,
        on_expired: OnExpired | None = None,
    ) -> None:
        """`name`: items and keys are this escrow's own; 1 to 100 letters, digits, `-`, `_`, `.`. `on_expired`: a script made
        for each hold that expires, run in the transaction that returns its stock, in whichever call or loop that is.

        Raises `InvalidInput` for a name that cannot be used.
        """
        bounds.name("an escrow", name)
        self.name = name
        self._database = database
        self._options = options or EscrowOptions()
        self._on_expired = on_expired
        self._first_use = FirstUse(sql.SCHEMA)
        self._is_closed = False
        self._lanes = Lanes(database, name, self._options, on_expired)

    async def install(self) -> None:
        """Create the tables; idempotent, and safe in many processes at once."""
        await self._database.install(sql.SCHEMA)

    # -- changing -------------------------------------------------------------------------------------------------------

    @overload
    def restock(self, item: str, quantity: int, *, key: str, tx: SyncTx) -> StockItem: ...
    @overload
    def restock(self, item: str, quantity: int, *, key: str, tx: Inline) -> Script[StockItem]: ...
    @overload
    def restock(self, item: str, quantity: int, *, key: str, tx: Tx | None = None) -> Awaitable[StockItem]: ...
    def restock(
        self, item: str, quantity: int, *, key: str, tx: Tx | SyncTx | Inline | None = None
    ) -> Awaitable[StockItem] | Script[StockItem] | StockItem:
        """Add `quantity` to an item, which is made if it is not there; how it stands then.

        `key`: of the delivery; the same again adds nothing. Raises `KeyReused` for a key that was used otherwise,
        `InvalidInput` for more than the item may have, and else as `reserve`.
        """
        return self._do(StockItem, requests.restock(item, quantity, key), tx)

    @overload
    def reserve(self, items: Mapping[str, int], *, key: str, ttl: float | None = None, tx: SyncTx) -> Hold: ...
    @overload
    def reserve(self, items: Mapping[str, int], *, key: str, ttl: float | None = None, tx: Inline) -> Script[Hold]: ...
    @overload
    def reserve(
        self, items: Mapping[str, int], *, key: str, ttl: float | None = None, tx: Tx | None = None
    ) -> Awaitable[Hold]: ...
    def reserve(
        self,
        items: Mapping[str, int],
        *,
        key: str,
        ttl: float | None = None,
        tx: Tx | SyncTx | Inline | None = None,
    ) -> Awaitable[Hold] | Script[Hold] | Hold:
        """Hold so many of each item for `ttl` seconds (by the engine's clock, from when it is written), or nothing.

        With `tx` it commits or vanishes with that transaction: await the result of an async one; a joined synchronous handle
        gives the hold directly; inside a script of your own, `yield from` it with `Inline()`. The items stay locked until
        that transaction ends, so do it late there. Without `tx` it is committed before the call returns, in one transaction
        with what other callers ask at the same time.

        `key`: of the request, 1 to 255 bytes; the same key with the same items and `ttl` is the same hold, while it is held
        or once it is confirmed. Raises `InsufficientStock`, `UnknownItem`, `KeyReused`, `HoldEnded` or `HoldExpired` (of
        the hold that this key had), `InvalidInput`; `Busy` when an item was locked for `lock_timeout` seconds (with `tx`: for
        as long as its connection waits for locks); and without `tx` `Overloaded` (with `retry_after`) when too many wait,
        `DeadlineExceeded`, `TransactionOpen` inside an open transaction: nothing happened in all of these.
        `OutcomeUnknown`: ask again with the same key.
        """
        return self._do(Hold, requests.reserve(items, key, ttl, self._options), tx)

    @overload
    def confirm(self, key: str, *, tx: SyncTx) -> Hold: ...
    @overload
    def confirm(self, key: str, *, tx: Inline) -> Script[Hold]: ...
    @overload
    def confirm(self, key: str, *, tx: Tx | None = None) -> Awaitable[Hold]: ...
    def confirm(self, key: str, *, tx: Tx | SyncTx | Inline | None = None) -> Awaitable[Hold] | Script[Hold] | Hold:
        """What is held is sold. Again: the same answer. Raises `HoldExpired` once its time is up, `HoldEnded` if it was
        released, `UnknownHold`, and else as `reserve`."""
        return self._do(Hold, Confirm(requests.text(key, "a key")), tx)

    @overload
    def release(self, key: str, *, tx: SyncTx) -> Hold: ...
    @overload
    def release(self, key: str, *, tx: Inline) -> Script[Hold]: ...
    @overload
    def release(self, key: str, *, tx: Tx | None = None) -> Awaitable[Hold]: ...
    def release(self, key: str, *, tx: Tx | SyncTx | Inline | None = None) -> Awaitable[Hold] | Script[Hold] | Hold:
        """What is held is available again. Again: the same answer. Raises `HoldExpired` once its time is up (it is available
        then as well), `HoldEnded` if it was confirmed, `UnknownHold`, and else as `reserve`."""
        return self._do(Hold, Release(requests.text(key, "a key")), tx)

    @overload
    def extend(self, key: str, *, ttl: float | None = None, tx: SyncTx) -> Hold: ...
    @overload
    def extend(self, key: str, *, ttl: float | None = None, tx: Inline) -> Script[Hold]: ...
    @overload
    def extend(self, key: str, *, ttl: float | None = None, tx: Tx | None = None) -> Awaitable[Hold]: ...
    def extend(
        self, key: str, *, ttl: float | None = None, tx: Tx | SyncTx | Inline | None = None
    ) -> Awaitable[Hold] | Script[Hold] | Hold:
        """Hold it for at least `ttl` seconds from now; never shorter than before. Raises like `confirm`, and `HoldEnded` for
        one that was confirmed."""
        return self._do(Hold, Extend(requests.text(key, "a key"), requests.microseconds(ttl, self._options)), tx)

    # -- reading --------------------------------------------------------------------------------------------------------

    async def hold(self, key: str) -> Hold:
        """How it stands: "expired" from the moment its time is up. Raises `UnknownHold`."""
        rows = await self._database.read(sql.hold(self.name, requests.text(key, "a key")), snapshot=False)
        if not rows:
            raise UnknownHold(f"there is no hold {key!r} here, or it was over for so long that it has been forgotten")
        _, _, state, until_us, now_us = rows[0]
        left_us = max(0, until_us - now_us) if state == "held" else 0
        state = "expired" if state == "held" and not left_us else state
        return Hold(key, {row.item: row.quantity for row in rows}, state, until_us, left_us / 1_000_000)  # type: ignore[arg-type]

    async def item(self, item: str) -> StockItem:
        """How it stands. Raises `UnknownItem`."""
        row = await self._database.read(sql.item(self.name, requests.text(item, "an item")), snapshot=False)
        if row is None:
            raise UnknownItem(f"there is no item {item!r}: `restock` it first")
        return StockItem(*row)

    async def items(self, *, after: str = "", limit: int = 1_000) -> list[StockItem]:
        """How the items stand, in the database's order of their names, at most `limit` behind `after`."""
        bounds.count("limit", limit)
        if after != "":
            requests.text(after, "an item")
        rows = await self._database.read(sql.items(self.name, after, limit), snapshot=False)
        return [StockItem(*row) for row in rows]

    async def audit(self) -> StockAudit:
        """Add everything up from the rows, on one snapshot. It reads all holds that are kept."""
        return await self._database.read(audit(self.name))

    # -- running --------------------------------------------------------------------------------------------------------

    def expiry(self, *, every: float = 1.0, keep: float = 86_400.0, batch: int = 100) -> Expiry:
        """The loop that returns expired holds' stock; for a `Worker`, in any number of processes.

        `every`: seconds that a hold may be overdue. `keep`: seconds for which the keys of holds that are over, and of
        deliveries, are remembered; a repetition later than that is taken for new. `batch`: lines in one transaction.
        """
        return Expiry(self._database, self.name, self._options, self._on_expired, every=every, keep=keep, batch=batch)

    async def close(self) -> None:
        """Commit what was accepted, and refuse new calls outside transactions."""
        self._is_closed = True
        await self._lanes.close()

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _do(self, answer: type[T], request: Request, tx: Tx | SyncTx | Inline | None) -> Awaitable[T] | Script[T] | T:
        if tx is None:
            return self._lanes.submit(request) if self._first_use.is_over else self._first(request)
        check_tx(tx, self._database)
        return tx.run(self._inside(request))

    async def _first(self, request: Request) -> Any:
        if not self._is_closed:  # or the lanes say so
            await self._database.read(self._first_use.check(), snapshot=False)
        return await self._lanes.submit(request)

    def _inside(self, request: Request) -> Script[Any]:
        yield from self._first_use.check()
        decisions: list[Decision] = yield from apply(self.name, [request], waits=True, on_expired=self._on_expired)
        (decision,) = decisions
        if isinstance(decision, Err):
            raise decision.error
        if isinstance(decision.value, Contended):
            raise Busy(f"the hold {request.key!r} is being made by another call: try again")
        return decision.value

"""Leased work: who may act, proved by a fencing token.

A claim row is *free* (due and unowned), *held* (an owner until `until_us`, by the engine's clock) or *dead* (given
up). Whoever takes a row gets a token higher than every token of that id before, also where the row was finished and
added again meanwhile. Every later call presents it, so a holder that was paused, partitioned or declared dead (a
zombie) cannot change anything once somebody else has taken over. Any peer recovers what expired: `take` is the whole
recovery procedure. Proof: `faultproof.prove.kernel.claim:CLAIM`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from faultproof.ports.schema import Schema
from faultproof.ports.script import Script


class Claim(NamedTuple):
    """Proof that this holder was the last to take the row."""

    id: str
    token: int
    attempts: int
    """How often the row was taken since it was last given back in good order (`release`), this time included: above 1,
    whoever had it before failed or died."""


class Holder(NamedTuple):
    """A row as an operator sees it."""

    id: str
    state: str
    owner: str | None
    token: int
    attempts: int
    until_us: int
    """Held: when the lease ends. Free: when it is due."""
    error: str | None


class ClaimTable(Protocol):
    """Each method is a script, so that it joins the transaction of the work it protects."""

    @property
    def schema(self) -> Schema:
        """The tables behind it."""
        ...

    def add(self, kind: str, ids: Sequence[str], *, delay_us: int = 0) -> Script[int]:
        """Create rows that do not exist yet, due after `delay_us`; how many were new."""
        ...

    def hold(
        self, kind: str, owner: str, ids: Sequence[str], *, ttl_us: int, held: Callable[[list[Claim]], None]
    ) -> Script[None]:
        """Create rows that do not exist yet, taken by `owner` from the first. `held` is given the claims of those that were
        new: with the answer to the transaction's next statement, or to its commit."""
        ...

    def take(self, kind: str, owner: str, *, ttl_us: int, limit: int) -> Script[list[Claim]]:
        """Take up to `limit` rows that are due, or whose lease has expired, oldest first."""
        ...

    def guard(self, kind: str, claims: Sequence[Claim]) -> Script[None]:
        """Raise `LeaseLost` unless every claim is still the latest; until the commit nobody can take them over.

        Once it has raised, a transaction of ours can only be rolled back. An engine may send it with the transaction's next
        statement, and raise there, or at the commit.
        """
        ...

    def renew(self, kind: str, claims: Sequence[Claim], *, ttl_us: int) -> Script[list[Claim]]:
        """Extend the leases; the claims that are still the latest."""
        ...

    def finish(self, kind: str, claims: Sequence[Claim]) -> Script[None]:
        """The work is done: remove the rows. Raises `LeaseLost` like `guard`, with all that it says there."""
        ...

    def fail(self, kind: str, claim: Claim, *, error: str, retry_in_us: int | None) -> Script[None]:
        """Make the row due again after `retry_in_us`, or dead if that is None. Raises `LeaseLost` like `guard`."""
        ...

    def release(self, kind: str, claims: Sequence[Claim], *, delay_us: int = 0) -> Script[None]:
        """Give the rows back in good order, due after `delay_us`; those already taken over by others are left alone."""
        ...

    def hasten(self, kind: str, ids: Sequence[str]) -> Script[list[str]]:
        """Make free rows due at once; the ids of those there are, held ones included, which are left as they are.

        Until the commit nobody takes, renews or finishes any of them.
        """
        ...

    def remove(self, kind: str) -> Script[None]:
        """Remove all rows of a kind, held or not; for work that is given up altogether."""
        ...

    def holders(self, kind: str) -> Script[list[Holder]]:
        """All rows of a kind, for operators and for sharing work out."""
        ...

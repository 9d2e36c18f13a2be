"""Claims on SQLite. One writer at a time makes each script atomic against all others; nothing else is needed.

States: a row is dead if `dead`, held if `owner` is set and `until_us` lies ahead, and free otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from faultproof.engines.refusals import all_held, lease_lost
from faultproof.ports.claims import Claim, Holder
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, later, sql
from faultproof.ports.statement import Changed

SCHEMA = Schema(
    name="claims",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_claim (
                 kind TEXT NOT NULL, id TEXT NOT NULL, owner TEXT, token BIGINT NOT NULL DEFAULT 0,
                 attempts BIGINT NOT NULL DEFAULT 0, until_us BIGINT NOT NULL, dead BIGINT NOT NULL DEFAULT 0,
                 error TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID""",
            "CREATE INDEX IF NOT EXISTS faultproof_claim_due ON faultproof_claim (kind, until_us) WHERE dead = 0",
            # The highest token of each kind's finished rows: an id that is used again goes on above it.
            """CREATE TABLE IF NOT EXISTS faultproof_claim_floor (
                 kind TEXT NOT NULL PRIMARY KEY, token BIGINT NOT NULL) WITHOUT ROWID""",
        ]
    ],
    works_from=1,
    works_to=1,
)


class Held(NamedTuple):
    """What identifies a claim in a statement."""

    id: str
    token: int


@sql(
    """INSERT INTO faultproof_claim (kind, id, until_us, token)
       SELECT :kind, value, {now} + :delay_us,
              coalesce((SELECT token FROM faultproof_claim_floor WHERE kind = :kind), 0)
       FROM {ids} WHERE true
       ON CONFLICT (kind, id) DO NOTHING"""
)
def _add(kind: str, ids: Sequence[str], delay_us: int) -> Changed: ...


@sql(
    """INSERT INTO faultproof_claim (kind, id, owner, token, attempts, until_us)
       SELECT :kind, value, :owner, coalesce((SELECT token FROM faultproof_claim_floor WHERE kind = :kind), 0) + 1, 1,
              {now} + :ttl_us
       FROM {ids} WHERE true
       ON CONFLICT (kind, id) DO NOTHING RETURNING id, token, attempts"""
)
def _hold(kind: str, owner: str, ids: Sequence[str], ttl_us: int) -> list[Claim]: ...


@sql(
    """UPDATE faultproof_claim SET owner = :owner, token = token + 1, attempts = attempts + 1,
         until_us = {now} + :ttl_us
       WHERE kind = :kind AND id IN (SELECT id FROM faultproof_claim
         WHERE kind = :kind AND dead = 0 AND until_us <= {now} ORDER BY until_us, id LIMIT :limit)
       RETURNING id, token, attempts"""
)
def _take(kind: str, owner: str, ttl_us: int, limit: int) -> list[Claim]: ...


# Not a join: SQLite would look at all claims of the kind for each of these.
@sql(
    """SELECT count(*) FROM faultproof_claim
       WHERE kind = :kind AND owner IS NOT NULL AND (id, token) IN (SELECT id, token FROM {held})"""
)
def _count_held(kind: str, held: Sequence[Held]) -> int: ...


@sql(
    """UPDATE faultproof_claim SET until_us = {now} + :ttl_us
       WHERE kind = :kind AND owner IS NOT NULL AND (id, token) IN (SELECT id, token FROM {held})
       RETURNING id, token, attempts"""
)
def _renew(kind: str, held: Sequence[Held], ttl_us: int) -> list[Claim]: ...


@sql(
    """DELETE FROM faultproof_claim
       WHERE kind = :kind AND owner IS NOT NULL AND (id, token) IN (SELECT id, token FROM {held})"""
)
def _finish(kind: str, held: Sequence[Held]) -> Changed: ...


@sql(
    """INSERT INTO faultproof_claim_floor (kind, token) VALUES (:kind, :token)
       ON CONFLICT (kind) DO UPDATE SET token = max(token, excluded.token)"""
)
def _raise_floor(kind: str, token: int) -> None: ...


@sql(
    """INSERT INTO faultproof_claim_floor (kind, token)
       SELECT :kind, max(token) FROM faultproof_claim WHERE kind = :kind HAVING count(*) > 0
       ON CONFLICT (kind) DO UPDATE SET token = max(token, excluded.token)"""
)
def _raise_floor_above_all(kind: str) -> None: ...


@sql(
    """UPDATE faultproof_claim SET owner = NULL, until_us = {now} + :delay_us, dead = :dead, error = :error
       WHERE kind = :kind AND id = :id AND token = :token AND owner IS NOT NULL"""
)
def _fail(kind: str, id: str, token: int, delay_us: int, dead: int, error: str) -> Changed: ...


@sql(
    """UPDATE faultproof_claim SET owner = NULL, attempts = 0, until_us = {now} + :delay_us
       WHERE kind = :kind AND owner IS NOT NULL AND (id, token) IN (SELECT id, token FROM {held})"""
)
def _release(kind: str, held: Sequence[Held], delay_us: int) -> Changed: ...


@sql(
    """UPDATE faultproof_claim SET until_us = CASE WHEN owner IS NULL THEN min(until_us, {now}) ELSE until_us END
       WHERE kind = :kind AND dead = 0 AND id IN {ids} RETURNING id"""
)
def _hasten(kind: str, ids: Sequence[str]) -> list[str]: ...


@sql(
    """SELECT id,
              CASE WHEN dead = 1 THEN 'dead' WHEN owner IS NOT NULL AND until_us > {now} THEN 'held' ELSE 'free' END,
              owner, token, attempts, until_us, error
       FROM faultproof_claim WHERE kind = :kind ORDER BY id"""
)
def _holders(kind: str) -> list[Holder]: ...


@sql("DELETE FROM faultproof_claim WHERE kind = :kind")
def _remove(kind: str) -> Changed: ...


class SqliteClaims:
    """`ClaimTable` on SQLite."""

    schema = SCHEMA

    def add(self, kind: str, ids: Sequence[str], *, delay_us: int = 0) -> Script[int]:
        return (yield from _add(kind, ids, delay_us))

    def hold(
        self, kind: str, owner: str, ids: Sequence[str], *, ttl_us: int, held: Callable[[list[Claim]], None]
    ) -> Script[None]:
        yield from later(_hold(kind, owner, ids, ttl_us), held, refuses=False)

    def take(self, kind: str, owner: str, *, ttl_us: int, limit: int) -> Script[list[Claim]]:
        return sorted((yield from _take(kind, owner, ttl_us, limit)))

    def guard(self, kind: str, claims: Sequence[Claim]) -> Script[None]:
        yield from later(_count_held(kind, _held(claims)), all_held(kind, claims))

    def renew(self, kind: str, claims: Sequence[Claim], *, ttl_us: int) -> Script[list[Claim]]:
        return sorted((yield from _renew(kind, _held(claims), ttl_us)))

    def finish(self, kind: str, claims: Sequence[Claim]) -> Script[None]:
        yield from later(_finish(kind, _held(claims)), all_held(kind, claims))
        if claims:
            yield from _raise_floor(kind, max(claim.token for claim in claims))

    def fail(self, kind: str, claim: Claim, *, error: str, retry_in_us: int | None) -> Script[None]:
        dead = int(retry_in_us is None)
        if (yield from _fail(kind, claim.id, claim.token, retry_in_us or 0, dead, error)) != 1:
            raise lease_lost(kind)

    def release(self, kind: str, claims: Sequence[Claim], *, delay_us: int = 0) -> Script[None]:
        yield from _release(kind, _held(claims), delay_us)

    def hasten(self, kind: str, ids: Sequence[str]) -> Script[list[str]]:
        return sorted((yield from _hasten(kind, ids)))

    def remove(self, kind: str) -> Script[None]:
        yield from _raise_floor_above_all(kind)
        yield from _remove(kind)

    def holders(self, kind: str) -> Script[list[Holder]]:
        return (yield from _holders(kind))


def _held(claims: Sequence[Claim]) -> list[Held]:
    return [Held(claim.id, claim.token) for claim in claims]

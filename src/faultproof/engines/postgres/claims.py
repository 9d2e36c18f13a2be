"""Claims on PostgreSQL. Whoever takes skips rows that are locked; whoever holds locks its rows, always in order of id.

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
            # Tokens come from one sequence, so that an id which is finished and used again goes on above its old ones.
            "CREATE SEQUENCE IF NOT EXISTS faultproof_claim_token CACHE 1",
            """CREATE TABLE IF NOT EXISTS faultproof_claim (
                 kind TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, owner TEXT,
                 token BIGINT NOT NULL DEFAULT 0, attempts BIGINT NOT NULL DEFAULT 0, until_us BIGINT NOT NULL,
                 dead BIGINT NOT NULL DEFAULT 0, error TEXT, PRIMARY KEY (kind, id)) {updated}""",
            "CREATE INDEX IF NOT EXISTS faultproof_claim_due ON faultproof_claim (kind, until_us) WHERE dead = 0",
        ]
    ],
    works_from=1,
    works_to=1,
)


class Held(NamedTuple):
    """What identifies a claim in a statement."""

    id: str
    token: int


# In order, or two that add the same rows in different orders would deadlock.
@sql(
    """INSERT INTO faultproof_claim (kind, id, until_us)
       SELECT :kind, value, {now} + :delay_us FROM {ids} ORDER BY value
       ON CONFLICT (kind, id) DO NOTHING"""
)
def _add(kind: str, ids: Sequence[str], delay_us: int) -> Changed: ...


# In order, like `_add`.
@sql(
    """INSERT INTO faultproof_claim (kind, id, owner, token, attempts, until_us)
       SELECT :kind, value, :owner, nextval('faultproof_claim_token'), 1, {now} + :ttl_us FROM {ids} ORDER BY value
       ON CONFLICT (kind, id) DO NOTHING RETURNING id, token, attempts"""
)
def _hold(kind: str, owner: str, ids: Sequence[str], ttl_us: int) -> list[Claim]: ...


@sql(
    """WITH due AS (
         SELECT id FROM faultproof_claim WHERE kind = :kind AND dead = 0 AND until_us <= {now}
         ORDER BY until_us, id LIMIT :limit FOR UPDATE SKIP LOCKED)
       UPDATE faultproof_claim AS c SET owner = :owner, token = nextval('faultproof_claim_token'),
         attempts = c.attempts + 1, until_us = {now} + :ttl_us
       FROM due WHERE c.kind = :kind AND c.id = due.id
       RETURNING c.id, c.token, c.attempts"""
)
def _take(kind: str, owner: str, ttl_us: int, limit: int) -> list[Claim]: ...


# Held claims are looked up one by one (a subselect that locks is not made part of a join), in order of id. A join would have
# the planner read all claims of the kind, of which it knows nothing where they come and go. A row that somebody else is
# taking makes this wait; the condition is then looked at again, on the row as it became.
@sql(
    """SELECT ours.id FROM {held} CROSS JOIN LATERAL (
         SELECT c.id FROM faultproof_claim AS c
         WHERE c.kind = :kind AND c.id = held.id AND c.token = held.token AND c.owner IS NOT NULL FOR UPDATE) AS ours"""
)
def _lock(kind: str, held: Sequence[Held]) -> list[str]: ...


# The same for a guard that travels with its commit: it divides by zero unless all are there.
@sql(
    """SELECT 1 / CASE WHEN count(*) = :count THEN 1 ELSE 0 END FROM {held} CROSS JOIN LATERAL (
         SELECT c.id FROM faultproof_claim AS c
         WHERE c.kind = :kind AND c.id = held.id AND c.token = held.token AND c.owner IS NOT NULL FOR UPDATE) AS ours"""
)
def _lock_all(kind: str, held: Sequence[Held], count: int) -> int: ...


@sql(
    """WITH ours AS (SELECT ours.id FROM {held} CROSS JOIN LATERAL (
         SELECT c.id FROM faultproof_claim AS c
         WHERE c.kind = :kind AND c.id = held.id AND c.token = held.token AND c.owner IS NOT NULL FOR UPDATE) AS ours)
       UPDATE faultproof_claim AS c SET until_us = {now} + :ttl_us
       WHERE c.kind = :kind AND c.id = ANY (ARRAY(SELECT ours.id FROM ours)) RETURNING c.id, c.token, c.attempts"""
)
def _renew(kind: str, held: Sequence[Held], ttl_us: int) -> list[Claim]: ...


@sql(
    """WITH ours AS (SELECT ours.id FROM {held} CROSS JOIN LATERAL (
         SELECT c.id FROM faultproof_claim AS c
         WHERE c.kind = :kind AND c.id = held.id AND c.token = held.token AND c.owner IS NOT NULL FOR UPDATE) AS ours)
       DELETE FROM faultproof_claim AS c WHERE c.kind = :kind AND c.id = ANY (ARRAY(SELECT ours.id FROM ours))"""
)
def _finish(kind: str, held: Sequence[Held]) -> Changed: ...


@sql(
    """WITH ours AS (SELECT ours.id FROM {held} CROSS JOIN LATERAL (
         SELECT c.id FROM faultproof_claim AS c
         WHERE c.kind = :kind AND c.id = held.id AND c.token = held.token AND c.owner IS NOT NULL FOR UPDATE) AS ours),
       gone AS (DELETE FROM faultproof_claim AS c WHERE c.kind = :kind AND c.id = ANY (ARRAY(SELECT ours.id FROM ours))
         RETURNING 1)
       SELECT 1 / CASE WHEN count(*) = :count THEN 1 ELSE 0 END FROM gone"""
)
def _finish_all(kind: str, held: Sequence[Held], count: int) -> int: ...


@sql(
    """UPDATE faultproof_claim SET owner = NULL, until_us = {now} + :delay_us, dead = :dead, error = :error
       WHERE kind = :kind AND id = :id AND token = :token AND owner IS NOT NULL"""
)
def _fail(kind: str, id: str, token: int, delay_us: int, dead: int, error: str) -> Changed: ...


@sql(
    """UPDATE faultproof_claim SET owner = NULL, attempts = 0, until_us = {now} + :delay_us
       WHERE kind = :kind AND id IN {ids}"""
)
def _release(kind: str, ids: Sequence[str], delay_us: int) -> None: ...


# The condition stands in the value and not in WHERE: a row that its holder is about to give back must be waited for, and
# judged as it became.
@sql(
    """WITH there AS (
         SELECT c.id FROM faultproof_claim AS c WHERE c.kind = :kind AND c.dead = 0 AND c.id IN {ids}
         ORDER BY c.id FOR UPDATE OF c)
       UPDATE faultproof_claim AS c
       SET until_us = CASE WHEN c.owner IS NULL THEN least(c.until_us, {now}) ELSE c.until_us END
       FROM there WHERE c.kind = :kind AND c.id = there.id RETURNING c.id"""
)
def _hasten(kind: str, ids: Sequence[str]) -> list[str]: ...


@sql("DELETE FROM faultproof_claim WHERE kind = :kind")
def _remove(kind: str) -> Changed: ...


@sql(
    """SELECT id,
              CASE WHEN dead = 1 THEN 'dead' WHEN owner IS NOT NULL AND until_us > {now} THEN 'held' ELSE 'free' END,
              owner, token, attempts, until_us, error
       FROM faultproof_claim WHERE kind = :kind ORDER BY id"""
)
def _holders(kind: str) -> list[Holder]: ...


class PostgresClaims:
    """`ClaimTable` on PostgreSQL."""

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
        check, held = all_held(kind, claims), _held(claims)
        yield from later(_lock(kind, held), lambda ids: check(len(ids)), strict=_lock_all(kind, held, len(held)))

    def renew(self, kind: str, claims: Sequence[Claim], *, ttl_us: int) -> Script[list[Claim]]:
        return sorted((yield from _renew(kind, _held(claims), ttl_us)))

    def finish(self, kind: str, claims: Sequence[Claim]) -> Script[None]:
        held = _held(claims)
        yield from later(_finish(kind, held), all_held(kind, claims), strict=_finish_all(kind, held, len(held)))

    def fail(self, kind: str, claim: Claim, *, error: str, retry_in_us: int | None) -> Script[None]:
        dead = int(retry_in_us is None)
        if (yield from _fail(kind, claim.id, claim.token, retry_in_us or 0, dead, error)) != 1:
            raise lease_lost(kind)

    def release(self, kind: str, claims: Sequence[Claim], *, delay_us: int = 0) -> Script[None]:
        ids = yield from _lock(kind, _held(claims))
        yield from _release(kind, ids, delay_us)

    def hasten(self, kind: str, ids: Sequence[str]) -> Script[list[str]]:
        return sorted((yield from _hasten(kind, ids)))

    def remove(self, kind: str) -> Script[None]:
        yield from _remove(kind)

    def holders(self, kind: str) -> Script[list[Holder]]:
        return (yield from _holders(kind))


def _held(claims: Sequence[Claim]) -> list[Held]:
    return sorted(Held(claim.id, claim.token) for claim in claims)

"""The claim's planted bugs: what a worker looks like that somebody simplified."""

from __future__ import annotations

from faultproof.ports.claims import Claim
from faultproof.ports.script import Script, sql
from faultproof.prove.kernel import claim_history as history
from faultproof.prove.kernel.claim_workload import KIND, TTL_US, JobWorker


@sql("UPDATE faultproof_claim SET token = :token WHERE kind = :kind AND id = :id")
def _renumber(kind: str, id: str, token: int) -> None: ...


@sql(
    "UPDATE faultproof_claim SET until_us = {now} WHERE kind = :kind AND owner IS NOT NULL AND owner <> :owner AND attempts < 4"
)
def _ends_leases(kind: str, owner: str) -> None: ...


@sql(
    "UPDATE faultproof_claim SET until_us = {now} + :ttl_us WHERE kind = :kind AND owner IS NOT NULL AND owner <> :owner"
)
def _keeps_leases(kind: str, owner: str, ttl_us: int) -> None: ...


class _NoGuard(JobWorker):
    def _guarded_effect(self, claim: Claim) -> Script[None]:
        yield from history.write(claim.id, "worked on", claim.token, 0, 0, 0)


class _GuardApart(JobWorker):
    async def effect(self, claim: Claim) -> None:
        await self.database.transact(lambda: self.claims.guard(KIND, [claim]))
        await self.database.transact(lambda: history.write(claim.id, "worked on", claim.token, 0, 0, 0))


class _AsHolder(JobWorker):
    """Who calls presents no token of its own: whatever it does is done as the row's holder."""

    def holding(self, claim: Claim) -> Script[list[Claim]]:
        holders = yield from self.claims.holders(KIND)
        return [claim._replace(token=row.token) for row in holders if row.id == claim.id and row.state == "held"]


class _FinishedById(_AsHolder):
    def finish(self, claim: Claim) -> Script[None]:
        yield from self.claims.finish(KIND, (yield from self.holding(claim)))
        yield from history.write(claim.id, "finished", claim.token, 0, 0, 0)


class _FailedById(_AsHolder):
    def fail(self, claim: Claim) -> Script[str]:
        is_last = claim.attempts > 1
        for holding in (yield from self.holding(claim)):
            yield from self.claims.fail(KIND, holding, error="it always fails", retry_in_us=None if is_last else 50_000)
        ended = "dead" if is_last else "failed"
        yield from history.write(claim.id, ended, claim.token, 0, 0, 0)
        return ended


class _ReleasedById(_AsHolder):
    def release(self, claim: Claim) -> Script[bool]:
        yield from self.claims.release(KIND, (yield from self.holding(claim)))
        return bool((yield from history.write_if_latest(claim.id, "released", claim.token)))


class _RenewedById(_AsHolder):
    def renew(self, claim: Claim) -> Script[bool]:
        yield from self.claims.renew(KIND, (yield from self.holding(claim)), ttl_us=TTL_US)
        yield from self._write_lease("renewed", claim)
        return True


class _AttemptsAsToken(JobWorker):
    def take(self) -> Script[Claim | None]:
        claims = yield from self.claims.take(KIND, self.owner, ttl_us=TTL_US, limit=1)
        for claim in claims:
            yield from _renumber(KIND, claim.id, claim.attempts)
            claim = claim._replace(token=claim.attempts)
            yield from self._write_lease("taken", claim)
            return claim
        return None


class _TakesWhatIsHeld(JobWorker):
    def take(self) -> Script[Claim | None]:
        yield from _ends_leases(KIND, self.owner)
        return (yield from super().take())


class _RecoversOnlyItsOwn(JobWorker):
    def take(self) -> Script[Claim | None]:
        yield from _keeps_leases(KIND, self.owner, TTL_US)
        return (yield from super().take())


class _AcknowledgesEarly(JobWorker):
    async def work(self, claim: Claim) -> None:
        if claim.id != "again":
            await super().work(claim)
            return
        await self.database.transact(lambda: self.claims.finish(KIND, [claim]))
        await self.database.transact(lambda: history.write(claim.id, "finished", claim.token, 0, 0, 0))


class _FailsAsReleased(JobWorker):
    def fail(self, claim: Claim) -> Script[str]:
        if claim.attempts > 1 or (yield from history.count(claim.id, "failed")):
            return (yield from super().fail(claim))
        # Once is enough: it would go on for ever.
        yield from self.claims.release(KIND, [claim])
        yield from history.write_if_latest(claim.id, "failed", claim.token)
        return "failed"


PLANTED: dict[str, type[JobWorker]] = {
    "no guard": _NoGuard,
    "guard apart": _GuardApart,
    "finished by id": _FinishedById,
    "failed by id": _FailedById,
    "released by id": _ReleasedById,
    "renewed by id": _RenewedById,
    "attempts as token": _AttemptsAsToken,
    "takes what is held": _TakesWhatIsHeld,
    "recovers only its own": _RecoversOnlyItsOwn,
    "acknowledges early": _AcknowledgesEarly,
    "fails as released": _FailsAsReleased,
}

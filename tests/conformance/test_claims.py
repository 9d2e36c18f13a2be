"""Leased work: one holder at a time, taken over when it expires, and zombies can change nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from faultproof.errors import LeaseLost
from faultproof.ports.claims import Claim, ClaimTable, Holder
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from tests.conformance.engines import WAIT_S, Engine

pytestmark = pytest.mark.anyio


class ChangedMind(Exception):
    """What a user's code raises in the middle of a transaction."""


MINUTE_US = 60_000_000
KIND = "job"


async def add(db: Database, *ids: str, delay_us: int = 0) -> int:
    return await db.transact(db.claims.add(KIND, ids, delay_us=delay_us))


async def take(db: Database, owner: str = "me", *, ttl_us: int = MINUTE_US, limit: int = 10) -> list[Claim]:
    return await db.transact(db.claims.take(KIND, owner, ttl_us=ttl_us, limit=limit))


async def holders(db: Database) -> list[Holder]:
    return await db.read(db.claims.holders(KIND))


async def state(db: Database, id: str = "a") -> str:
    (found,) = [holder.state for holder in await holders(db) if holder.id == id]
    return found


async def guard(db: Database, *claims: Claim) -> None:
    await db.transact(db.claims.guard(KIND, claims))


async def taken_over(engine: Engine, db: Database, peer: Database) -> Claim:
    """A claim on "a" that has run out, and that the peer has taken since."""
    await add(db, "a")
    (zombie,) = await take(db, ttl_us=1)
    engine.elapse(1)
    await take(peer, "peer")
    return zombie


async def hold(db: Database, *ids: str, ttl_us: int = MINUTE_US, owner: str = "me") -> list[Claim]:
    claims: list[Claim] = []
    await db.transact(lambda: db.claims.hold(KIND, owner, ids, ttl_us=ttl_us, held=claims.extend))
    return sorted(claims)


# --- adding -----------------------------------------------------------------------------------------------------------


async def test_added_rows_are_free_and_were_never_taken(db: Database) -> None:
    assert await add(db, "b", "a") == 2
    assert [(h.id, h.state, h.owner, h.attempts, h.error) for h in await holders(db)] == [
        ("a", "free", None, 0, None),
        ("b", "free", None, 0, None),
    ]


async def test_adding_again_adds_only_what_is_new_and_disturbs_nobody(db: Database) -> None:
    await add(db, "a")
    (claim,) = await take(db)
    assert await add(db, "a", "b", "b") == 1
    await guard(db, claim)
    assert await state(db) == "held"


async def test_rows_that_are_held_from_the_first_are_taken_by_nobody_until_their_lease_ends(
    engine: Engine, db: Database, peer: Database
) -> None:
    claims = await hold(db, "a", "b")
    assert [(claim.id, claim.attempts) for claim in claims] == [("a", 1), ("b", 1)]
    assert [(h.state, h.owner) for h in await holders(db)] == [("held", "me")] * 2
    assert await take(peer, "peer") == []
    await guard(db, *claims)
    engine.elapse(MINUTE_US)
    taken = await take(peer, "peer")
    assert [(claim.id, claim.attempts) for claim in taken] == [("a", 2), ("b", 2)]
    with pytest.raises(LeaseLost):
        await db.transact(db.claims.finish(KIND, claims))
    await peer.transact(peer.claims.finish(KIND, taken))


async def test_rows_that_are_there_are_not_held_again(db: Database, peer: Database) -> None:
    await add(db, "free")
    (held,) = await hold(peer, "held", owner="peer")
    assert [claim.id for claim in await hold(db, "free", "held", "new", "new")] == ["new"]
    assert [(h.id, h.state, h.owner) for h in await holders(db)] == [
        ("free", "free", None),
        ("held", "held", "peer"),
        ("new", "held", "me"),
    ]
    await guard(peer, held)


async def test_row_that_is_held_under_an_id_of_finished_work_has_a_higher_token(db: Database) -> None:
    (before,) = await hold(db, "a")
    await db.transact(db.claims.finish(KIND, [before]))
    (after,) = await hold(db, "a")
    assert after.token > before.token
    with pytest.raises(LeaseLost):
        await guard(db, before)


async def test_delayed_row_is_taken_when_due_and_not_before(engine: Engine, db: Database) -> None:
    await add(db, "later", delay_us=2 * MINUTE_US)
    await add(db, "soon", delay_us=MINUTE_US)
    engine.elapse(MINUTE_US)
    assert [claim.id for claim in await take(db)] == ["soon"]


# --- taking -----------------------------------------------------------------------------------------------------------


async def test_oldest_due_row_is_taken_first_and_no_more_than_the_limit(engine: Engine, db: Database) -> None:
    for id in ("c", "a", "b"):
        await add(db, id)
        engine.elapse(1)
    assert [claim.id for claim in await take(db, limit=2)] == ["a", "c"]
    assert [claim.id for claim in await take(db, limit=2)] == ["b"]
    assert await take(db, limit=2) == []


async def test_held_row_is_not_taken_not_even_by_its_owner(db: Database, peer: Database) -> None:
    await add(db, "a")
    (claim,) = await take(db)
    assert await take(peer, "peer") == []
    assert await take(db) == []
    assert [(h.state, h.owner, h.token) for h in await holders(db)] == [("held", "me", claim.token)]


async def test_kinds_do_not_see_each_other(db: Database) -> None:
    await add(db, "a")
    assert await db.transact(db.claims.take("other", "me", ttl_us=MINUTE_US, limit=10)) == []
    assert await db.transact(db.claims.add("other", ["a"])) == 1
    (claim,) = await take(db)
    with pytest.raises(LeaseLost):
        await db.transact(db.claims.finish("other", [claim]))
    await guard(db, claim)


async def test_expired_claim_is_taken_over_by_any_peer_with_a_higher_token(
    engine: Engine, db: Database, peer: Database
) -> None:
    await add(db, "a")
    (first,) = await take(db, ttl_us=1_000)
    engine.elapse(1_000)
    assert await state(db) == "free"
    (second,) = await take(peer, "peer")
    assert second.token > first.token
    assert (first.attempts, second.attempts) == (1, 2)
    assert [(h.state, h.owner) for h in await holders(db)] == [("held", "peer")]


async def test_two_takers_at_once_never_get_the_same_claim(db: Database, peer: Database) -> None:
    ids = [f"{n:03}" for n in range(120)]
    await add(db, *ids)

    async def take_all(taker: Database) -> list[str]:
        taken: list[str] = []
        while claims := await take(taker, limit=2):
            taken += [claim.id for claim in claims]
        return taken

    async with asyncio.timeout(WAIT_S):
        shares = await asyncio.gather(*(take_all(taker) for taker in (db, peer, db, peer)))
    # A taker may find nothing while the others have the last rows locked; nothing is ever taken twice.
    assert Counter(id for share in shares for id in share) == Counter(ids)


# --- zombies ----------------------------------------------------------------------------------------------------------

TERMINAL: dict[str, Callable[[ClaimTable, Claim], Script[Any]]] = {
    "guard": lambda claims, claim: claims.guard(KIND, [claim]),
    "finish": lambda claims, claim: claims.finish(KIND, [claim]),
    "fail for a while": lambda claims, claim: claims.fail(KIND, claim, error="x", retry_in_us=0),
    "fail for good": lambda claims, claim: claims.fail(KIND, claim, error="x", retry_in_us=None),
}


@pytest.mark.parametrize("call", TERMINAL)
async def test_zombie_is_told_that_its_lease_is_lost_and_changes_nothing(
    engine: Engine, db: Database, peer: Database, call: str
) -> None:
    await add(db, "a")
    (zombie,) = await take(db, ttl_us=1)
    engine.elapse(1)
    await take(peer, "peer")
    before = await holders(db)
    with pytest.raises(LeaseLost):
        await db.transact(TERMINAL[call](db.claims, zombie))
    assert await holders(db) == before


async def test_zombie_renews_nothing_and_gives_nothing_back(engine: Engine, db: Database, peer: Database) -> None:
    await add(db, "a")
    (zombie,) = await take(db, ttl_us=1)
    engine.elapse(1)
    await take(peer, "peer")
    before = await holders(db)
    assert await db.transact(db.claims.renew(KIND, [zombie], ttl_us=MINUTE_US)) == []
    await db.transact(db.claims.release(KIND, [zombie]))
    assert await holders(db) == before


async def test_zombie_of_finished_work_cannot_touch_what_is_added_under_the_same_id(
    engine: Engine, db: Database, peer: Database
) -> None:
    await add(db, "a")
    (zombie,) = await take(db, ttl_us=1)
    engine.elapse(1)
    (claim,) = await take(peer, "peer")
    await peer.transact(peer.claims.finish(KIND, [claim]))
    await add(db, "a")
    (again,) = await take(peer, "peer")
    assert again.token > claim.token
    with pytest.raises(LeaseLost):
        await guard(db, zombie)


@pytest.mark.parametrize("call", TERMINAL)
@pytest.mark.parametrize("given_back", ["release", "fail for a while", "fail for good"])
async def test_claim_that_was_given_back_proves_nothing(db: Database, given_back: str, call: str) -> None:
    await add(db, "a")
    (claim,) = await take(db)
    if given_back == "release":
        await db.transact(db.claims.release(KIND, [claim]))
    else:
        await db.transact(TERMINAL[given_back](db.claims, claim))
    before = await holders(db)
    with pytest.raises(LeaseLost):
        await db.transact(TERMINAL[call](db.claims, claim))
    assert await db.transact(db.claims.renew(KIND, [claim], ttl_us=MINUTE_US)) == []
    assert await holders(db) == before


async def test_one_lost_claim_among_several_undoes_the_work_on_all(
    engine: Engine, db: Database, peer: Database
) -> None:
    await add(db, "a", "b")
    claims = await take(db, ttl_us=1)
    engine.elapse(1)
    await take(peer, "peer", limit=1)
    before = await holders(db)
    with pytest.raises(LeaseLost):
        await db.transact(db.claims.finish(KIND, claims))
    with pytest.raises(LeaseLost):
        await guard(db, *claims)
    assert await holders(db) == before


async def test_expired_claim_that_nobody_took_still_proves_the_work(engine: Engine, db: Database) -> None:
    await add(db, "a")
    (claim,) = await take(db, ttl_us=1)
    engine.elapse(1)
    await guard(db, claim)
    assert [c.id for c in await db.transact(db.claims.renew(KIND, [claim], ttl_us=MINUTE_US))] == ["a"]
    await db.transact(db.claims.finish(KIND, [claim]))
    assert await holders(db) == []


async def test_guarded_claim_cannot_be_taken_over_before_the_commit(
    engine: Engine, db: Database, peer: Database
) -> None:
    await add(db, "a")
    (claim,) = await take(db, ttl_us=1)
    engine.elapse(1)
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            await tx.run(db.claims.guard(KIND, [claim]))
            assert len(await tx.run(db.claims.holders(KIND))) == 1  # a guard may travel with the statement behind it
            rival = asyncio.create_task(take(peer, "peer"))
            if engine.name != "sqlite":  # whose one writer lets it wait
                assert await rival == []
            await tx.run(db.claims.finish(KIND, [claim]))
        assert await rival == []


async def test_guard_that_lost_lets_nothing_behind_it_be_committed_whoever_catches_it(
    engine: Engine, db: Database, peer: Database
) -> None:
    zombie = await taken_over(engine, db, peer)
    before = await holders(db)

    async def work() -> None:
        async with db.transaction() as tx:
            with suppress(LeaseLost):
                await tx.run(db.claims.guard(KIND, [zombie]))
                await tx.run(db.claims.add(KIND, ["effect of a zombie"]))
            for _ in range(2):  # somebody who catches whatever there is, and goes on
                with suppress(LeaseLost):
                    await tx.run(db.claims.add(KIND, ["another"]))

    with pytest.raises(LeaseLost):
        await work()
    assert await holders(db) == before
    await guard(db, *await take(db))  # nothing is left of it


async def test_guard_is_answered_before_the_commit_though_nothing_comes_behind_it(
    engine: Engine, db: Database, peer: Database
) -> None:
    zombie = await taken_over(engine, db, peer)

    async def work() -> None:
        async with db.transaction() as tx:
            assert await tx.run(db.claims.add(KIND, ["effect of a zombie"])) == 1
            await tx.run(db.claims.guard(KIND, [zombie]))

    with pytest.raises(LeaseLost):
        await work()
    assert [holder.id for holder in await holders(db)] == ["a"]


async def test_guard_that_waited_for_a_takeover_knows_that_it_lost(
    engine: Engine, db: Database, peer: Database
) -> None:
    await add(db, "a")
    (claim,) = await take(db, ttl_us=1)
    engine.elapse(1)
    async with asyncio.timeout(WAIT_S):
        async with peer.transaction() as tx:
            assert len(await tx.run(peer.claims.take(KIND, "peer", ttl_us=MINUTE_US, limit=1))) == 1
            zombie = asyncio.create_task(guard(db, claim))
            await engine.until_somebody_waits()
        with pytest.raises(LeaseLost):
            await zombie


async def test_takeover_that_was_rolled_back_did_not_happen(engine: Engine, db: Database, peer: Database) -> None:
    await add(db, "a")
    (claim,) = await take(db, ttl_us=1)
    engine.elapse(1)

    async def take_and_fail() -> None:
        async with peer.transaction() as tx:
            await tx.run(peer.claims.take(KIND, "peer", ttl_us=MINUTE_US, limit=1))
            raise ChangedMind

    with pytest.raises(ChangedMind):
        await take_and_fail()
    await guard(db, claim)


# --- the ends of work -------------------------------------------------------------------------------------------------


async def test_finished_work_is_gone(db: Database) -> None:
    await add(db, "a", "b")
    claims = await take(db)
    await db.transact(db.claims.finish(KIND, claims[:1]))
    assert [h.id for h in await holders(db)] == ["b"]


async def test_failed_work_comes_back_after_its_delay_and_counts_attempts(engine: Engine, db: Database) -> None:
    await add(db, "a")
    (claim,) = await take(db)
    await db.transact(db.claims.fail(KIND, claim, error="no route", retry_in_us=MINUTE_US))
    assert await take(db) == []
    assert [(h.state, h.owner, h.error) for h in await holders(db)] == [("free", None, "no route")]
    engine.elapse(MINUTE_US)
    (again,) = await take(db)
    assert again.attempts == 2
    assert again.token > claim.token


async def test_dead_work_is_kept_for_people_and_never_taken(engine: Engine, db: Database) -> None:
    await add(db, "a")
    (claim,) = await take(db, ttl_us=1)
    await db.transact(db.claims.fail(KIND, claim, error="poison", retry_in_us=None))
    engine.elapse(1_000)
    assert await take(db) == []
    assert [(h.state, h.attempts, h.error) for h in await holders(db)] == [("dead", 1, "poison")]


async def test_released_work_is_due_at_once_with_its_attempts_forgotten(db: Database, peer: Database) -> None:
    await add(db, "a", "b")
    claims = await take(db)
    await db.transact(db.claims.release(KIND, claims))
    assert [(h.state, h.owner, h.attempts) for h in await holders(db)] == [("free", None, 0)] * 2
    again = await take(peer, "peer")
    assert [claim.attempts for claim in again] == [1, 1]
    assert all(new.token > old.token for new, old in zip(again, claims, strict=True))


async def test_released_work_may_be_due_later_and_is_taken_then(engine: Engine, db: Database) -> None:
    await add(db, "a")
    await db.transact(db.claims.release(KIND, await take(db), delay_us=MINUTE_US))
    assert await take(db) == []
    assert [(h.state, h.attempts) for h in await holders(db)] == [("free", 0)]
    engine.elapse(MINUTE_US)
    assert [claim.attempts for claim in await take(db)] == [1]


async def test_hastened_work_is_due_at_once_and_what_is_held_stays_held(db: Database, peer: Database) -> None:
    await add(db, "later", delay_us=MINUTE_US)
    await add(db, "due", "held")
    taken = await take(db)
    claims = [claim for claim in taken if claim.id == "held"]
    await db.transact(db.claims.release(KIND, [claim for claim in taken if claim.id == "due"]))
    assert await db.transact(db.claims.hasten(KIND, ["later", "held", "unknown"])) == ["held", "later"]
    assert "later" in [claim.id for claim in await take(peer, "peer")]
    await guard(db, *claims)


async def test_hastened_dead_work_stays_dead(db: Database) -> None:
    await add(db, "a")
    (claim,) = await take(db)
    await db.transact(db.claims.fail(KIND, claim, error="poison", retry_in_us=None))
    assert await db.transact(db.claims.hasten(KIND, ["a"])) == []
    assert await take(db) == []


async def test_work_that_is_hastened_while_its_holder_gives_it_back_is_due_afterwards(
    engine: Engine, db: Database, peer: Database
) -> None:
    await add(db, "a")
    (claim,) = await take(db)
    async with asyncio.timeout(WAIT_S):
        async with db.transaction() as tx:
            await tx.run(db.claims.guard(KIND, [claim]))
            await tx.run(db.claims.release(KIND, [claim], delay_us=MINUTE_US))
            hastening = asyncio.create_task(peer.transact(lambda: peer.claims.hasten(KIND, ["a"])))
            await engine.until_somebody_waits()
        assert await hastening == ["a"]
    assert [taken.id for taken in await take(peer, "peer")] == ["a"]


async def test_finish_of_several_waits_for_a_takeover_and_undoes_all(
    engine: Engine, db: Database, peer: Database
) -> None:
    await add(db, "a", "b")
    claims = await take(db, ttl_us=1)
    engine.elapse(1)
    async with asyncio.timeout(WAIT_S):
        async with peer.transaction() as tx:
            assert len(await tx.run(peer.claims.take(KIND, "peer", ttl_us=MINUTE_US, limit=1))) == 1
            zombie = asyncio.create_task(db.transact(lambda: db.claims.finish(KIND, claims)))
            await engine.until_somebody_waits()
        with pytest.raises(LeaseLost):
            await zombie
    assert len(await holders(db)) == 2


async def test_renewed_claim_outlives_its_first_lease(engine: Engine, db: Database, peer: Database) -> None:
    await add(db, "a")
    taken = await take(db, ttl_us=MINUTE_US)
    assert await db.transact(db.claims.renew(KIND, taken, ttl_us=10 * MINUTE_US)) == taken
    engine.elapse(MINUTE_US)
    assert await take(peer, "peer") == []
    assert await state(db) == "held"


async def test_renewal_keeps_what_it_still_can(engine: Engine, db: Database, peer: Database) -> None:
    await add(db, "a", "b", "c")
    claims = await take(db, ttl_us=1)
    engine.elapse(1)
    await take(peer, "peer", limit=1)  # all are due since the same moment, so this is the first
    assert await db.transact(db.claims.renew(KIND, claims, ttl_us=MINUTE_US)) == claims[1:]


async def test_nothing_is_asked_of_no_claims(db: Database) -> None:
    await add(db, "a")
    before = await holders(db)
    await guard(db)
    assert await add(db) == 0
    assert await db.transact(db.claims.renew(KIND, [], ttl_us=1)) == []
    await db.transact(db.claims.finish(KIND, []))
    await db.transact(db.claims.release(KIND, []))
    assert await holders(db) == before

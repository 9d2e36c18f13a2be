"""Claims between sessions: who takes, and that a zombie changes nothing once somebody else has taken over."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from faultproof.errors import LeaseLost
from faultproof.ports.claims import Claim, ClaimTable
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Main, Rewrite, Stepping, dropped, replaced, together

KIND = "job"
HOUR_US = 3_600_000_000
_HERE = "faultproof.prove.stepped.proof_claims"
_CLAIMS = "engines.postgres.claims"
_MATCHES = "c.token = held.token AND"
_LOCKED = "c.owner IS NOT NULL FOR UPDATE"


@sql("INSERT INTO effect (token) VALUES (:token)")
def _effect(token: int) -> None: ...


# Planted bugs that others' cases have in common with those here.
NO_GUARD = together(dropped(f"{_CLAIMS}._lock"), dropped(f"{_CLAIMS}._lock_all"))
GUARD_WITHOUT_LOCK = together(
    *(replaced(f"{_CLAIMS}.{guard}", _LOCKED, "c.owner IS NOT NULL") for guard in ("_lock", "_lock_all"))
)
NOBODY_HASTENED = dropped(f"{_CLAIMS}._hasten")
HASTENED_WITHOUT_WAITING = replaced(f"{_CLAIMS}._hasten", "FOR UPDATE OF c", "FOR UPDATE OF c SKIP LOCKED")


async def _prepare(database: Database) -> None:
    await database.install(database.claims.schema)
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE effect (token BIGINT NOT NULL)")
    await database.transact(lambda: database.claims.add(KIND, ["a", "b", "c"]))


async def _prepare_one(database: Database) -> None:
    await _prepare(database)
    await database.transact(lambda: database.claims.remove(KIND))
    await database.transact(lambda: database.claims.add(KIND, ["a"]))


# -- taking ------------------------------------------------------------------------------------------------------------


async def _worker(process: Stepping) -> None:
    database = process.database()
    took = await database.transact(
        lambda: database.claims.take(KIND, process.name, ttl_us=HOUR_US, limit=2),
    )
    process.note("took", process.name, [claim.id for claim in took])
    if took:
        await database.transact(lambda: database.claims.finish(KIND, took))
    process.note("finished", process.name)


def _wrongly_taken(evidence: Evidence) -> list[str]:
    taken = [id for kind, *facts in evidence.notes if kind == "took" for id in facts[1]]
    left = [id for (id,) in evidence.fetch("SELECT id FROM faultproof_claim")]
    wrong = [f"{id} was taken twice" for id in set(taken) if taken.count(id) > 1]
    if sorted([*set(taken), *left]) != ["a", "b", "c"]:
        wrong.append(f"taken and finished were {taken}, and {left} are left")
    return wrong


TAKE = Case(
    name=f"{_HERE}:TAKE",
    claim="Two workers that take at the same time have no work in common, and neither waits for the other.",
    prepare=_prepare,
    sessions=lambda plant: {"worker-1": _worker, "worker-2": _worker},
    wrong=_wrongly_taken,
    sometimes=(
        Sometimes(
            claim="one skips what the other has locked",
            happened=lambda evidence: sorted(len(note[2]) for note in evidence.notes if note[0] == "took") == [1, 2],
        ),
    ),
    plants=(
        Plant(name="takes without a lock", breaks="both see the same rows, and the second takes over the first's"),
    ),
    rewrites={"takes without a lock": replaced(f"{_CLAIMS}._take", "FOR UPDATE SKIP LOCKED", "")},
)


# -- the fence -----------------------------------------------------------------------------------------------------------


def _working(ttl_us: int) -> Main:
    async def main(process: Stepping) -> None:
        database = process.database()
        took = await database.transact(lambda: database.claims.take(KIND, process.name, ttl_us=ttl_us, limit=1))
        process.note("took", max((claim.token for claim in took), default=0))
        if not took:
            return

        def work() -> Script[None]:
            yield from database.claims.guard(KIND, took)
            yield from _effect(took[0].token)

        try:
            await database.transact(work)
        except LeaseLost:
            process.note("lost", took[0].token)
        else:
            process.note("did", took[0].token)

    return main


def _done_by_a_zombie(evidence: Evidence) -> list[str]:
    wrong, latest = [], 0
    for kind, token in evidence.notes:
        if kind == "took":
            latest = max(latest, token)
        elif kind == "did" and token < latest:
            wrong.append(f"the holder of token {token} changed something after {latest} had been given out")
        elif kind == "lost" and token == latest:
            wrong.append(f"the holder of token {token}, which is the latest, was told that it had lost")
    done = sorted(noted(evidence, "did"))
    if (effects := sorted(token for (token,) in evidence.fetch("SELECT token FROM effect"))) != done:
        wrong.append(f"committed are the effects of {effects}, and of {done} it was said so")
    return wrong


FENCE = Case(
    name=f"{_HERE}:FENCE",
    claim="A holder whose lease has run out changes nothing any more once somebody else has taken over.",
    prepare=_prepare_one,
    sessions=lambda plant: {"zombie": _working(0), "successor": _working(HOUR_US)},
    wrong=_done_by_a_zombie,
    sometimes=(
        Sometimes(claim="the zombie is told that it has lost", happened=lambda evidence: bool(noted(evidence, "lost"))),
        Sometimes(
            claim="it is done before anybody takes over", happened=lambda evidence: len(noted(evidence, "did")) == 2
        ),
    ),
    plants=(
        Plant(name="no guard", breaks="a zombie's transaction commits after its successor's"),
        Plant(name="guard without a lock", breaks="a successor comes between the guard and the commit"),
        Plant(name="guard without a token", breaks="a zombie passes for its successor"),
    ),
    rewrites={
        "no guard": NO_GUARD,
        "guard without a lock": GUARD_WITHOUT_LOCK,
        "guard without a token": together(
            replaced(f"{_CLAIMS}._lock", _MATCHES, ""), replaced(f"{_CLAIMS}._lock_all", _MATCHES, "")
        ),
    },
)


# -- how a claim ends ----------------------------------------------------------------------------------------------------

Ending = Callable[[ClaimTable, list[Claim]], Script[None]]
Row = tuple[str | None, int, int]


def _finish(claims: ClaimTable, mine: list[Claim]) -> Script[None]:
    return claims.finish(KIND, mine)


def _fail(claims: ClaimTable, mine: list[Claim]) -> Script[None]:
    return claims.fail(KIND, mine[0], error="x", retry_in_us=None)


def _renew(claims: ClaimTable, mine: list[Claim]) -> Script[None]:
    if not (yield from claims.renew(KIND, mine, ttl_us=HOUR_US)):
        raise LeaseLost("not renewed")


def _release(claims: ClaimTable, mine: list[Claim]) -> Script[None]:
    return claims.release(KIND, mine, delay_us=HOUR_US)


def _ending(end: Ending) -> Callable[[str | None], Mapping[str, Main]]:
    async def zombie(process: Stepping) -> None:
        database = process.database()
        mine = await database.transact(lambda: database.claims.take(KIND, "zombie", ttl_us=0, limit=1))
        if not mine:
            return
        try:
            await database.transact(lambda: end(database.claims, mine))
        except LeaseLost:
            process.note("lost")
        else:
            process.note("ended", mine[0].token)

    async def successor(process: Stepping) -> None:
        database = process.database()
        took = await database.transact(lambda: database.claims.take(KIND, "successor", ttl_us=HOUR_US, limit=1))
        process.note("succeeded", [claim.token for claim in took])

    return lambda plant: {"zombie": zombie, "successor": successor}


def _judge(after: Callable[[int], list[Row]], *, says: bool) -> Callable[[Evidence], list[str]]:
    """`after`: the rows that the zombie's token leaves when nobody took over; `says`: the call tells when it has lost."""

    def wrong(evidence: Evidence) -> list[str]:
        rows = evidence.fetch("SELECT owner, token, dead FROM faultproof_claim")
        succeeded = next(note[1] for note in evidence.notes if note[0] == "succeeded")
        ended = next((note[1] for note in evidence.notes if note[0] == "ended"), None)
        kinds = [note[0] for note in evidence.notes if note[0] != "succeeded" or note[1]]
        found = []
        if succeeded and rows != [("successor", succeeded[0], 0)]:
            found.append(f"the successor holds {succeeded}, and the table has {rows}")
        if not succeeded and (ended is None or rows != after(ended)):
            found.append(f"nobody has taken over, the zombie ended {ended}, and the table has {rows}")
        if says and kinds == ["succeeded", "ended"]:
            found.append("the zombie was not told that somebody had taken over")
        return found

    return wrong


def _end(
    name: str, end: Ending, after: Callable[[int], list[Row]], plants: Mapping[str, Rewrite], *, says: bool = True
) -> Case:
    return Case(
        name=f"{_HERE}:{name.upper()}",
        claim=f"A zombie that wants to {name} work leaves it alone once somebody else has taken it over.",
        prepare=_prepare_one,
        sessions=_ending(end),
        wrong=_judge(after, says=says),
        sometimes=(
            Sometimes(
                claim="somebody takes over what the zombie has taken",
                happened=lambda evidence: any(
                    note[0] == "succeeded" and max(note[1], default=0) > 1 for note in evidence.notes
                ),
            ),
        ),
        plants=tuple(Plant(name=plant, breaks="the successor's claim is changed by the zombie") for plant in plants),
        rewrites=dict(plants),
    )


FINISH = _end(
    "finish",
    _finish,
    lambda token: [],
    {
        "without a lock": together(
            replaced(f"{_CLAIMS}._finish", _LOCKED, "c.owner IS NOT NULL"),
            replaced(f"{_CLAIMS}._finish_all", _LOCKED, "c.owner IS NOT NULL"),
        ),
        "without a token": together(
            replaced(f"{_CLAIMS}._finish", _MATCHES, ""), replaced(f"{_CLAIMS}._finish_all", _MATCHES, "")
        ),
    },
)
FAIL = _end(
    "fail",
    _fail,
    lambda token: [(None, token, 1)],
    {"without a token": replaced(f"{_CLAIMS}._fail", "token = :token", ":token = :token")},
)
RENEW = _end(
    "renew",
    _renew,
    lambda token: [("zombie", token, 0)],
    {
        "without a lock": replaced(f"{_CLAIMS}._renew", _LOCKED, "c.owner IS NOT NULL"),
        "without a token": replaced(f"{_CLAIMS}._renew", _MATCHES, ""),
    },
)
RELEASE = _end(
    "release",
    _release,
    lambda token: [(None, token, 0)],
    {
        "without a lock": replaced(f"{_CLAIMS}._lock", _LOCKED, "c.owner IS NOT NULL"),
        "without a token": replaced(f"{_CLAIMS}._lock", _MATCHES, ""),
    },
    says=False,
)
CASES = (TAKE, FENCE, FINISH, FAIL, RENEW, RELEASE)

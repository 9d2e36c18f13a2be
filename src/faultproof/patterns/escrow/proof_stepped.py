"""The escrow between two sessions: the last unit, the end of a hold, a new item, and what is forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from faultproof.errors import ConstraintViolated, Failed
from faultproof.patterns.escrow import sql
from faultproof.patterns.escrow.books import Contended
from faultproof.patterns.escrow.escrow import Escrow
from faultproof.patterns.escrow.operations import apply
from faultproof.patterns.escrow.requests import Confirm, Expire, Hold, Release, Request, Reserve, Restock
from faultproof.patterns.escrow.straight import reserved, wanted
from faultproof.ports.database import Database, Tx
from faultproof.ports.script import Script
from faultproof.ports.script import sql as statement
from faultproof.primitives.group_commit import Err
from faultproof.prove.proof import Evidence, Plant, Sometimes, noted
from faultproof.prove.stepped.case import Case, Isolation, Main, Rewrite, Stepping, replaced

_HERE = "faultproof.patterns.escrow.proof_stepped"
_SQL = "patterns.escrow.sql"
STOCK = "stock"
HOUR_US = 3_600_000_000


@statement("INSERT INTO told (key) VALUES (:key)")
def _tell(key: str) -> None: ...


def _on_expired(hold: Hold) -> Script[None]:
    yield from _tell(hold.key)


def _decided(request: Request, *, waits: bool = True) -> Script[str]:
    """One call in a transaction: "done", "locked", or what it was refused for."""
    (decision,) = yield from apply(STOCK, [request], waits=waits, on_expired=_on_expired)
    if isinstance(decision, Err):
        return type(decision.error).__name__
    return "locked" if isinstance(decision.value, Contended) else "done"


async def _prepare(database: Database) -> None:
    await Escrow(database).install()
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE told (key TEXT NOT NULL)")
    for item in ("bread", "milk"):
        await database.transact(lambda item=item: _decided(Restock(f"delivery of {item}", ((item, 1),))))  # type: ignore[misc]


def _calls(request: Request, *, waits: bool = True) -> Main:
    async def main(process: Stepping) -> None:
        said = await process.database().transact(lambda: _decided(request, waits=waits))
        process.note(said, process.name)

    return main


def _joined(isolation: Isolation, request: Request) -> Main:
    async def main(process: Stepping) -> None:
        def work(tx: Tx) -> Awaitable[str]:
            return tx.run(_decided(request))

        process.note(await process.joined(isolation, work), process.name)

    return main


def _straight(request: Reserve) -> Main:
    """Without looking; and one that is refused is decided again, as `Lanes` does."""

    async def main(process: Stepping) -> None:
        database, sums = process.database(), wanted([request])
        assert sums is not None
        try:
            await database.transact(lambda: reserved(STOCK, [request], sums, 1.0))
        except ConstraintViolated:
            process.note(await database.transact(lambda: _decided(request)), process.name)
        else:
            process.note("done", process.name)

    return main


# -- judging ---------------------------------------------------------------------------------------------------------------


def _wrong_sums(evidence: Evidence) -> list[str]:
    """What is reserved of each item is what its holds add up to."""
    return [
        f"of {item} {reserved} are reserved and {held} held, {sold} sold and {confirmed} confirmed"
        for item, reserved, held, sold, confirmed in evidence.fetch(
            """SELECT i.item, i.reserved, coalesce(sum(quantity) FILTER (WHERE state = 'held'), 0), i.sold,
                      coalesce(sum(quantity) FILTER (WHERE state = 'confirmed'), 0)
               FROM faultproof_escrow_item AS i LEFT JOIN faultproof_escrow_hold AS h ON h.item = i.item
               GROUP BY i.item, i.reserved, i.sold"""
        )
        if (reserved, sold) != (held, confirmed)
    ]


def _one_wins(*, refusal: str) -> Callable[[Evidence], list[str]]:
    """One is done, and the other refused for that."""

    def wrong(evidence: Evidence) -> list[str]:
        said = sorted(note[0] for note in evidence.notes)
        return _wrong_sums(evidence) + ([] if said == sorted(["done", refusal]) else [f"the answers were {said}"])

    return wrong


def _either(first: str, other: str) -> tuple[Sometimes, ...]:
    return tuple(
        Sometimes(claim=f"{name} wins", happened=lambda evidence, name=name: name in noted(evidence, "done"))  # type: ignore[misc]
        for name in (first, other)
    )


# -- the last unit ---------------------------------------------------------------------------------------------------------

_ONE = Reserve("one", (("bread", 1), ("milk", 1)), HOUR_US)
_OTHER = Reserve("other", (("bread", 1), ("milk", 1)), HOUR_US)
_UNLOCKED: Mapping[str, Rewrite] = {"no lock": replaced(f"{_SQL}.lock", "{lock}", "")}
_NO_LOCK = Plant(name="no lock", breaks="both see the last one; only the table's own checks are left to refuse one")


def _last(name: str, how: str, one: Main, other: Main, *, planted: bool = True) -> Case:
    return Case(
        name=f"{_HERE}:{name}",
        claim=f"Of two that reserve the last of two items at the same time one gets both, and the other is told why not. {how}",
        prepare=_prepare,
        sessions=lambda plant: {"one": one, "other": other},
        wrong=_one_wins(refusal="InsufficientStock"),
        sometimes=_either("one", "other"),
        plants=(_NO_LOCK,) if planted else (),
        rewrites=_UNLOCKED if planted else {},
    )


LAST = _last("LAST", "Both look first.", _calls(_ONE), _calls(_OTHER))
LAST_STRAIGHT = _last("LAST_STRAIGHT", "Neither looks.", _straight(_ONE), _straight(_OTHER), planted=False)
LAST_MIXED = _last("LAST_MIXED", "One looks first.", _straight(_ONE), _calls(_OTHER))
LAST_SERIALIZABLE = _last(
    "LAST_SERIALIZABLE",
    "In transactions of the user's own, at SERIALIZABLE.",
    _joined("serializable", _ONE),
    _joined("serializable", _OTHER),
    planted=False,
)
SAME_KEY = Case(
    name=f"{_HERE}:SAME_KEY",
    claim="A request that is made twice at the same time, with and without looking, is one hold.",
    prepare=_prepare,
    sessions=lambda plant: {"one": _straight(_ONE), "again": _calls(_ONE)},
    wrong=lambda evidence: [
        *_wrong_sums(evidence),
        *([] if [note[0] for note in evidence.notes] == ["done", "done"] else [f"{evidence.notes}"]),
    ],
)

OTHER = "other"


async def _delivers_elsewhere(process: Stepping) -> None:
    def deliver() -> Script[object]:
        return apply(OTHER, [Restock("d-1", (("eggs", 1),))], waits=True)

    await process.database().transact(deliver)


async def _asks_for_what_is_not_there(process: Stepping) -> None:
    await _straight(Reserve("one", (("eggs", 1), ("milk", 1)), HOUR_US))(process)


UNKNOWN = Case(
    name=f"{_HERE}:UNKNOWN",
    claim="What only another escrow has is held by nobody, and neither is what else was asked for with it.",
    prepare=_prepare,
    sessions=lambda plant: {"customer": _asks_for_what_is_not_there, "supplier of others": _delivers_elsewhere},
    wrong=lambda evidence: [
        *_wrong_sums(evidence),
        *([] if noted(evidence, "UnknownItem") else [f"it was answered with {evidence.notes}"]),
    ],
    plants=(Plant(name="counts elsewhere", breaks="what is there in another escrow is taken for ours"),),
    rewrites={"counts elsewhere": replaced(f"{_SQL}.hold_all", "i.escrow = :escrow AND", "")},
)

# -- the end of a hold -----------------------------------------------------------------------------------------------------


async def _prepare_held(database: Database) -> None:
    await _prepare(database)
    await database.transact(lambda: _decided(_ONE))


async def _prepare_due(database: Database) -> None:
    """A hold whose time is up the moment it is made."""
    await _prepare(database)
    await database.transact(lambda: _decided(Reserve("due", (("bread", 1),), 1)))


END = Case(
    name=f"{_HERE}:END",
    claim="Of a confirm and a release of one hold at the same time one wins, and the other is told how it ended.",
    prepare=_prepare_held,
    sessions=lambda plant: {"confirms": _calls(Confirm("one")), "releases": _calls(Release("one"))},
    wrong=_one_wins(refusal="HoldEnded"),
    sometimes=_either("confirms", "releases"),
    plants=(_NO_LOCK,),
    rewrites=_UNLOCKED,
)


def _wrong_expiry(evidence: Evidence) -> list[str]:
    told = evidence.fetch("SELECT key FROM told")
    return _wrong_sums(evidence) + ([] if told == [("due",)] else [f"of its expiry was told {told}"])


EXPIRE = Case(
    name=f"{_HERE}:EXPIRE",
    claim="A hold whose time is up is returned and told of once, by a loop or by whoever needs its stock.",
    prepare=_prepare_due,
    sessions=lambda plant: {
        "loop": _calls(Expire("due")),
        "customer": _calls(Reserve("mine", (("bread", 1),), HOUR_US)),
    },
    wrong=lambda evidence: [
        *_wrong_expiry(evidence),
        *([] if ("done", "customer") in evidence.notes else [f"the customer got nothing: {evidence.notes}"]),
    ],
    plants=(
        Plant(name="no lock", breaks="both return its stock, and only the table's own checks are left to refuse one"),
    ),
    rewrites={"no lock": replaced(f"{_SQL}.lock", "{lock}", "")},
)
SKIP = Case(
    name=f"{_HERE}:SKIP",
    claim="Who does not wait for what is locked says so, and has done nothing.",
    prepare=_prepare_due,
    sessions=lambda plant: {
        "one": _calls(Expire("due"), waits=False),
        "other": _calls(Expire("due"), waits=False),
    },
    wrong=_wrong_expiry,
    sometimes=(Sometimes(claim="one finds it locked", happened=lambda evidence: bool(noted(evidence, "locked"))),),
    plants=(Plant(name="skips nothing", breaks="both return its stock"),),
    rewrites={"skips nothing": replaced(f"{_SQL}.lock_or_skip", "{lock_or_skip}", "")},
)

# -- what is new, and what is forgotten ------------------------------------------------------------------------------------

NEW = Case(
    name=f"{_HERE}:NEW",
    claim="Two deliveries of an item that was not there at the same time are both added.",
    prepare=_prepare,
    sessions=lambda plant: {
        "one": _calls(Restock("d-1", (("eggs", 6),))),
        "other": _calls(Restock("d-2", (("eggs", 6),))),
    },
    wrong=lambda evidence: (
        []
        if (rows := evidence.fetch("SELECT total, available FROM faultproof_escrow_item WHERE item = 'eggs'"))
        == [(12, 12)]
        else [f"12 were delivered, and there are {rows}"]
    ),
    plants=(Plant(name="makes it anyway", breaks="who comes second finds it there, and its delivery is lost"),),
    rewrites={
        "makes it anyway": replaced(
            f"{_SQL}.create",
            "total = faultproof_escrow_item.total + excluded.total, "
            "available = faultproof_escrow_item.available + excluded.available,",
            "",
        )
    },
)


async def _prepare_over(database: Database) -> None:
    await _prepare_held(database)
    await database.transact(lambda: _decided(Release("one")))


def _forgets() -> Script[int]:
    keys = yield from sql.over(STOCK, -1_000_000, 100)
    return (yield from sql.forget(STOCK, list(dict.fromkeys(keys)), -1_000_000))


async def _loop(process: Stepping) -> None:
    await process.database().transact(_forgets)


async def _loop_and_customer(process: Stepping) -> None:
    """Another loop, after which the key may be used again; of its hold the first loop knows nothing."""
    database = process.database()
    await database.transact(_forgets)
    try:
        said = await database.transact(lambda: _decided(_ONE))
    except Failed as error:
        said = type(error).__name__
    process.note(said, "one")


FORGET = Case(
    name=f"{_HERE}:FORGET",
    claim="Who forgets what is over forgets no hold that was made under the same key meanwhile.",
    prepare=_prepare_over,
    sessions=lambda plant: {"loop": _loop, "other loop": _loop_and_customer},
    wrong=lambda evidence: [
        f"a hold was promised, and there are {held}"
        for held in [evidence.fetch("SELECT key FROM faultproof_escrow_hold WHERE state = 'held'")]
        if noted(evidence, "done") and held != [("one",), ("one",)]
    ],
    sometimes=(Sometimes(claim="the key is used again", happened=lambda evidence: bool(noted(evidence, "done"))),),
    plants=(Plant(name="looks once", breaks="a loop that looked before deletes the new hold"),),
    rewrites={
        "looks once": replaced(
            f"{_SQL}.forget", "AND state <> 'held' AND at_us <= {now} - :keep_us", "AND :keep_us < 0"
        )
    },
)
CASES = (LAST, LAST_STRAIGHT, LAST_MIXED, LAST_SERIALIZABLE, SAME_KEY, UNKNOWN, END, EXPIRE, SKIP, NEW, FORGET)

"""Escrow's other proofs: what is not there, falls short or lies overdue; what is delivered, and what is forgotten."""

from __future__ import annotations

from collections.abc import Callable

from faultproof.patterns.escrow.proof_visitors import DELIVERED, LONG_S, STOCK, prepare, processes_of
from faultproof.prove.proof import ANY_FAULT, Always, Eventually, Evidence, Plant, Proof, Sometimes, noted


def _done(names: tuple[str, ...]) -> Callable[[Evidence], bool]:
    def done(evidence: Evidence) -> bool:
        if noted(evidence, "finished") < {*names}:
            return False
        held = evidence.fetch("SELECT ttl_us FROM faultproof_escrow_hold WHERE escrow = 'stock' AND state = 'held'")
        return all(ttl_us >= LONG_S * 1_000_000 for (ttl_us,) in held)

    return done


def _wrong_sums(evidence: Evidence) -> list[str]:
    """After every commit; what has been forgotten of was sold nevertheless."""
    return [
        f"{escrow} has of {item} {numbers}, and holds of {held} and {confirmed}"
        for escrow, item, *numbers, held, confirmed in evidence.fetch(
            """SELECT i.escrow, i.item, i.total, i.available, i.reserved, i.sold,
                 coalesce(sum(CASE WHEN h.state = 'held' THEN h.quantity END), 0),
                 coalesce(sum(CASE WHEN h.state = 'confirmed' THEN h.quantity END), 0)
               FROM faultproof_escrow_item i LEFT JOIN faultproof_escrow_hold h ON h.escrow = i.escrow AND h.item = i.item
               WHERE i.item NOT LIKE 'shelf%'
               GROUP BY i.escrow, i.item, i.total, i.available, i.reserved, i.sold"""
        )
        for total, available, reserved, sold in [numbers]
        if min(numbers) < 0 or available + reserved + sold != total or (reserved, sold) != (held, confirmed)
    ]


def _orphans(evidence: Evidence) -> list[str]:
    found = evidence.fetch(
        """SELECT h.escrow, h.key, h.item FROM faultproof_escrow_hold h
           LEFT JOIN faultproof_escrow_item i ON i.escrow = h.escrow AND i.item = h.item WHERE i.item IS NULL"""
    )
    return [f"{escrow} has a hold {key} of {item}, which is not there" for escrow, key, item in found]


def _broken_words(evidence: Evidence) -> list[str]:
    wrong = _unknown_although_told(evidence)
    states = dict(evidence.fetch("SELECT key, state FROM faultproof_escrow_hold WHERE escrow = 'stock'"))
    until: dict[str, int] = {}
    for key, state, until_us in (facts for kind, *facts in evidence.notes if kind == "told"):
        if state == "held" and until.setdefault(key, until_us) != until_us:
            wrong.append(f"{key} was told of two holds")
        elif key not in states or state not in ("held", states[key]):
            wrong.append(f"{key} was told {state!r}, and is {states.get(key)}")
    return wrong


def _unknown_although_told(evidence: Evidence) -> list[str]:
    """Who was refused may be told that his hold is unknown, and have it when he asks once more; the other way round it is
    forgotten, which nothing is here."""
    wrong, told = list[str](), set[str]()
    for kind, key, *facts in (note for note in evidence.notes if note[0] in ("told", "refused")):
        if kind == "told":
            told.add(key)
        elif facts[0] == "UnknownHold" and key in told:
            wrong.append(f"{key} was said to be unknown")
    return wrong


def _wrong_refusals(evidence: Evidence) -> list[str]:
    refused = {note[1]: note[2] for note in evidence.notes if note[0] == "refused"}
    expected = {
        "unknown": "UnknownItem",
        "half unknown": "UnknownItem",
        "too much": "InsufficientStock",
        "again": "UnknownHold",
        "delivery of eggs": "UnknownHold",
    }
    counted = [tuple(facts) for kind, *facts in evidence.notes if kind == "counted"]
    wrong = [f"counted was {each}" for each in counted if each != ("milk", STOCK["milk"], "shelf 0")]
    return wrong + [
        f"{key} was refused with {refused.get(key)}, not {why}"
        for key, why in expected.items()
        if refused.get(key) != why
    ]


def _wrong_expiries(evidence: Evidence) -> list[str]:
    told = sorted(evidence.fetch("SELECT key FROM told"))
    expired = sorted(
        evidence.fetch("SELECT DISTINCT key FROM faultproof_escrow_hold WHERE escrow = 'stock' AND state = 'expired'")
    )
    return [] if told == expired else [f"{expired} have expired, and it was told of {told}"]


def _wrong_deliveries(evidence: Evidence) -> list[str]:
    rice = evidence.fetch("SELECT total FROM faultproof_escrow_item WHERE escrow = 'stock' AND item = 'rice'")
    right = [(sum(DELIVERED.values()),)]
    return [] if rice == right else [f"of rice there are {rice}, and {DELIVERED} were delivered"]


def _still_there(evidence: Evidence) -> list[str]:
    """Of keys that nobody uses again."""
    there = {key for (key,) in evidence.fetch("SELECT key FROM faultproof_escrow_hold WHERE escrow = 'brief'")}
    gone = {key for key in noted(evidence, "gone") if key.startswith("delivery")}
    return [f"{key} was said to be forgotten" for key in sorted(gone & there)]


def _wrongly_forgotten(evidence: Evidence) -> list[str]:
    query = "SELECT DISTINCT escrow FROM faultproof_escrow_hold WHERE key = 'kept' AND state = 'held' ORDER BY escrow"
    kept = evidence.fetch(query)
    early = [f"{key} was forgotten early" for key in noted(evidence, "forgotten early")]
    early += [f"{lines} lines were forgotten at once" for lines in noted(evidence, "forgotten at once")]
    return early if kept == [("brief",), ("stock",)] else [*early, f"what was to be kept is there in {kept}"]


def _touched(evidence: Evidence) -> list[str]:
    """In the escrow of others, where nobody is at work."""
    return [
        f"{row} of others was touched"
        for table, before in (("faultproof_escrow_item", "other_item"), ("faultproof_escrow_hold", "other_hold"))
        for row in set(evidence.fetch(_OTHERS[table])) ^ set(evidence.fetch(_OTHERS[before]))
    ]


_OTHERS = {
    "faultproof_escrow_item": "SELECT item, total, available FROM faultproof_escrow_item WHERE escrow = 'other'",
    "faultproof_escrow_hold": "SELECT key, item, state FROM faultproof_escrow_hold WHERE escrow = 'other'",
    "other_item": "SELECT item, total, available FROM other_item",
    "other_hold": "SELECT key, item, state FROM other_hold",
}


_ASSUMPTIONS = (
    "a commit that was acknowledged survives (the database's durability setting)",
    "who gets no answer asks again with the same key, before that is forgotten",
)
_NOT_TESTED = (
    "two transactions at the same time: simulated SQLite has one writer, so PostgreSQL's row locks are not tried",
)
_ALWAYS = (
    Always(claim="each item's numbers are those of its holds, and sum up to its total", wrong=_wrong_sums),
    Always(claim="whatever is held is there", wrong=_orphans),
)
_TOUCHED = Eventually(claim="nothing of others is touched", wrong=_touched)
_WORDS = Eventually(claim="what a customer was told is so", wrong=_broken_words)

_SHORT = ("early", "late")
SHORTAGE = Proof(
    name="faultproof.patterns.escrow.proof:SHORTAGE",
    claim=(
        "Nothing is held of what is not there, or of more than there is; stock that lies overdue is had by who needs it, or "
        "returned by the loop, and either is told of once. No escrow touches another's items or holds."
    ),
    faults=ANY_FAULT,
    assumptions=_ASSUMPTIONS,
    not_tested=_NOT_TESTED,
    prepare=prepare,
    processes=processes_of(_SHORT),
    done=_done(_SHORT),
    always=_ALWAYS,
    eventually=(
        _WORDS,
        Eventually(
            claim="who asks for too much, or for what is not there, is told so; what is there is shown",
            wrong=_wrong_refusals,
        ),
        Eventually(claim="each expiry is told of once", wrong=_wrong_expiries),
        _TOUCHED,
    ),
    sometimes=(
        Sometimes(
            claim="somebody has stock that lay overdue",
            happened=lambda evidence: any(note[:3] == ("told", "back", "confirmed") for note in evidence.notes),
        ),
        Sometimes(
            claim="the loop returns what nobody asks for",
            happened=lambda evidence: bool(evidence.fetch("SELECT 1 FROM told WHERE key = 'abandoned'")),
        ),
    ),
    plants=(
        Plant(name="makes what is missing", breaks="what is not there is held like anything else"),
        Plant(name="takes the rest", breaks="who asks for more than there is gets what there is"),
    ),
)

_REGULAR = ("regular",)
FORGETTING = Proof(
    name="faultproof.patterns.escrow.proof:FORGETTING",
    claim=(
        "A delivery that arrives twice is added once, for as long as its key is kept; a key may be used again once it is "
        "forgotten, and none is forgotten early, or while it is held. No escrow touches another's items or holds."
    ),
    faults=ANY_FAULT,
    assumptions=_ASSUMPTIONS,
    not_tested=_NOT_TESTED,
    prepare=prepare,
    processes=processes_of(_REGULAR),
    done=_done(_REGULAR),
    always=(*_ALWAYS, Always(claim="what is said to be forgotten is", wrong=_still_there)),
    eventually=(
        _WORDS,
        Eventually(claim="each delivery is added once", wrong=_wrong_deliveries),
        Eventually(claim="nothing is forgotten early, while it is held, or much at once", wrong=_wrongly_forgotten),
        _TOUCHED,
    ),
    sometimes=(Sometimes(claim="a key is used again", happened=lambda evidence: bool(noted(evidence, "forgotten"))),),
    plants=(
        Plant(name="forgets at once", breaks="a delivery that arrives again is added again"),
        Plant(name="numbers deliveries", breaks="each request has a key of its own: a repetition is another delivery"),
    ),
)

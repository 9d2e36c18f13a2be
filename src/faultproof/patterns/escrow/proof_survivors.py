"""Mutants of the escrow's scripts that its proofs do not notice, and why."""

from __future__ import annotations

from faultproof.prove.proof import Survivor

_SQL = "patterns.escrow.sql."
_ITEM = "constraint faultproof_escrow_item: "
_ITEMS_AND_THOSE_HELD = (
    "(SELECT value FROM {items} UNION SELECT h.item FROM faultproof_escrow_hold AS h "
    "WHERE h.escrow = :escrow AND h.key IN {keys})"
)
_CASES = "faultproof.patterns.escrow.proof_stepped:"
_TAKES = f"condition {_SQL}take: available >= :quantity"
_NOT_BELOW_ZERO = f"{_ITEM}CHECK (available >= 0)"
_OLD = "at_us <= {now} - :keep_us"

SURVIVORS = (
    Survivor(
        mutants=(_TAKES,),
        reason="without it the number becomes negative, which the table refuses",
        twin=_NOT_BELOW_ZERO,
    ),
    Survivor(
        mutants=(_NOT_BELOW_ZERO,),
        reason="nobody takes what is not there: who looks decides by that, and who does not asks for it as he takes",
        twin=_TAKES,
    ),
    Survivor(
        mutants=(
            f"{_ITEM}CHECK (reserved >= 0)",
            f"{_ITEM}CHECK (sold >= 0)",
            f"{_ITEM}CHECK (available + reserved + sold = total)",
            "constraint faultproof_escrow_hold: CHECK (quantity > 0)",
        ),
        reason="the last line of defence: no script ends a hold twice, subtracts from what is sold, or adds to one number "
        "without taking from another, and a quantity is checked before it is asked for",
    ),
    Survivor(
        mutants=(f"split {_SQL}lock | {_SQL}lines",),
        reason="who decides by numbers that have changed meanwhile is refused by the table, and decides again",
        stepped=f"{_CASES}LAST",
    ),
    Survivor(
        mutants=(f"split {_SQL}lock_or_skip | {_SQL}lines", f"split {_SQL}instant | {_SQL}lock_or_skip"),
        reason="who decides by numbers that have changed meanwhile is refused by the table, and decides again",
        stepped=f"{_CASES}EXPIRE",
    ),
    Survivor(
        mutants=(f"split {_SQL}lines | {_SQL}move",),
        reason="whoever is late to end what lay overdue comes with a hold of his own, whose key his successor has used: the "
        "table refuses both together",
    ),
    Survivor(
        mutants=(f"split {_SQL}instant | {_SQL}create",),
        reason="what is created comes with its delivery's key, which the table refuses the second time; and deliveries of "
        "other keys are added to what is there by then",
    ),
    Survivor(
        mutants=(
            f"condition {_SQL}hold_all: i.escrow = :escrow",
            f"condition {_SQL}hold_all: i.item IN {{items}}",
        ),
        reason="if too many items are counted, a hold has no number: the table refuses, and the careful way does the work. "
        "Beside neighbours too many are; that as many are as should be takes an escrow beside none",
        stepped=f"{_CASES}UNKNOWN",
    ),
    Survivor(
        mutants=(
            f"condition {_SQL}due: until_us <= {{now}}",
            f"condition {_SQL}instant: item IN {{items}}",
            f"condition {_SQL}lock_or_skip: i.item IN {_ITEMS_AND_THOSE_HELD}",
        ),
        reason="more is looked at, or locked, than need be, and others may wait; whether a hold is over is decided by its own "
        "row, behind the locks",
    ),
    Survivor(
        mutants=(f"condition {_SQL}over: {_OLD}",),
        reason="what is too young is found too, and left alone by `forget`, which asks again",
        twin=f"condition {_SQL}forget: {_OLD}",
    ),
    Survivor(
        mutants=(f"condition {_SQL}forget: {_OLD}",),
        reason="`over` has found what is old, and with one writer nobody uses a key again before it is forgotten",
        twin=f"condition {_SQL}over: {_OLD}",
    ),
    Survivor(
        mutants=(f"condition {_SQL}forget: state <> 'held'",),
        reason="with one writer nobody holds something under a key between `over` and `forget`",
        stepped=f"{_CASES}FORGET",
    ),
)

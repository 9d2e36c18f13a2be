"""Mutants of the escrow's scripts that its proof does not notice, and why. Not all that survive are explained yet."""

from __future__ import annotations

from faultproof.prove.proof import Survivor

_SQL = "patterns.escrow.sql."
_ITEM = "constraint faultproof_escrow_item: "
_ITEMS_AND_THOSE_HELD = (
    "(SELECT value FROM {items} UNION SELECT h.item FROM faultproof_escrow_hold AS h "
    "WHERE h.escrow = :escrow AND h.key IN {keys})"
)

SURVIVORS = (
    Survivor(
        mutants=(f"condition {_SQL}take: available >= :quantity",),
        reason="without it the number becomes negative, which the table refuses",
        twin=f"{_ITEM}CHECK (available >= 0)",
    ),
    Survivor(
        mutants=(f"split {_SQL}lock | {_SQL}lines",),
        reason="who decides by numbers that have changed meanwhile is refused by the table",
        twin=f"{_ITEM}CHECK (available >= 0)",
    ),
    Survivor(
        mutants=(f"split {_SQL}lock_or_skip | {_SQL}lines", f"split {_SQL}lines | {_SQL}move"),
        reason="here nobody takes the last of an item, or ends the same hold, just between; two sessions at once would",
    ),
    Survivor(
        mutants=(
            f"condition {_SQL}hold_all: i.escrow = :escrow",
            f"condition {_SQL}hold_all: i.item IN {{items}}",
        ),
        reason="if too many items are counted, a hold has no number: the table refuses, and the careful way does the work",
        twin="constraint faultproof_escrow_hold: NOT NULL",
    ),
    Survivor(
        mutants=(f"split {_SQL}instant | {_SQL}lock_or_skip",),
        reason="what was changed before are other requests, each whole; what comes is decided by what is read then",
    ),
    Survivor(
        mutants=(
            f"condition {_SQL}due: until_us <= {{now}}",
            f"condition {_SQL}instant: item IN {{items}}",
            f"condition {_SQL}lock: i.item IN {_ITEMS_AND_THOSE_HELD}",
        ),
        reason="more is looked at than need be; whether a hold is over is decided behind the locks",
    ),
    Survivor(
        mutants=("early answer … patterns.escrow.proof._tell",),
        reason="who dies with an answer that was lost asks again with the same key, and gets the same one",
    ),
)

"""Mutants of the saga's scripts that its proofs do not notice, and why."""

from __future__ import annotations

from faultproof.prove.proof import Survivor

_SQL = "patterns.saga.sql."
_CLAIMS = "engines.sqlite.claims."
_JOURNAL_S_KEY = "constraint faultproof_saga_entry: PRIMARY KEY (saga, id, seq)"

SURVIVORS = (
    Survivor(
        mutants=(
            f"split {_CLAIMS}_count_held | {_SQL}write",
            f"split {_CLAIMS}_count_held | {_SQL}callbacks",
            f"split {_CLAIMS}_count_held | patterns.saga.proof._insert",
            f"split {_CLAIMS}_hold | {_SQL}write",
        ),
        reason="who was replaced behind the guard writes an entry that is there already, which the journal's key refuses",
        twin=_JOURNAL_S_KEY,
    ),
    Survivor(
        mutants=(
            f"split {_CLAIMS}_take | {_SQL}stored",
            f"split {_SQL}stored | {_SQL}entries",
            f"split {_SQL}stored | {_SQL}write",
            f"split {_SQL}entries | {_SQL}callbacks",
        ),
        reason="who was replaced between taking a saga and writing to it gives its entries the numbers of its successor's",
        twin=_JOURNAL_S_KEY,
    ),
    Survivor(
        mutants=(_JOURNAL_S_KEY,),
        reason="the guard stands before it",
        twin=f"split {_CLAIMS}_count_held | {_SQL}write",
    ),
)

"""Mutants of the saga's scripts that its proofs do not notice, and why."""

from __future__ import annotations

from faultproof.prove.proof import Survivor

_SQL = "patterns.saga.sql."
_CLAIMS = "engines.sqlite.claims."
_JOURNAL_S_KEY = "constraint faultproof_saga_entry: PRIMARY KEY (saga, id, seq)"
_CASES = "faultproof.patterns.saga.proof_stepped:"
_ONE_NUMBER = (
    "who was replaced in between, and its successor, give two entries one number: the journal's key refuses the later one, "
    "and who wrote that gives the saga up"
)

SURVIVORS = (
    Survivor(
        mutants=(
            f"split {_CLAIMS}_count_held | {_SQL}callbacks",
            f"split {_CLAIMS}_count_held | patterns.saga.proof._insert",
            f"split {_CLAIMS}_hold | {_SQL}write",
            f"split {_SQL}stored | {_SQL}write",
        ),
        reason=_ONE_NUMBER,
        twin=_JOURNAL_S_KEY,
    ),
    Survivor(
        mutants=(f"split {_CLAIMS}_count_held | {_SQL}write",),
        reason=f"{_ONE_NUMBER}; that an answer waits for the lock takes two writers",
        twin=_JOURNAL_S_KEY,
        stepped=f"{_CASES}ANSWER",
    ),
    Survivor(
        mutants=(
            f"split {_CLAIMS}_take | {_SQL}stored",
            f"split {_SQL}stored | {_SQL}entries",
            f"split {_SQL}entries | {_SQL}callbacks",
        ),
        reason=f"{_ONE_NUMBER}; that an answer finds the claim unlocked, and still held, takes two writers",
        twin=_JOURNAL_S_KEY,
        stepped=f"{_CASES}LOOK",
    ),
    Survivor(
        mutants=(_JOURNAL_S_KEY,),
        reason="who was replaced is refused by the guard, before it writes an entry that is there already",
        twin=f"split {_CLAIMS}_count_held | {_SQL}write",
    ),
    Survivor(
        mutants=(f"split {_SQL}write | {_SQL}callbacks",),
        reason="the last look for an answer and the release are in one transaction still, behind which none is overlooked "
        "where there is one writer",
        stepped=f"{_CASES}ANSWER",
    ),
    Survivor(
        mutants=(f"split {_SQL}callbacks | {_SQL}callbacks",),
        reason="who has found no answer, and gives the saga back at once, looks again; as above",
        stepped=f"{_CASES}LOOK",
    ),
    Survivor(
        mutants=(f"early answer … {_SQL}entries",),
        reason="what an answer that does not count has changed is how soon its saga is looked at, for which it need not be",
    ),
    Survivor(
        mutants=(f"condition {_SQL}known: id IN {{ids}}",),
        reason="more is read than need be, and what is looked up in it is looked up by its id",
    ),
    Survivor(
        mutants=tuple(f"constraint faultproof_saga{table}: NOT NULL" for table in ("", "_entry", "_callback")),
        reason="all that the scripts write into these columns are parameters of types without None, constants and the clock: "
        "the constraint is for who writes by hand",
    ),
)

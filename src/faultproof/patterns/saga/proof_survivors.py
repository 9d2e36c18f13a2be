"""Mutants of the saga's scripts that its proofs do not notice, and why. Not all that survive are explained yet."""

from __future__ import annotations

from faultproof.prove.proof import Survivor

_SQL = "patterns.saga.sql."
_GUARD = "engines.sqlite.claims._count_held"
_JOURNAL_S_KEY = "constraint faultproof_saga_entry: PRIMARY KEY (saga, id, seq)"

SURVIVORS = (
    Survivor(
        mutants=(
            f"split {_GUARD} | {_SQL}write",
            f"split {_GUARD} | patterns.saga.proof._insert",
        ),
        reason="who was replaced behind the guard writes an entry that is there already, which the journal's key refuses",
        twin=_JOURNAL_S_KEY,
    ),
    Survivor(
        mutants=(f"split {_GUARD} | patterns.saga.proof._delete", f"split patterns.saga.proof._delete | {_SQL}write"),
        reason="to undo twice is to undo once",
    ),
    Survivor(
        mutants=(f"condition {_SQL}known: id IN {{ids}}", f"condition {_SQL}known: saga = :saga"),
        reason="more is read than need be, and looked up by its id; no neighbour has the same id with another digest",
    ),
    Survivor(
        mutants=(f"split engines.sqlite.claims._take | {_SQL}stored",),
        reason="between taking a saga and reading it nobody else may change it: it is taken",
    ),
)

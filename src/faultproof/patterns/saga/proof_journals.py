"""What must be true of a journal, whatever the saga."""

from __future__ import annotations

from faultproof.prove.proof import Evidence

CLOCKS_S = 600
"""Far more than the engine's clock jumps between two looks at it."""


def misnumbered(evidence: Evidence) -> list[str]:
    """Whoever goes on with a saga goes on behind the last line, and one that was replaced adds none."""
    found = evidence.fetch("SELECT id, count(*), max(seq) FROM faultproof_saga_entry GROUP BY id")
    return [
        f"the journal of {id} has {count} lines, the last is number {last}"
        for id, count, last in found
        if count != last
    ]


def misdated(evidence: Evidence) -> list[str]:
    """What one process has put off another may have to go on with: both need to mean the same clock."""
    return [
        f"{step} of {id} was put off by {(due_us - at_us) / 1_000_000:.0f} s"
        for id, step, due_us, at_us in evidence.fetch(
            "SELECT id, step, due_us, at_us FROM faultproof_saga_entry WHERE due_us IS NOT NULL"
        )
        if abs(due_us - at_us) > CLOCKS_S * 1_000_000
    ]

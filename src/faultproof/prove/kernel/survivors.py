"""Mutants of the kernel's scripts that its proofs do not notice, and why."""

from __future__ import annotations

from faultproof.prove.proof import Survivor

_LOG = "engines.sqlite.log."
_KEYS = "primitives.idempotency."
_NO_NULL = "no script has a NULL to write there; the table says so to whoever writes to it by hand"


def _not_null(*tables: str) -> Survivor:
    return Survivor(mutants=tuple(f"constraint {table}: NOT NULL" for table in tables), reason=_NO_NULL)


CLAIM = (_not_null("faultproof_claim", "faultproof_claim_floor"),)

LOG = (
    _not_null("faultproof_log_partition", "faultproof_intake", "faultproof_log"),
    Survivor(
        mutants=(f'condition {_LOG}_promote: "partition" IN {{partitions}}',),
        reason="what is due is due, whoever says so: another partition's events are as they would be a moment later, and are "
        "moved by the holder of that partition",
    ),
    Survivor(
        mutants=(f'condition {_LOG}_advance: "partition" IN {{partitions}}',),
        reason="of every other partition it finds the offset behind the last event, where that partition stands already",
    ),
    Survivor(
        mutants=(
            f'condition {_LOG}_delete_moved: l."partition" = p."partition"',
            f'condition {_LOG}_delete_moved: l."offset" >= p.next_offset',
        ),
        reason="they spare it the events that were moved before; those have left the intake with their move, and their ids "
        "are not given again (AUTOINCREMENT)",
    ),
    Survivor(
        mutants=('constraint faultproof_log: PRIMARY KEY (log, "partition", "offset")',),
        reason="an offset is given once because the transaction that gives it moves next_offset, under the lock of its "
        "partition; the key is the index by which readers find it, and the last line of defence",
    ),
    Survivor(
        mutants=(f"split {_LOG}_spans | {_LOG}_read",),
        reason="it lies between two trims of one transaction, each of which is whole; that nobody comes between the lock and "
        "what is read under it takes two writers",
        stepped="faultproof.prove.stepped.proof_log:HOLD",
    ),
    Survivor(
        mutants=('constraint faultproof_log_partition: PRIMARY KEY (log, "partition")',),
        reason="with one writer nobody creates the log between a look and its own creation",
    ),
)

IDEMPOTENCY = (
    _not_null("faultproof_idempotency"),
    Survivor(
        mutants=(f"condition {_KEYS}_finish: token = :token",),
        reason="whoever finishes first has answered, and the other one is told so",
        twin=f"condition {_KEYS}_finish: answer IS NULL",
    ),
    Survivor(
        mutants=(f"condition {_KEYS}_finish: answer IS NULL",),
        reason="one token is given to one caller, who finishes once",
        twin=f"condition {_KEYS}_finish: token = :token",
    ),
    Survivor(
        mutants=(f"split {_KEYS}_begin | {_KEYS}_finish",),
        reason="between them stands only work that does nothing here: a key without an answer, and without a lease, is what "
        "the next caller takes over",
    ),
    Survivor(
        mutants=(f"early answer … {_KEYS}_begin",),
        reason="who dies at the work before its key is stored leaves what somebody leaves who dies a moment later: work that "
        "the next caller repeats",
    ),
    Survivor(
        mutants=(f"condition {_KEYS}_trim: until_us <= {{now}}",),
        reason="here answers are kept for longer than any lease lasts; who keeps them shorter would take the key from whoever "
        "is at work",
    ),
    Survivor(
        mutants=(f"early answer … {_KEYS}_trim",),
        reason="nobody is told of what: an old key that is still there is trimmed the next time",
    ),
)

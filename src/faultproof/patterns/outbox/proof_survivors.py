"""Mutants of the outbox's scripts that its proofs do not notice, and why."""

from __future__ import annotations

from faultproof.prove.proof import Survivor

_ROOM = "patterns.outbox."
_SQL = f"{_ROOM}sql."
_CASES = "faultproof.patterns.outbox.proof_stepped"
_GUARD = "engines.sqlite.claims._count_held"
_REGAINED = (
    "the guard notices before, but where a member has lost its partition and has it again: then the lease is its own, and what "
    "it read or did is out of date"
)
_ONE_WRITER = "it is about what another session does at that moment, and simulated SQLite has one writer"
_MOVES = f"condition {_SQL}advance: moves.old = faultproof_inbox.next_offset"


def _stepped(case: str, *mutants: str, reason: str = _ONE_WRITER) -> Survivor:
    return Survivor(mutants=mutants, reason=reason, stepped=f"{_CASES}{case}")


SURVIVORS = (
    # What the stepped world notices.
    _stepped("_members:REGAINED_NEW", _MOVES, reason=_REGAINED),
    _stepped("_members:REGAINED_BEGIN", f"condition {_SQL}begin_attempt: attempts = :attempts", reason=_REGAINED),
    _stepped("_members:REGAINED_FAIL", f"condition {_SQL}record_failure: dead = 0", reason=_REGAINED),
    _stepped("_members:REGAINED_TAKE", f"condition {_SQL}take_together: error IS NULL", reason=_REGAINED),
    _stepped("_members:REGAINED_SETTLE", f"condition {_SQL}unpark_together: attempts = 0", reason=_REGAINED),
    _stepped("_members:REGAINED_PUT_BACK", f"condition {_SQL}put_back: attempts = 0", reason=_REGAINED),
    _stepped(
        "_members:SHARE",
        f'condition {_SQL}due: "partition" IN {{partitions}}',
        f'condition {_SQL}standing: "partition" IN {{partitions}}',
        reason="one consumer has all partitions in the proofs' runs; what is others' is filtered out again before an attempt",
    ),
    _stepped(
        "_members:SHARE",
        f'condition {_SQL}hold: "partition" IN {{partitions}}',
        reason="who holds more partitions than its own has others wait for it, of whom there are none in the proofs' runs",
    ),
    _stepped(
        "_members:SUSPECT",
        f'condition {_SQL}put_back: ("partition", "offset") IN (SELECT "partition", "offset" FROM {{places}})',  # noqa: S608  # a name
        reason="one consumer has all partitions in the proofs' runs, and has attempted its suspects before it takes others",
    ),
    _stepped(
        "_groups:BACK_OFF",
        f"condition {_SQL}promote: due_us IS NULL",
        reason="an attempt that comes before its time is one of as many as before, and the proofs' runs do not look at a clock",
    ),
    _stepped(
        "_choices:CHOOSE",
        f"condition {_SQL}choose: log = :log",
        f"condition {_SQL}choose: grp = :grp",
        reason="the choice is changed by a run's first transaction, before which there is no moment to copy neighbours from",
    ),
    _stepped(
        "_choices:REPLAY_JOIN",
        f"condition {_SQL}choose: key_waits <> :key_waits",
        f"condition {_SQL}revive: q.dead = 0",
        reason="a later letter of a key is replayed before an earlier one, and then somebody joins: no run does that",
    ),
    _stepped(
        "_choices:FORGET_JOIN_AGAIN",
        f"condition {_SQL}joined: log = :log",
        f"condition {_SQL}joined: grp = :grp",
        reason="no group is forgotten in the proofs' runs",
    ),
    _stepped("_lost:BEGIN", f"split {_GUARD} | {_SQL}begin_attempt"),
    _stepped("_lost:LATER", f"split {_GUARD} | {_SQL}take_back_attempt"),
    _stepped("_lost:LATER_AT_ONCE", f"split {_SQL}begin_attempt | {_SQL}take_back_attempt"),
    _stepped("_groups:FORGET_JOIN", f"split {_SQL}join_group | engines.sqlite.claims._add"),
    _stepped("_choices:GIVE_UP", f"split {_SQL}hold | {_SQL}record_failure"),
    _stepped("_groups:PARK", f"statement {_SQL}hold", f"split {_SQL}hold | {_SQL}park"),
    _stepped("_groups:REPLAY_DISCARD", f"condition {_SQL}dead_letter: dead = 1"),
    # Two guards by design.
    Survivor(
        mutants=(f"split {_GUARD} | {_SQL}park",),
        reason="who was replaced behind the guard does not move the cursor from where its successor has moved it",
        twin=_MOVES,
    ),
    # What nobody could notice.
    Survivor(
        mutants=(
            f'condition {_SQL}let_keys_wait: q."partition" = faultproof_parked."partition"',
            f'condition {_SQL}revive: q."partition" = :partition',
        ),
        reason="a key is in one partition only; but the index begins with the partition",
    ),
    Survivor(
        mutants=(
            "constraint faultproof_inbox: NOT NULL",
            "constraint faultproof_parked: NOT NULL",
            'constraint faultproof_parked: PRIMARY KEY (log, grp, "partition", "offset")',
        ),
        reason="a second line of defence: typed parameters hold no NULL, and an event is parked in the transaction that moves "
        "the cursor past it, which happens once",
    ),
    Survivor(
        mutants=(f"early answer … {_SQL}take_back_attempt",),
        reason="nobody outside is told of it, and what the consumer does next is a transaction, which comes behind that commit",
    ),
    Survivor(
        mutants=(f"split {_SQL}hold | {_SQL}put_back", f"split {_SQL}put_back | {_SQL}begin_attempt"),
        reason="whether events that were not attempted after all come together again, or each alone, only costs transactions",
    ),
    Survivor(
        mutants=(
            f"split {_SQL}line | {_SQL}line",
            f"split {_SQL}hold | {_SQL}line",
            f"split {_SQL}line | {_SQL}take_together",
        ),
        reason="what has changed between reading and taking is not taken",
    ),
    Survivor(
        mutants=(
            f"split {_GUARD} | patterns.outbox.proof._insert_effect",
            f"split {_GUARD} | patterns.outbox.proof_dead_letters._insert_effect",
        ),
        reason="behind the handler the same transaction settles the event: who was replaced finds the cursor moved, or the "
        "parked event gone, or its lease over, and its effects are rolled back",
    ),
    Survivor(
        mutants=(f"split {_SQL}promote | engines.sqlite.claims._holders",),
        reason="what comes behind it only makes the lease longer",
    ),
)

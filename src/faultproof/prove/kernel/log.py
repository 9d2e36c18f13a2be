"""The log's proof: two writers, a sequencer, and a reader with a plain cursor, under crashes and frozen processes."""

from __future__ import annotations

from collections.abc import Mapping

from faultproof.prove.kernel import survivors
from faultproof.prove.kernel.log_places import (
    done,
    misled,
    wrong_at_any_moment,
    wrong_order,
    wrong_tokens,
)
from faultproof.prove.kernel.log_planted import READERS, SEQUENCERS, WRITERS
from faultproof.prove.kernel.log_workload import WRITES, Reader, Sequencer, Writer, prepare
from faultproof.prove.proof import (
    ANY_FAULT,
    Always,
    Eventually,
    Evidence,
    Main,
    Plant,
    Process,
    Proof,
    Sometimes,
    noted,
)


def _processes(plant: str | None) -> Mapping[str, Main]:
    name = plant or ""

    async def writer(process: Process) -> None:
        await WRITERS.get(name, Writer)(process).run()

    async def sequencer(process: Process) -> None:
        await SEQUENCERS.get(name, Sequencer)(process).run()

    async def reader(process: Process) -> None:
        await READERS.get(name, Reader)(process).run()

    return {**dict.fromkeys(WRITES, writer), "sequencer": sequencer, "reader": reader}


def _trimmed(evidence: Evidence) -> bool:
    return bool(evidence.fetch("SELECT 1 FROM faultproof_log_partition WHERE first_offset > 0 LIMIT 1"))


def _succeeded(evidence: Evidence) -> bool:
    return bool(evidence.fetch("SELECT 1 FROM moved a JOIN moved b ON a.token < b.token LIMIT 1"))


LOG = Proof(
    name="faultproof.prove.kernel.log:LOG",
    claim=(
        "At every moment each committed event, and no other, is in the intake or at one place in the log, for ever. "
        "Offsets are dense; a reader with a plain cursor sees each event once, per key in the order in which the writers "
        "locked the key's row; trimming behind it makes no hole; and a sequencer that was replaced moves nothing any more."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "each append follows the write that locks its key's business row, in the same transaction",
        "whoever sequences a partition guards its claim in the same transaction",
    ),
    not_tested=(
        "writers that commit in another order than they appended, and two snapshots: simulated SQLite has one of each",
        "a database that was restored from a backup: `begin_epoch`",
    ),
    prepare=prepare,
    processes=_processes,
    done=lambda evidence: done(evidence, set(WRITES)),
    always=(
        Always(
            claim="what is committed, and what somebody was told to be, is in one place, and offsets are dense",
            wrong=wrong_at_any_moment,
        ),
    ),
    eventually=(
        Eventually(claim="per key the reader saw the order of the versions of its row", wrong=wrong_order),
        Eventually(claim="nobody moves events after somebody with a later token", wrong=wrong_tokens),
        Eventually(claim="nobody is told of a log what is not so, or refused what he may", wrong=misled),
    ),
    sometimes=(
        Sometimes(claim="a sequencer takes a dead one's partitions over", happened=_succeeded),
        Sometimes(
            claim="a sequencer that was frozen is refused",
            happened=lambda evidence: bool(noted(evidence, "refused")),
        ),
        Sometimes(claim="the log is trimmed while it is written and read", happened=_trimmed),
    ),
    plants=(
        Plant(name="split write", breaks="row and event commit apart: a crash between loses the event"),
        Plant(
            name="appends apart",
            breaks="the event is appended in a transaction of its own: the row is rolled back without it",
        ),
        Plant(name="no key", breaks="events of one item go through several partitions and lose their order"),
        Plant(name="no guard", breaks="a frozen sequencer that wakes up moves events beside its successor"),
        Plant(
            name="guard apart", breaks="the token is asked for in an earlier transaction: it may have been lost since"
        ),
        Plant(name="cursor late", breaks="the cursor commits after what was seen: a crash between shows it twice"),
        Plant(name="cursor early", breaks="the cursor commits before what was seen: a crash between skips it"),
        Plant(name="trims ahead", breaks="the log is trimmed before the reader has seen it"),
        Plant(name="trims by hand", breaks="rows are deleted, and nobody says where the log begins now: a hole"),
    ),
    survivors=survivors.LOG,
    answers_for=("engines.sqlite.log.", "primitives.install."),
)

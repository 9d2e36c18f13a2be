"""What must hold always is looked at after every commit that finds other evidence than the last look did."""

from dataclasses import replace

from faultproof.ports.database import Database
from faultproof.prove.proof import Always, Evidence, Process, noted
from faultproof.prove.simulated.explore import Explorer
from faultproof.prove.simulated.tape import Tape
from tests.cli.little_proofs import HELD


async def _prepare(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE paid (invoice TEXT)")


async def _commit(process: Process, *texts: str) -> None:
    async with process.database().transaction() as tx:
        for text in texts:
            await tx.execute(text)


async def _clerk(process: Process) -> None:
    await _commit(process)
    await _commit(process, "DELETE FROM paid")
    process.note("told")
    await _commit(process)
    await process.outside("send", lambda post: post.update(sent=True))
    await _commit(process)
    await _commit(process)
    await _commit(process, "INSERT INTO paid VALUES ('i-1')")
    await _commit(process, "CREATE TABLE refund (invoice TEXT)")
    await _commit(process)
    process.note("finished", process.name)


def test_whatever_is_new_is_looked_at_once():
    looks = list[tuple[int, bool, int, int]]()

    def look(evidence: Evidence) -> list[str]:
        ((rows,),) = evidence.fetch("SELECT count(*) FROM paid")
        ((tables,),) = evidence.fetch("SELECT count(*) FROM sqlite_schema")
        looks.append((len(evidence.notes), bool(evidence.outside), rows, tables))
        return []

    proof = replace(
        HELD,
        prepare=_prepare,
        processes=lambda plant: {"clerk": _clerk},
        always=(Always(claim="all is seen", wrong=look),),
        eventually=(),
        done=lambda evidence: bool(noted(evidence, "finished")),
    )
    explorer = Explorer(proof)
    for _ in range(2):  # what one run has seen is new to the next
        looks.clear()
        assert explorer.run(Tape(), faults_max=0)[1] == []
        assert looks == [
            (0, False, 0, 1),
            (1, False, 0, 1),
            (1, True, 0, 1),
            (1, True, 1, 1),
            (1, True, 1, 2),
        ]

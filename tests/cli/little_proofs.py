"""Proofs that take no time, and ways for a proof to go wrong; `faultproof prove tests.cli.little_proofs:NAME`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.prove.proof import Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

NAME = "tests.cli.little_proofs:"


@sql("INSERT INTO mark (n) SELECT :n WHERE NOT EXISTS (SELECT 1 FROM mark WHERE n = :n)")
def _mark_once(n: int) -> None: ...


@sql("INSERT INTO mark (n) VALUES (:n)")
def _mark(n: int) -> None: ...


async def _prepare(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE mark (n INTEGER)")


def _processes(plant: str | None) -> dict[str, Main]:
    """One process makes two marks, in a transaction each, and begins again when it is started again."""
    mark: Callable[[int], Script[None]] = _mark if plant == "marks blindly" else _mark_once

    async def main(process: Process) -> None:
        database = process.database()
        for n in (1, 2):
            await database.transact(mark(n))
        process.note("finished", process.name)

    return {"marker": main}


def _asks_when_started_again(plant: str | None) -> dict[str, Main]:
    marks = _processes(plant)["marker"]

    async def main(process: Process) -> None:
        if process.incarnation:
            await process.outside("ask", lambda record: None)
        await marks(process)

    return {"marker": main}


def _wrong_marks(evidence: Evidence) -> list[str]:
    marks = [n for (n,) in evidence.fetch("SELECT n FROM mark ORDER BY n")]
    return [] if marks == [1, 2] else [f"the marks are {marks}, not [1, 2]"]


def _looks_at_the_clock(plant: str | None) -> dict[str, Main]:
    time.time()
    return {}


def _dies(plant: str | None) -> dict[str, Main]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def _hangs(plant: str | None) -> dict[str, Main]:
    os.write(int(os.environ["HANGING"]), b"!")
    while True:
        signal.pause()


async def _fails(database: Database) -> None:
    raise ZeroDivisionError("no tables today")


HELD = Proof(
    name=NAME + "HELD",
    claim="Each mark is made once.",
    faults=("the process dies, or freezes, anywhere",),
    assumptions=("what was committed stays",),
    not_tested=("more than two marks",),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(Eventually(claim="there are two marks", wrong=_wrong_marks),),
    sometimes=(Sometimes(claim="the marker finishes", happened=lambda evidence: bool(noted(evidence, "finished"))),),
    plants=(Plant(name="marks blindly", breaks="a mark whose answer was lost is made again"),),
)
VIOLATED = replace(HELD, name=NAME + "VIOLATED", processes=lambda plant: _processes("marks blindly"))
LONG_WINDED = replace(
    VIOLATED,
    name=NAME + "LONG_WINDED",
    claim="Each mark is made once, and nobody could say in fewer words than these what is meant by it. " * 10,
    eventually=tuple(
        Eventually(claim=f"there are two marks, {n} times", wrong=lambda evidence: _wrong_marks(evidence) * 5)
        for n in range(5)
    ),
)
BLIND = replace(HELD, name=NAME + "BLIND", plants=(Plant(name="harmless", breaks="nothing that anybody looks at"),))
VACUOUS = replace(
    HELD,
    name=NAME + "VACUOUS",
    processes=lambda plant: {},
    done=lambda evidence: True,
    eventually=(),
    sometimes=(),
    plants=(),
)
"""Nothing runs, so that nothing can be struck."""
DULL = replace(
    HELD, name=NAME + "DULL", sometimes=(Sometimes(claim="pigs fly", happened=lambda evidence: False),), plants=()
)
"""What was to be interesting never happens."""
LATELY = replace(HELD, name=NAME + "LATELY", processes=_asks_when_started_again, sometimes=(), plants=())
"""It asks somebody outside once it has been struck: what happens to requests cannot be the first fault of a run."""
UNNOTICED = replace(HELD, name=NAME + "UNNOTICED", eventually=(), plants=())
"""Whatever is wrong, nobody looks."""
FAILING = replace(HELD, name=NAME + "FAILING", prepare=_fails)
ESCAPING = replace(HELD, name=NAME + "ESCAPING", processes=_looks_at_the_clock)
DYING = replace(HELD, name=NAME + "DYING", processes=_dies)
HANGING = replace(HELD, name=NAME + "HANGING", processes=_hangs)
MISNAMED = replace(HELD, name="elsewhere:HELD")

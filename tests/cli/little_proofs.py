"""Proofs that take no time, and ways for a proof to go wrong; `faultproof prove tests.cli.little_proofs:NAME`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.prove.proof import Plant, Proof
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.world import World

NAME = "tests.cli.little_proofs:"


@sql("INSERT INTO mark (n) SELECT :n WHERE NOT EXISTS (SELECT 1 FROM mark WHERE n = :n)")
def _mark_once(n: int) -> None: ...


@sql("INSERT INTO mark (n) VALUES (:n)")
def _mark(n: int) -> None: ...


async def _prepare(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE mark (n INTEGER)")


class _Marks:
    """One process makes two marks, in a transaction each, and begins again when it is started again."""

    def __init__(self, world: World, plant: str | None) -> None:
        self._world = world
        self._mark: Callable[[int], Script[None]] = _mark if plant == "marks blindly" else _mark_once
        self._done = False
        world.spawn("marker", self._main)

    async def _main(self, process: Process) -> None:
        database = process.database()
        for n in (1, 2):
            await database.transact(self._mark(n))
        self._done = True

    def done(self) -> bool:
        return self._done

    def violations(self) -> list[str]:
        marks = [n for (n,) in self._world.store.fetch("SELECT n FROM mark ORDER BY n")]
        return [] if marks == [1, 2] else [f"the marks are {marks}, not [1, 2]"]


class _Nothing(_Marks):
    """Nothing runs, so that nothing can be struck."""

    def __init__(self, world: World, plant: str | None) -> None: ...

    def done(self) -> bool:
        return True

    def violations(self) -> list[str]:
        return []


def _looks_at_the_clock(world: World, plant: str | None) -> _Marks:
    time.time()
    return _Marks(world, plant)


def _dies(world: World, plant: str | None) -> _Marks:
    os.kill(os.getpid(), signal.SIGKILL)
    return _Marks(world, plant)


def _hangs(world: World, plant: str | None) -> _Marks:
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
    start=_Marks,
    plants=(Plant(name="marks blindly", breaks="a mark whose answer was lost is made again"),),
)
VIOLATED = replace(HELD, name=NAME + "VIOLATED", start=lambda world, plant: _Marks(world, "marks blindly"))
BLIND = replace(HELD, name=NAME + "BLIND", plants=(Plant(name="harmless", breaks="nothing that anybody looks at"),))
VACUOUS = replace(HELD, name=NAME + "VACUOUS", start=_Nothing, plants=())
FAILING = replace(HELD, name=NAME + "FAILING", prepare=_fails)
ESCAPING = replace(HELD, name=NAME + "ESCAPING", start=_looks_at_the_clock)
DYING = replace(HELD, name=NAME + "DYING", start=_dies)
HANGING = replace(HELD, name=NAME + "HANGING", start=_hangs)
MISNAMED = replace(HELD, name="elsewhere:HELD")

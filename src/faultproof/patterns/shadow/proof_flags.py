"""The proof of flags: a change reaches every process, in order, and nothing that was never said holds anywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress

from faultproof.errors import FaultproofError
from faultproof.ports.database import Database, Transaction
from faultproof.primitives.flag_table import FlagTable
from faultproof.primitives.flags import Flags
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

VERSIONS = tuple(f"v{number}" for number in range(5))
LAST = VERSIONS[-1]
NONSENSE = "nonsense"
SERVICES = ("service-1", "service-2")
LOOK_S = 2.0
LOOKS_MAX = 1_000

ONLY_LISTENS, FORGETS, TAKES_ALL, ENDS = "only listens", "forgets at an error", "takes anything", "ends at an error"


async def _prepare(database: Database) -> None:
    await FlagTable(database).install()


class _Deaf(FlagTable):
    """It never looks by itself."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, look=86_400.0)


class _Forgets(Flags):
    def _tell(self, errors: tuple[str, ...]) -> None:
        super()._tell(errors)
        if errors:
            self["page"].set(VERSIONS[0])


class _TakesAll(Flags):
    def _apply(self, said: Mapping[str, object]) -> list[str]:
        wrong = super()._apply(said)
        if wrong:
            self["page"].value = str(said["page"])
            for listener in list(self["page"]._listeners.values()):
                listener()
        return wrong


class _Ends(Flags):
    def _tell(self, errors: tuple[str, ...]) -> None:
        super()._tell(errors)
        if errors:
            raise asyncio.CancelledError


_BROKEN: dict[str, type[Flags]] = {FORGETS: _Forgets, TAKES_ALL: _TakesAll, ENDS: _Ends}


def _processes(plant: str | None) -> dict[str, Main]:
    async def operator(process: Process) -> None:
        database = process.database()
        table = FlagTable(database)
        for number in range(1, len(VERSIONS)):
            if number == 3:
                await _mistype(database)  # somebody's hand, that tells nobody
                await process.env.clock.sleep(1.5 * LOOK_S)
            async with database.transaction() as tx:  # another operator may have said more by now
                if await _reached(tx) < number:
                    await table.set("page", VERSIONS[number], tx=tx)
            await process.env.clock.sleep(0.1)
        process.note("finished", process.name)

    async def service(process: Process) -> None:
        database = process.database()
        table = _Deaf(database) if plant == ONLY_LISTENS else FlagTable(database, look=LOOK_S)
        flags = _BROKEN.get(plant or "", Flags)({"page": VERSIONS}, table, env=process.env)
        with suppress(FaultproofError):
            await _follow(process, flags)

    return {"operator": operator, **dict.fromkeys(SERVICES, service)}


async def _reached(tx: Transaction) -> int:
    """The number of the version that was said last."""
    rows = await tx.fetch("SELECT value FROM faultproof_flag")
    said = json.loads(rows[0][0]) if rows else VERSIONS[0]
    return 2 if said == NONSENSE else VERSIONS.index(said)


async def _mistype(database: Database) -> None:
    async with database.transaction() as tx:
        if await _reached(tx) == 2:
            await tx.execute("UPDATE faultproof_flag SET value = ?", json.dumps(NONSENSE))


async def _follow(process: Process, flags: Flags) -> None:
    while True:
        with suppress(FaultproofError):  # at the start what is wrong is an error, and whoever starts it tries again
            await flags.open()
            break
        await process.env.clock.sleep(0.05)
    flag = flags["page"]

    def tell() -> None:
        process.note("saw", process.env.process, flag.value)

    tell()
    flag.subscribe(tell)
    is_told = False
    for _ in range(LOOKS_MAX):
        if flag.value == LAST:
            break
        if flags.errors and not is_told:
            is_told = True
            process.note("told", process.name)
        await process.env.clock.sleep(0.05)
    await flags.close()
    process.note("finished", process.name)


def _wrong(evidence: Evidence) -> list[str]:
    last: dict[str, int] = {}
    wrong = []
    for kind, *facts in evidence.notes:
        if kind != "saw":
            continue
        process, value = facts
        if value not in VERSIONS:
            wrong.append(f"{value!r} held in {process}")
            continue
        number = VERSIONS.index(value)
        if number < last.get(process, 0):
            wrong.append(f"{process} went back from v{last[process]} to {value}")
        last[process] = number
    return wrong


def _not_seen(evidence: Evidence) -> list[str]:
    """The last word of every process that lived to hear it."""
    heard = {note[1].partition(".")[0] for note in evidence.notes if note[0] == "saw" and note[2] == LAST}
    return [f"{name} never heard of {LAST}" for name in SERVICES if name not in heard]


FLAGS = Proof(
    name="faultproof.patterns.shadow.proof:FLAGS",
    claim=(
        "Every process that follows flags in a table comes to hold what was said last, in the order in which it was said, "
        "and never what a flag cannot be, or what holds before anything was said, because something could not be read."
    ),
    faults=ANY_FAULT,
    assumptions=("the database can be read again some time",),
    not_tested=("flags in a file: tests have two real processes follow one",),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: noted(evidence, "finished") >= {"operator", *SERVICES},
    eventually=(
        Eventually(claim="nothing holds that was not said, and nothing goes back", wrong=_wrong),
        Eventually(claim="what was said last holds everywhere", wrong=_not_seen),
    ),
    sometimes=(
        Sometimes(claim="what a flag cannot be is told", happened=lambda evidence: bool(noted(evidence, "told"))),
        Sometimes(
            claim="a process hears of several changes",
            happened=lambda evidence: len({note[2] for note in evidence.notes if note[0] == "saw"}) > 2,
        ),
    ),
    plants=(
        Plant(name=ONLY_LISTENS, breaks="whoever misses the news of a change never hears of it"),
        Plant(name=FORGETS, breaks="an error turns a flag back to what was declared"),
        Plant(name=TAKES_ALL, breaks="what somebody mistyped holds"),
        Plant(name=ENDS, breaks="after the first error nobody looks any more"),
    ),
)

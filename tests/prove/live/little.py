"""A little proof for the live world: a cashier who charges invoices, and a worker with a lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from faultproof.errors import LeaseLost
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.prove.proof import Always, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

INVOICES = ("i-1", "i-2")
TTL_US = 400_000


@sql("INSERT INTO paid (invoice) VALUES (:invoice) ON CONFLICT (invoice) DO NOTHING RETURNING invoice")
def _mark(invoice: str) -> str | None: ...


@sql("UPDATE account SET balance = balance + 100")
def _book() -> None: ...


@sql("INSERT INTO effect (owner) VALUES (:owner)")
def _effect(owner: str) -> None: ...


def _pay(invoice: str) -> Script[None]:
    if (yield from _mark(invoice)) is not None:
        yield from _book()


async def _prepare(database: Database) -> None:
    await database.install(database.claims.schema)
    await database.transact(database.claims.add("job", ["j-1"]))
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE paid (invoice TEXT PRIMARY KEY)")
        await tx.execute("CREATE TABLE account AS SELECT 0 AS balance")
        await tx.execute("CREATE TABLE effect (owner TEXT)")


def _charge(invoice: str, bank: dict[str, Any]) -> None:
    bank[invoice] = bank.get(invoice, 0) + 1


def _charge_once(invoice: str, bank: dict[str, Any]) -> None:
    bank[invoice] = 1


async def _cashier(plant: str | None, process: Process) -> None:
    database = process.database()
    for invoice in INVOICES:
        await process.outside("charge", partial(_charge if plant == "charges blindly" else _charge_once, invoice))
        if plant == "two transactions":
            if await database.transact(_mark(invoice)) is not None:
                await database.transact(_book())
        else:
            await database.transact(lambda invoice=invoice: _pay(invoice))  # type: ignore[misc]
        process.note("receipt", invoice)
    process.note("finished", process.name)


async def _worker(plant: str | None, process: Process) -> None:
    database = process.database()
    claims, owner = database.claims, process.env.process
    while await database.read(claims.holders("job")):
        taken = await database.transact(lambda: claims.take("job", owner, ttl_us=TTL_US, limit=1))
        if not taken:
            await process.env.clock.sleep(0.05)
            continue

        def work() -> Script[None]:
            if plant != "no guard":
                yield from claims.guard("job", taken)  # noqa: B023  # run at once
            yield from _effect(owner)

        def finish() -> Script[None]:
            if plant == "no guard":
                yield from claims.remove("job")
            else:
                yield from claims.finish("job", taken)  # noqa: B023  # run at once

        def both() -> Script[None]:
            yield from work()
            yield from finish()

        try:
            await database.transact(both)
        except LeaseLost:
            process.note("lost", owner)
    process.note("finished", process.name)


def _processes(plant: str | None) -> Mapping[str, Main]:
    return {"cashier": partial(_cashier, plant), "worker": partial(_worker, plant)}


def _done(evidence: Evidence) -> bool:
    return noted(evidence, "finished") >= {"cashier", "worker"}


def _wrong_books(evidence: Evidence) -> list[str]:
    ((balance,),), paid = evidence.fetch("SELECT balance FROM account"), evidence.fetch("SELECT invoice FROM paid")
    return [] if balance == 100 * len(paid) else [f"{len(paid)} invoices are paid, and the balance is {balance}"]


def _wrong_charges(evidence: Evidence) -> list[str]:
    return [f"{invoice} was charged {times} times" for invoice, times in evidence.outside.items() if times != 1]


def _wrong_effects(evidence: Evidence) -> list[str]:
    effects = evidence.fetch("SELECT owner FROM effect")
    return [] if len(effects) == 1 else [f"the job was done by {sorted(effects)}"]


LITTLE = Proof(
    name="tests.prove.live.little:LITTLE",
    claim="Each invoice is charged and booked once, and the job is done once.",
    faults=("a process dies or is stopped anywhere",),
    assumptions=("what was committed stays",),
    not_tested=("more than one job",),
    prepare=_prepare,
    processes=_processes,
    done=_done,
    always=(),
    eventually=(
        Eventually(claim="what is paid is booked", wrong=_wrong_books),
        Eventually(claim="each invoice is charged once", wrong=_wrong_charges),
        Eventually(claim="the job is done once", wrong=_wrong_effects),
    ),
    sometimes=(Sometimes(claim="receipts are given", happened=lambda evidence: bool(noted(evidence, "receipt"))),),
    plants=(
        Plant(name="two transactions", breaks="a crash between marks the invoice and never books it"),
        Plant(name="charges blindly", breaks="a charge whose answer was lost is made again"),
        Plant(name="no guard", breaks="a worker that was stopped wakes up and does the job again"),
    ),
)
BROKEN_ALWAYS = replace(
    LITTLE,
    name="tests.prove.live.little:BROKEN_ALWAYS",
    always=(Always(claim="the job is done all the time", wrong=_wrong_effects),),
)


def _not_done_after_a_crash(evidence: Evidence) -> bool:
    return _done(evidence) and sum(note[0] == "receipt" for note in evidence.notes) == len(INVOICES)


NEVER_DONE = replace(LITTLE, name="tests.prove.live.little:NEVER_DONE", done=_not_done_after_a_crash)

"""A small proof with something of everything that can be left out, and one guard that is doubled."""

from __future__ import annotations

from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.ports.statement import Changed
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Process, Proof, noted

INVOICES = {"i-1": 100, "i-2": 100, "i-3": 150}
"""With their amounts: the last is more than the account may take."""
MOST = 200


@sql("INSERT INTO paid (shop, invoice) VALUES (:shop, :invoice) ON CONFLICT (shop, invoice) DO NOTHING")
def mark(shop: str, invoice: str) -> Changed: ...


@sql("SELECT balance FROM account WHERE shop = :shop")
def balance(shop: str) -> int: ...


@sql("UPDATE account SET balance = balance + :amount WHERE shop = :shop AND balance + :amount <= :most")
def book(shop: str, amount: int, most: int) -> None: ...


def pay(invoice: str) -> Script[int]:
    """Once; and no account gets more than it may have. What the balance was before."""
    before = 0
    if (yield from mark("s", invoice)):
        before = yield from balance("s")
        if before + INVOICES[invoice] <= MOST:
            yield from book("s", INVOICES[invoice], MOST)
    return before


async def _prepare(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE paid (shop TEXT, invoice TEXT, PRIMARY KEY (shop, invoice))")
        await tx.execute(
            "CREATE TABLE account (shop TEXT, name TEXT, balance INTEGER NOT NULL, PRIMARY KEY (shop, name))"
        )
        await tx.execute("INSERT INTO account (shop, name, balance) VALUES ('s', 'main', 0)")


async def _cashier(process: Process) -> None:
    for invoice in INVOICES:
        if invoice not in await process.outside("look at receipts", lambda drawer: dict(drawer)):
            process.note("read", await process.database().transact(pay(invoice)))
            await process.outside("give a receipt", lambda drawer, invoice=invoice: drawer.update({invoice: True}))
    process.note("finished", process.name)


def _wrong(evidence: Evidence) -> list[str]:
    marked = sorted(invoice for (invoice,) in evidence.fetch("SELECT invoice FROM paid"))
    ((total,),) = evidence.fetch("SELECT sum(balance) FROM account")
    wrong = [] if marked == [*INVOICES] else [f"marked are {marked}"]
    return wrong if total == MOST else [*wrong, f"{total} was booked"]


CASHIERS = ("cashier-1", "cashier-2")

PAYING = Proof(
    name="tests.prove.paying:PAYING",
    claim="An invoice that has a receipt is marked, once, and booked as far as the account may be filled.",
    faults=ANY_FAULT,
    assumptions=("what was committed stays",),
    not_tested=("more than three invoices",),
    prepare=_prepare,
    processes=lambda plant: dict.fromkeys(CASHIERS, _cashier),
    done=lambda evidence: noted(evidence, "finished") == set(CASHIERS),
    eventually=(Eventually(claim="what has a receipt is marked once, and 200 are booked", wrong=_wrong),),
    sometimes=(),
)

"""The outbox's proof: three producers, a sequencer and a consumer with inbox, under crashes and frozen processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from faultproof.patterns.outbox.events import Event
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.outbox import Outbox, OutboxOptions
from faultproof.patterns.outbox.proof_dead_letters import DEAD_LETTERS, KEYS_GO_ON
from faultproof.patterns.outbox.proof_planted import plant_in
from faultproof.patterns.outbox.proof_relay import RELAY
from faultproof.patterns.outbox.proof_survivors import SURVIVORS
from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import Inline, Script, sql
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

__all__ = ["DEAD_LETTERS", "KEYS_GO_ON", "OUTBOX", "POISON", "RELAY"]

TTL_S = 0.5
ORDERS = {"api-1": ("a", "d"), "api-2": ("d", "a"), "api-3": ("a",)}
"""Producer -> the item of each of its orders: two hot keys, in two partitions. More of the same would only cost time."""
POISONED = ("a", "d", "a", "a")
FAILURES = {("a", 1): 1, ("a", 3): 1}
"""In the proof of poison: the items of the orders, which are placed and in the log before it begins (how they come there is the
other proof's); the events whose handler fails, and at how many of its first attempts. The third waits behind the first
together with the second, and so is delivered in one transaction with it."""


class Ordered(msgspec.Struct, frozen=True):
    """An order was placed; `version` is that of the item's row, written in the same transaction."""

    order: str
    item: str
    version: int


@sql("INSERT INTO orders (id, item) VALUES (:id, :item) ON CONFLICT (id) DO NOTHING RETURNING id")
def _insert_order(id: str, item: str) -> str | None: ...


@sql(
    """INSERT INTO item (name, version) VALUES (:name, 1)
       ON CONFLICT (name) DO UPDATE SET version = item.version + 1 RETURNING version"""
)
def _bump(name: str) -> int: ...


def _outbox(database: Database) -> Outbox:
    return Outbox(database, events={"ordered": Ordered}, options=OutboxOptions(partitions=2))


async def _prepare(database: Database) -> None:
    await _outbox(database).install()
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, item TEXT)")
        await tx.execute("CREATE TABLE item (name TEXT PRIMARY KEY, version INTEGER)")
        await tx.execute("CREATE TABLE effect (item TEXT, version INTEGER, n INTEGER)")


async def _prepare_poisoned(database: Database) -> None:
    await _prepare(database)
    outbox, workload = _outbox(database), _Workload()
    async with database.transaction() as tx:
        for number, item in enumerate(POISONED):
            await tx.run(workload.place(outbox, str(number), item))
        await tx.run(database.logs.sequence(outbox.name, [0, 1], limit=len(POISONED), moved=lambda count: None))


@sql(
    """INSERT INTO effect (item, version, n)
       SELECT :item, :version, (SELECT count(*) FROM effect)"""
)
def _insert_effect(item: str, version: int) -> None: ...


class _Workload:
    """Producers place orders, a sequencer moves their events, the consumer writes each event's effect."""

    def __init__(self, plant: str | None = None, failures: Mapping[tuple[str, int], int] | None = None) -> None:
        self._plant = plant
        self._failures = failures or {}

    def processes(self) -> dict[str, Main]:
        """By name."""
        producers = {name: self._producer(items) for name, items in ORDERS.items()}
        return {**producers, "sequencer": self._sequencer, "consumer": self.consumer}

    def _producer(self, items: Sequence[str]) -> Main:
        async def main(process: Process) -> None:
            database = process.database()
            outbox = _outbox(database)
            for number, item in enumerate(items):
                id = f"{process.name}/{number}"
                if self._plant == "split transaction":
                    version = await database.transact(_business(id, item))
                    if version is not None:
                        await outbox.publish(Ordered(id, item, version), key=item)
                else:
                    await database.transact(self.place(outbox, id, item))
                process.note("accepted", id)
            process.note("finished", process.name)

        return main

    def place(self, outbox: Outbox, id: str, item: str) -> Script[None]:
        """An order, and its event."""
        version = yield from _business(id, item)
        if version is not None:
            key = None if self._plant == "no key" else item
            yield from outbox.publish(Ordered(id, item, version), key=key, tx=Inline())

    async def _sequencer(self, process: Process) -> None:
        await Worker(process.env, _outbox(process.database()).sequencer(ttl=TTL_S)).run()

    async def consumer(self, process: Process) -> None:
        """Alone it has enough to do in the proof of poison."""
        failures = dict(self._failures)

        async def effect(event: Event[Ordered], tx: Transaction) -> None:
            body = event.body
            if failures.get((body.item, body.version)):
                failures[body.item, body.version] -= 1
                process.note("failed", body.item, body.version)
                raise ValueError("not yet")
            await tx.run(_insert_effect(body.item, body.version))

        outbox = _outbox(process.database())
        consumer = outbox.consumer("summary", effect, ConsumerOptions(ttl=TTL_S, backoff=0.1, timeout=0.5, attempts=20))
        plant_in(consumer, self._plant)
        await Worker(process.env, consumer).run()


def _business(id: str, item: str) -> Script[int | None]:
    """Placing an order again changes nothing: a client that got no answer asks again."""
    if (yield from _insert_order(id, item)) is None:
        return None
    return (yield from _bump(item))


# -- the verdict ----------------------------------------------------------------------------------------------------


def _settled(evidence: Evidence) -> bool:
    """Nothing is under way."""
    return not evidence.fetch(
        """SELECT 1 FROM faultproof_intake UNION ALL SELECT 1 FROM faultproof_parked UNION ALL
           SELECT 1 FROM faultproof_log_partition p LEFT JOIN faultproof_inbox i
             ON i.log = p.log AND i."partition" = p."partition"
           WHERE p.next_offset > coalesce(i.next_offset, 0) LIMIT 1"""
    )


def _done(evidence: Evidence) -> bool:
    """And everybody has said so."""
    return noted(evidence, "finished") >= ORDERS.keys() and _settled(evidence)


def _stream(evidence: Evidence) -> list[Ordered]:
    payloads = evidence.fetch('SELECT payload FROM faultproof_log ORDER BY "partition", "offset"')
    return [msgspec.json.decode(payload, type=Ordered) for (payload,) in payloads]


def _wrong_stream(evidence: Evidence) -> list[str]:
    orders = {id for (id,) in evidence.fetch("SELECT id FROM orders")}
    wrong = [f"order {id} was accepted and is not there" for id in sorted(noted(evidence, "accepted") - orders)]
    published = sorted(event.order for event in _stream(evidence))
    if published != sorted(orders):
        wrong.append(f"the stream has {published}, committed were {sorted(orders)}")
    return wrong


def _wrong_versions(evidence: Evidence) -> list[str]:
    stream: dict[str, list[int]] = defaultdict(list)
    for event in _stream(evidence):
        stream[event.item].append(event.version)
    effects: dict[str, list[int]] = defaultdict(list)
    for item, version in evidence.fetch("SELECT item, version FROM effect ORDER BY item, n"):
        effects[item].append(version)
    wrong = []
    last = dict(evidence.fetch("SELECT name, version FROM item"))
    for item in sorted(last.keys() | stream.keys() | effects.keys()):
        expected = list(range(1, last.get(item, 0) + 1))
        if stream[item] != expected:
            wrong.append(f"the stream of {item} has the versions {stream[item]}, not {expected}")
        if effects[item] != expected:
            wrong.append(f"the effects on {item} have the versions {effects[item]}, not {expected}")
    return wrong


EVENTUALLY = (
    Eventually(claim="the stream has the event of every committed order, once, and no other", wrong=_wrong_stream),
    Eventually(claim="stream and effects follow the versions of each item's row", wrong=_wrong_versions),
)


def _taken_over(evidence: Evidence) -> bool:
    return bool(evidence.fetch("SELECT 1 FROM faultproof_claim WHERE token > 1 LIMIT 1"))


OUTBOX = Proof(
    name="faultproof.patterns.outbox.proof:OUTBOX",
    claim=(
        "Every committed order has its event in the stream once, and no other is there; per item the stream and the "
        "consumer's effects follow the versions of the item's row without a gap, a repetition or a swap."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "each publication follows the write that locks its key's business row, in the same transaction",
        "the consumer's effects go through the transaction it is given",
    ),
    not_tested=("two writers at the same time, and two snapshots: simulated SQLite has one of each",),
    prepare=_prepare,
    processes=lambda plant: _Workload(plant).processes(),
    done=_done,
    eventually=EVENTUALLY,
    sometimes=(Sometimes(claim="another process takes a dead one's partition over", happened=_taken_over),),
    plants=(
        Plant(name="split transaction", breaks="order and event commit apart: a crash between loses the event"),
        Plant(
            name="missing inbox row", breaks="effects and progress commit apart: a crash between repeats the effects"
        ),
        Plant(name="early acknowledgement", breaks="progress commits before the effects: a crash between loses them"),
        Plant(name="dropped fence", breaks="a frozen consumer that wakes up repeats what its successor has done"),
        Plant(name="no key", breaks="events of one item go through several partitions and lose their order"),
    ),
    survivors=SURVIVORS,
)

POISON = Proof(
    name="faultproof.patterns.outbox.proof:POISON",
    claim=(
        "An event whose handler fails is attempted again, and later events of its key wait for it: per item the effects "
        "follow the versions of the item's row, once each, whatever crashes meanwhile; other keys go on."
    ),
    faults=OUTBOX.faults,
    assumptions=(*OUTBOX.assumptions, "the handler succeeds before its attempts are used up"),
    not_tested=OUTBOX.not_tested,
    prepare=_prepare_poisoned,
    processes=lambda plant: {"consumer": _Workload(plant, FAILURES).consumer},
    done=_settled,
    eventually=EVENTUALLY,
    sometimes=(
        *OUTBOX.sometimes,
        Sometimes(claim="an event's handler fails", happened=lambda evidence: bool(noted(evidence, "failed"))),
    ),
    plants=(
        Plant(name="overtaking", breaks="a later event of the key is delivered while the failed one waits"),
        Plant(
            name="settled apart",
            breaks="effects of events that waited, and that they are settled, commit apart: a crash between repeats them",
        ),
        Plant(
            name="settled as taken",
            breaks="an event that fails among those that waited is settled with them: it is lost",
        ),
    ),
)

"""The outbox's proof of a relay: what it has told the outside cannot be taken back, so that what it tells must be true, and
what it must know afterwards be written down before.

When it begins, much is parked: letters that are dead already, two events that were set aside because processes died when they
were next, and four behind one of these, which are handed over together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from faultproof.clock import Env
from faultproof.patterns.outbox.attempts import Attempts
from faultproof.patterns.outbox.consumer import Consumer
from faultproof.patterns.outbox.events import Event
from faultproof.patterns.outbox.handling import Poisoned
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.outbox import Outbox, OutboxOptions
from faultproof.patterns.outbox.poison import Parking, Verdict
from faultproof.patterns.outbox.relay import Relay
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Record
from faultproof.ports.script import Script
from faultproof.primitives.around import Around
from faultproof.primitives.worker import Worker
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
from faultproof.signals import DEAD_LETTER, Attributes, Signal, Signals

GROUP = "receiver"
OPTIONS = ConsumerOptions(attempts=1, backoff=0.1, timeout=0.5, ttl=1.0, on_poison="key goes on")
PATIENCE = 50
"""How often a process is handed one event until somebody gives up waiting for an end of it."""
SUSPECTED = "processes died when it was next"

LETTERS = tuple(f"{key}0" for key in "xefgklmnop")
"""Dead when the proof begins."""
ASIDE = ("a1", "-1")
"""Their attempts are counted before they are made. The second one has no key, as all that are called `-`."""
BEHIND = ("a2", "a3", "a4", "a5")
NEW = ("x1",)
"""Has not been read, and comes behind a letter of its key."""
BROKEN = ("a3", "-1", "x1")
"""The sink fails on these."""


class Numbered(msgspec.Struct, frozen=True):
    """The first, second … event of its key."""

    name: str


class _Heard(Around):
    """A database whose signals somebody listens to."""

    def __init__(self, inner: Database, signals: Signals) -> None:
        super().__init__(inner)
        self._signals = signals

    @property
    def env(self) -> Env:
        return replace(super().env, signals=self._signals)


def _outbox(database: Database) -> Outbox:
    return Outbox(database, events={"numbered": Numbered}, options=OutboxOptions(partitions=2))


async def _prepare(database: Database) -> None:
    outbox = _outbox(database)
    await outbox.install()
    read = (*LETTERS, *ASIDE, *BEHIND)
    await _publish(outbox, database, read)
    consumer = outbox.relay(GROUP, _never, OPTIONS)
    news = await consumer.open()
    news.close()
    records = await database.read(database.logs.read(outbox.name, [Cursor(0, 0), Cursor(1, 0)], limit=len(read)))
    parking = Parking(outbox.name, GROUP)

    def parked() -> Script[None]:
        for record in records:
            if _name(record.payload) in LETTERS:
                yield from parking.failed(record, Verdict(None), "it was broken")
        yield from parking.aside(_of(records, ASIDE), error=SUSPECTED)
        yield from parking.aside(_of(records, BEHIND))

    await database.transact(lambda: consumer._membership.past(records, parked()))
    await _publish(outbox, database, NEW)


async def _never(event: Event[Numbered]) -> None:
    raise AssertionError(f"{event.body.name} is handed over before the proof begins")


async def _publish(outbox: Outbox, database: Database, names: Sequence[str]) -> None:
    async with database.transaction() as tx:
        for name in names:
            await outbox.publish(Numbered(name), key=None if name[0] == "-" else name[0], tx=tx)
        await tx.run(database.logs.sequence(outbox.name, [0, 1], limit=len(names), moved=lambda count: None))


def _of(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    return [record for record in records if _name(record.payload) in names]


def _name(payload: str) -> str:
    return msgspec.json.decode(payload, type=Numbered).name


# -- the workload -----------------------------------------------------------------------------------------------------------


def _processes(plant: str | None) -> dict[str, Main]:
    async def relay(process: Process) -> None:
        def told(signal: Signal, value: float, attributes: Attributes) -> None:
            if signal is DEAD_LETTER:
                process.note("given up", value)

        times = Counter[str]()

        async def sink(event: Event[Numbered]) -> None:
            process.note("handed over", event.body.name)
            times[event.body.name] += 1
            if times[event.body.name] > PATIENCE:
                process.note("in vain", event.body.name)
            if event.body.name in BROKEN:
                raise ValueError(f"{event.body.name} is broken")

        database = _Heard(process.database(), Signals(sinks=(told,)))
        consumer = _outbox(database).relay(GROUP, sink, OPTIONS)
        _plant(consumer, plant)
        await Worker(process.env, consumer).run()

    return {"relay": relay}


# -- the verdict ------------------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    """Every event is settled or given up, or somebody has lost patience."""
    return any(kind == "in vain" for kind, *_ in evidence.notes[-2:]) or not evidence.fetch(
        """SELECT 1 FROM faultproof_parked WHERE dead = 0 UNION ALL
           SELECT 1 FROM faultproof_log_partition p JOIN faultproof_inbox i
             ON i.log = p.log AND i."partition" = p."partition"
           WHERE p.next_offset > i.next_offset LIMIT 1"""
    )


def _unwritten(evidence: Evidence) -> list[str]:
    """Of those that were parked, since a first delivery is written down behind it; but not of one that was handed over well:
    the attempt is taken back where the database could not settle it."""
    untouched = evidence.fetch(
        f"""SELECT payload FROM faultproof_parked
            WHERE dead = 0 AND attempts = 0 AND (error IS NULL OR error = '{SUSPECTED}')"""  # noqa: S608
    )
    handed = noted(evidence, "handed over").intersection((*BEHIND, *BROKEN))
    names = sorted(handed.intersection(_name(payload) for (payload,) in untouched))
    return [f"{name} has been handed over, and that is written nowhere" for name in names]


def _untrue(evidence: Evidence) -> list[str]:
    told = sum(note[0] == "given up" for note in evidence.notes)
    ((dead,),) = evidence.fetch("SELECT count(*) FROM faultproof_parked WHERE dead = 1")
    new = dead - len(LETTERS)
    return [] if told <= new else [f"{told} events were said to be given up, and {new} letters are new"]


def _wrong_order(evidence: Evidence) -> list[str]:
    handed = [note[1] for note in evidence.notes if note[0] == "handed over"]
    dead = {_name(payload) for (payload,) in evidence.fetch("SELECT payload FROM faultproof_parked")}
    wrong = [f"{name} was never handed over" for name in (*ASIDE, *BEHIND, *NEW) if name not in {*handed, *dead}]
    first = [name for name in dict.fromkeys(handed) if name[0] == "a"]
    wrong += [f"{name} was handed over again and again" for name in sorted(noted(evidence, "in vain"))]
    return wrong if first == sorted(first) else [*wrong, f"events of one key were handed over as {first}"]


def _too_often(evidence: Evidence) -> list[str]:
    times = Counter(note[1] for note in evidence.notes if note[0] == "handed over")
    allowed = {"-1": 1, "a3": 2, **dict.fromkeys(LETTERS, 0)}  # a3: once with others as well
    return [
        f"{name} was handed over {times[name]} times, not at most {most}"
        for name, most in allowed.items()
        if times[name] > most
    ]


# -- planted bugs -----------------------------------------------------------------------------------------------------------


class _SettlesFirst(Relay):
    """Events are handed over when the cursor has moved past them."""

    async def deliver(self, records: list[Record], blocked: frozenset[str]) -> None:
        await self._attempts.park(records, [], blocked)
        await self._hand_over(records, blocked)


class _TellsEarly(Attempts):
    """Whoever watches hears that an event is given up before that is committed."""

    async def park(self, done: Sequence[Record], poisoned: Sequence[Poisoned], blocked: frozenset[str]) -> None:
        for _ in poisoned:
            self._report(Verdict(None))
        await super().park(done, poisoned, blocked)


class _TakesUnwritten(Parking):
    """Events are handed over together, and nothing says so meanwhile."""

    def take(self, heads: Sequence[Parked], limit: int) -> Script[list[Parked]]:
        taken = yield from super().take(heads, limit)
        yield from super().put_back(taken)
        return taken


def _plant(consumer: Consumer, plant: str | None) -> None:
    if plant == "settled first":
        consumer._delivery.__class__ = _SettlesFirst
    elif plant == "told early":
        consumer._attempts.__class__ = _TellsEarly
    elif plant == "taken unwritten":
        consumer._attempts._parking.__class__ = _TakesUnwritten


RELAY = Proof(
    name="faultproof.patterns.outbox.proof:RELAY",
    claim=(
        "A relay hands every event over, those of one key in their order, and one that it fails on no more often "
        "than that has attempts; that events are given up is told when it is true."
    ),
    faults=ANY_FAULT,
    assumptions=("a commit that was acknowledged survives (the database's durability setting)",),
    not_tested=("two writers at the same time, and two snapshots: simulated SQLite has one of each",),
    prepare=_prepare,
    processes=_processes,
    done=_done,
    always=(
        Always(claim="what is handed over is written down before, where it was parked", wrong=_unwritten),
        Always(claim="events that are said to be given up are dead letters", wrong=_untrue),
    ),
    eventually=(
        Eventually(claim="events are handed over, or dead, in the order of their key", wrong=_wrong_order),
        Eventually(claim="no event is handed over more often than it may be", wrong=_too_often),
    ),
    sometimes=(
        Sometimes(
            claim="another process takes a dead one's partition over",
            happened=lambda evidence: bool(evidence.fetch("SELECT 1 FROM faultproof_claim WHERE token > 1 LIMIT 1")),
        ),
        Sometimes(claim="an event is given up", happened=lambda evidence: bool(noted(evidence, "given up"))),
    ),
    plants=(
        Plant(
            name="settled first", breaks="progress commits before its event is handed over: a crash between loses it"
        ),
        Plant(name="told early", breaks="an event is said to be given up, and a crash later it is attempted again"),
        Plant(
            name="taken unwritten",
            breaks="events that are handed over together, and kill their process, are so again and again",
        ),
    ),
)

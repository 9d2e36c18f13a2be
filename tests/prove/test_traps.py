"""Traps that no pattern's own proof covers, in simulation: a relay whose progress is committed after its sink has answered,
and two relays that share the partitions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from faultproof.patterns.outbox.consumer import Consumer
from faultproof.patterns.outbox.events import Event
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.outbox import Outbox, OutboxOptions
from faultproof.patterns.outbox.relay import Relay
from faultproof.ports.database import Database
from faultproof.ports.log import Record
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import Always, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer
from faultproof.prove.simulated.faults import CRASH, FREEZE

TTL_S = 0.5
EVENTS = (("a", 1), ("b", 1), ("a", 2), ("b", 2))
OPTIONS = ConsumerOptions(ttl=TTL_S, backoff=0.1, timeout=0.4, attempts=20, batch=10)


class Bumped(msgspec.Struct, frozen=True):
    """An item has a new version."""

    item: str
    version: int


def _outbox(process: Process) -> Outbox:
    return _outbox_on(process.database())


def _outbox_on(database: Database) -> Outbox:
    return Outbox(database, events={"bumped": Bumped}, options=OutboxOptions(partitions=2))


async def _prepare(database: Database) -> None:
    await _outbox_on(database).install()
    async with database.transaction() as tx:
        await tx.execute(
            "CREATE TABLE published (item TEXT NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (item, version))"
        )


async def _producer(process: Process) -> None:
    database = process.database()
    outbox = _outbox_on(database)
    for item, version in EVENTS:
        async with database.transaction() as tx:
            if await tx.fetch("SELECT 1 FROM published WHERE item = ? AND version = ?", item, version):
                continue
            await tx.execute("INSERT INTO published (item, version) VALUES (?, ?)", item, version)
            await outbox.publish(Bumped(item, version), key=item, tx=tx)
    process.note("finished", process.name)


async def _sequencer(process: Process) -> None:
    await Worker(process.env, _outbox(process).sequencer(ttl=TTL_S)).run()


def _is_settled(evidence: Evidence) -> bool:
    return bool(noted(evidence, "finished")) and not evidence.fetch(
        """SELECT 1 FROM faultproof_intake UNION ALL SELECT 1 FROM faultproof_parked UNION ALL
           SELECT 1 FROM faultproof_log_partition p LEFT JOIN faultproof_inbox i
             ON i.log = p.log AND i."partition" = p."partition"
           WHERE p.next_offset > coalesce(i.next_offset, 0) LIMIT 1"""
    )


# -- a relay -----------------------------------------------------------------------------------------------------------


class _SettlesFirst(Relay):
    """Progress is committed before the sink has been told."""

    async def deliver(self, records: list[Record], blocked: frozenset[str]) -> None:
        await self._attempts.park(records, [], blocked)
        async with self._membership.leases.kept():
            await self._hand_over(records, blocked)


class _HandsOverBackwards(Relay):
    async def _hand_over(self, records: Sequence[Record], blocked: frozenset[str]) -> Any:
        return await super()._hand_over(records[::-1], blocked)


_RELAYS = {"settles first": _SettlesFirst, "hands over backwards": _HandsOverBackwards}


def _relayed(plant: str | None) -> Mapping[str, Main]:
    async def relay(process: Process) -> None:
        async def sink(event: Event[Bumped]) -> None:
            got = [event.body.item, event.body.version]
            await process.outside("sink", lambda state: state.setdefault("got", []).append(got))

        consumer: Consumer = _outbox(process).relay("sink", sink, OPTIONS)
        consumer._delivery.__class__ = _RELAYS.get(plant or "", Relay)
        await Worker(process.env, consumer).run()

    return {"producer": _producer, "sequencer": _sequencer, "relay-1": relay, "relay-2": relay}


def _first_arrivals(evidence: Evidence) -> dict[str, list[int]]:
    arrivals = defaultdict[str, list[int]](list)
    for item, version in evidence.outside.get("got", []):
        if version not in arrivals[item]:
            arrivals[item].append(version)
    return arrivals


def _overtaken(evidence: Evidence) -> list[str]:
    return [
        f"the first arrivals of {item} were {versions}"
        for item, versions in _first_arrivals(evidence).items()
        if versions != list(range(1, len(versions) + 1))
    ]


def _missing(evidence: Evidence) -> list[str]:
    arrived = {(item, version) for item, versions in _first_arrivals(evidence).items() for version in versions}
    return [f"{item} {version} never arrived" for item, version in EVENTS if (item, version) not in arrived]


RELAYED = Proof(
    name="tests.prove.test_traps:RELAYED",
    claim="Every event reaches the sink, and for the first time not before those of its key that were published before it.",
    faults=(),
    assumptions=("the sink deduplicates by the event's id",),
    not_tested=(),
    prepare=_prepare,
    processes=_relayed,
    done=_is_settled,
    always=(Always(claim="no event of a key arrives before one that came earlier", wrong=_overtaken),),
    eventually=(
        Eventually(claim="every event has arrived", wrong=_missing),
        Eventually(claim="no event of a key arrives before one that came earlier", wrong=_overtaken),
    ),
    sometimes=(
        Sometimes(
            claim="an event arrives twice", happened=lambda evidence: len(evidence.outside.get("got", ())) > len(EVENTS)
        ),
    ),
    plants=(
        Plant(name="settles first", breaks="a crash between progress and the sink loses the event"),
        Plant(name="hands over backwards", breaks="a later event of the key arrives first"),
    ),
)


TRAPS = {"a relay": RELAYED}


@pytest.mark.parametrize("name", TRAPS)
def test_trap_holds_at_some_places_and_at_random(name: str):
    proof = TRAPS[name]
    explorer = Explorer(proof)
    with no_escapes():
        report = explorer.depth(1, part=0, parts=6, faults=(CRASH, FREEZE))
        report.add(explorer.sample(range(10)))
    assert [(violation.faults, violation.sentences) for violation in report.violations] == []
    assert report.schedules > 20
    assert report.seen == {each.claim for each in proof.sometimes}


@pytest.mark.parametrize(
    ("name", "plant"), [(name, plant.name) for name, proof in TRAPS.items() for plant in proof.plants]
)
def test_trap_catches_its_planted_bug(name: str, plant: str):
    explorer = Explorer(TRAPS[name], plant)
    with no_escapes():
        parts = (explorer.depth(1, part=part, parts=16, faults=(CRASH, FREEZE)) for part in range(16))
        assert any(part.violations for part in parts), f"{plant} survived"

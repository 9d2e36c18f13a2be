"""Histories of an outbox: published, sequenced, consumed by two members of two groups and handed to a relay."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from hypothesis import strategies as st

import faultproof as fp
from faultproof.patterns.outbox.consumer import Consumer
from faultproof.ports.database import Database, Transaction
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, sql
from faultproof.ports.statement import Changed
from tests.agreement.log import older_intake, older_log, stored, waiting
from tests.agreement.pair import ELAPSE_S, Later, Operation, Undo, coarse

LEASE_S = 3_600.0
ATTEMPTS = 2

EFFECTS = Schema(
    name="agreement",
    versions=[["CREATE TABLE IF NOT EXISTS agreement_effect (seq {serial}, log TEXT, grp TEXT, n BIGINT)"]],
    works_from=1,
    works_to=1,
)


class Noted(msgspec.Struct):
    """An event. `fails`: at how many attempts, before it is healed."""

    n: int
    fails: int


class Effect(NamedTuple):
    """What a handler wrote."""

    group: str
    n: int


class Aside(NamedTuple):
    """A parked event, without its times."""

    group: str
    partition: int
    offset: int
    key: str | None
    payload: str
    attempts: int
    due: int
    dead: int
    error: str | None


class At(NamedTuple):
    """Where a group is."""

    group: str
    partition: int
    next_offset: int
    key_waits: int


class Lease(NamedTuple):
    """Who holds what, without times and tokens. The kind begins with the log's name."""

    kind: str
    id: str
    owner: str | None
    attempts: int


@sql("INSERT INTO agreement_effect (log, grp, n) VALUES (:log, :grp, :n)")
def add_effect(log: str, grp: str, n: int) -> None: ...


@sql("SELECT grp, n FROM agreement_effect WHERE log = :log ORDER BY seq")
def effects(log: str) -> list[Effect]: ...


@sql(
    """SELECT grp, "partition", "offset", key, payload, attempts, CASE WHEN due_us IS NULL THEN 0 ELSE 1 END, dead, error
       FROM faultproof_parked WHERE log = :log ORDER BY grp, "partition", "offset" """
)
def aside(log: str) -> list[Aside]: ...


@sql(
    """SELECT grp, "partition", next_offset, key_waits FROM faultproof_inbox WHERE log = :log ORDER BY grp, "partition" """
)
def cursors(log: str) -> list[At]: ...


@sql(
    """SELECT substr(kind, length(:log) + 2), id, owner, attempts FROM faultproof_claim
       WHERE substr(kind, 1, length(:log) + 1) = :log || ':' ORDER BY kind, id"""
)
def leases(log: str) -> list[Lease]: ...


@sql("""UPDATE faultproof_claim SET until_us = until_us - :us WHERE substr(kind, 1, length(:log) + 1) = :log || ':' """)
def older_leases(log: str, us: int) -> Changed: ...


@sql(
    """UPDATE faultproof_parked SET at_us = at_us - :us, due_us = CASE WHEN due_us > 0 THEN due_us - :us END
       WHERE log = :log"""
)
def older_parked(log: str, us: int) -> Changed: ...


Published = tuple[int, str | None, int, float]


class Mail:
    """One outbox with all that is at it."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._log = name
        self._outbox = fp.Outbox(database, events={"noted": Noted}, name=name, options=fp.OutboxOptions(partitions=3))
        self._sequencer = self._outbox.sequencer(ttl=LEASE_S, batch=4)
        self._healed = False
        self._sunk: list[int] = []
        self._members = {(group, number): self._member(group) for group, number in MEMBERS}

    async def begin(self) -> None:
        await self._outbox.install()
        (await self._sequencer.open()).close()
        for member in self._members.values():
            (await member.open()).close()

    async def publish(self, events: Sequence[Published], commit: bool) -> object:
        ids = []
        try:
            async with self._database.transaction() as tx:
                for n, key, fails, delay in events:
                    ids.append(await self._outbox.publish(Noted(n, fails), key=key, delay=delay, tx=tx))
                if not commit:
                    raise Undo
        except Undo:
            ids.append("rolled back")
        return ids

    async def sequence(self) -> object:
        return await self._sequencer.step() == 0.0

    async def consume(self, member: tuple[str, int], times: int) -> object:
        return [await self._members[member].step() == 0.0 for _ in range(times)]

    async def crash(self, member: tuple[str, int]) -> object:
        """Another takes its place, and its leases are still there."""
        self._members[member] = self._member(member[0])
        (await self._members[member].open()).close()
        return None

    async def leave(self, member: tuple[str, int]) -> object:
        """The same in good order."""
        await self._members[member].close()
        return await self.crash(member)

    async def heal(self, healed: bool) -> object:
        self._healed = healed
        return None

    async def dead(self, group: str) -> object:
        letters = await self._outbox.dead_letters(group).list()
        return [(one.id, one.key, one.payload, one.partition, one.offset, one.attempts, one.error) for one in letters]

    async def decide(self, group: str, verb: str, number: int) -> object:
        letters = self._outbox.dead_letters(group)
        known = [one.id for one in await letters.list()] + ["unknown"]
        return await getattr(letters, verb)(known[number % len(known)])

    async def decide_all(self, group: str, verb: str, limit: int) -> object:
        return await getattr(self._outbox.dead_letters(group), verb)(limit=limit)

    async def retain(self, keep: float) -> object:
        return await self._outbox.retention(keep=keep, batch=2).step() == 0.0

    async def forget(self, group: str) -> object:
        return await self._outbox.forget(group)

    async def lag(self) -> object:
        found = await self._outbox.lag()
        groups = [(one.group, one.events, one.parked, one.dead, one.holders) for one in found.groups]
        ages = [coarse(int(age_s * 1_000_000)) for age_s in (found.age_s, *(one.age_s for one in found.groups))]
        return found.events, found.delayed, found.sequencers, groups, ages

    async def elapse(self) -> object:
        clock = self._database.env.clock
        assert isinstance(clock, Later)
        clock.shift_s += ELAPSE_S
        return await self._database.transact(self._elapse())

    async def tables(self) -> object:
        return self._sunk, await self._database.read(self._tables())

    # -- inside -----------------------------------------------------------------------------------------------------

    def _member(self, group: str) -> Consumer:
        options = fp.ConsumerOptions(
            ttl=LEASE_S,
            timeout=LEASE_S / 4,
            batch=3,
            attempts=ATTEMPTS,
            backoff=0.0,
            on_poison="key goes on" if group == "goes-on" else "key waits",
        )

        async def handle(event: fp.Event[Noted], tx: Transaction) -> None:
            await tx.run(add_effect(self._log, group, event.body.n))
            self._fail(event)

        async def sink(event: fp.Event[Noted]) -> None:
            self._sunk.append(event.body.n)
            self._fail(event)

        if group == "relay":
            return self._outbox.relay(group, sink, options)
        return self._outbox.consumer(group, handle, options)

    def _fail(self, event: fp.Event[Noted]) -> None:
        if event.attempt <= event.body.fails and not self._healed:
            raise ValueError(f"attempt {event.attempt}")

    def _elapse(self) -> Script[object]:
        us = ELAPSE_S * 1_000_000
        for passed in (older_intake, older_log, older_leases, older_parked):
            yield from passed(self._log, us)
        return None

    def _tables(self) -> Script[object]:
        found: list[object] = []
        for table in (waiting, stored, cursors, aside, effects, leases):
            found.append((yield from table(self._log)))
        return found


MEMBERS = [("waits", 1), ("waits", 2), ("goes-on", 1), ("relay", 1)]
_event = st.tuples(
    st.integers(0, 99),
    st.sampled_from(["a", "b", "c", None]),
    st.sampled_from([0, 0, 0, 1, ATTEMPTS]),
    st.sampled_from([0.0, 0.0, 0.0, LEASE_S]),
)
_member = st.sampled_from(MEMBERS)
_group = st.sampled_from(["waits", "goes-on", "relay"])
_consume = st.builds(Operation, st.just("consume"), st.tuples(_member, st.integers(1, 3)))
steps = st.one_of(
    st.builds(
        Operation,
        st.just("publish"),
        st.tuples(st.lists(_event, min_size=1, max_size=5), st.sampled_from([True, True, False])),
    ),
    st.just(Operation("sequence", ())),
    st.just(Operation("sequence", ())),
    _consume,
    _consume,
    _consume,
    st.builds(Operation, st.sampled_from(["crash", "leave"]), st.tuples(_member)),
    st.builds(Operation, st.just("heal"), st.tuples(st.booleans())),
    st.builds(Operation, st.just("dead"), st.tuples(_group)),
    st.builds(
        Operation, st.just("decide"), st.tuples(_group, st.sampled_from(["replay", "discard"]), st.integers(0, 5))
    ),
    st.builds(
        Operation,
        st.just("decide_all"),
        st.tuples(_group, st.sampled_from(["replay_all", "discard_all"]), st.integers(1, 3)),
    ),
    st.builds(Operation, st.just("retain"), st.tuples(st.sampled_from([0.0, LEASE_S]))),
    st.builds(Operation, st.just("forget"), st.tuples(_group)),
    st.sampled_from([Operation("lag", ()), Operation("elapse", ())]),
)
"""What a history of an outbox is made of."""

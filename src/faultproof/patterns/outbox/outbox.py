"""The outbox: what users make, publish with, and build their workers from."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from faultproof import bounds
from faultproof.patterns.outbox import lag, operations, sql
from faultproof.patterns.outbox.consumer import Consumer
from faultproof.patterns.outbox.dead_letters import DeadLetters
from faultproof.patterns.outbox.events import EventTypes, entry
from faultproof.patterns.outbox.handling import Handler, Sink
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.patterns.outbox.retention import Retention
from faultproof.patterns.outbox.sequencer import Sequencer, lease_kind
from faultproof.ports.database import Database, SyncTx, Tx
from faultproof.ports.log import Entry, intake_topic
from faultproof.ports.script import Inline, Script, Wake
from faultproof.primitives.batcher import BatchLimits
from faultproof.primitives.group_commit import GroupCommit, Ok
from faultproof.primitives.transactions import check_tx

PARTITIONS_MAX = 1_024
PAYLOAD_BYTES_MAX = 2**28 - 1
"""What PostgreSQL takes in one JSON text."""


@dataclass(frozen=True, kw_only=True)
class OutboxOptions:
    """What an outbox is; all processes that use it must agree on `partitions`."""

    partitions: int = 8
    """Keys are spread over this many; at most as many consumers of a group work at a time. Fixed when first installed."""
    payload_bytes_max: int = 262_144
    """One encoded event."""
    batch: BatchLimits = BatchLimits()  # noqa: RUF009  # frozen
    """For publications outside a transaction of the caller's: they share transactions."""

    def __post_init__(self) -> None:
        bounds.count("partitions", self.partitions, most=PARTITIONS_MAX)
        bounds.count("payload_bytes_max", self.payload_bytes_max, least=2, most=PAYLOAD_BYTES_MAX)


class Outbox:
    """Publishes typed events in the caller's own transaction, and delivers them.

    Promise: an event is published if and only if the transaction it was published in commits. Committed events enter the
    log once each, per key in the order of their commits if each publication follows the write that locks the key's
    business row. Delivery from there is at least once; with an inbox the effect is once (see `consumer`).
    Source: "Transactional outbox", Richardson, *Microservices Patterns* (2018), §3.3; specification, Outbox.
    Proof: `faultproof.patterns.outbox.proof:OUTBOX`.
    """

    def __init__(
        self,
        database: Database,
        *,
        events: Mapping[str, type],
        name: str = "outbox",
        options: OutboxOptions | None = None,
    ) -> None:
        """`events`: stable type name -> msgspec Struct, dataclass or `dict`. `name`: of the log; 1 to 100 letters, digits,
        `-`, `_`, `.`. Raises `InvalidInput` for a name or a type that cannot be used."""
        bounds.name("an outbox", name)
        self.name = name
        self._database = database
        self._options = options or OutboxOptions()
        self._types = EventTypes(events, payload_bytes_max=self._options.payload_bytes_max)
        self._group_commit: GroupCommit[Entry, str] = GroupCommit(
            database, self._publish_all, limits=self._options.batch, name=f"{name}-publish"
        )
        # Who holds a lease is shown to operators, so it names the process.
        self._owner = f"{database.env.process}:{database.env.ids.new()[-6:]}"

    async def install(self) -> None:
        """Create the tables and the log; idempotent, and safe in many processes at once.

        Raises `InvalidInput` if the log exists with another number of partitions, and `SchemaMismatch` if a newer release
        made the tables.
        """
        database = self._database
        await database.install(*sql.schemas(database))
        await database.transact(self._create)

    @overload
    def publish(
        self,
        event: object,
        *,
        key: str | None,
        tx: SyncTx,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> str: ...

    @overload
    def publish(
        self,
        event: object,
        *,
        key: str | None,
        tx: Inline,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> Script[str]: ...

    @overload
    def publish(
        self,
        event: object,
        *,
        key: str | None,
        tx: Tx | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> Awaitable[str]: ...

    def publish(
        self,
        event: object,
        *,
        key: str | None,
        tx: Tx | SyncTx | Inline | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> Awaitable[str] | Script[str] | str:
        """Publish one event; its id, the same in every delivery.

        With `tx` it commits or vanishes with that transaction: await the result of an async one; a joined synchronous
        handle gives the id directly; inside a script of your own, `yield from` it with `Inline()`. Without `tx` it is
        committed before the call returns, in one transaction with what other callers publish at the same time.

        `key`: events of one key stay in order (None: no order); up to 512 bytes. `type`: the registered name, needed for
        a `dict`. `headers`: up to 8,192 bytes when encoded. `delay`: seconds, up to ten years, after which it takes its
        place in the log; later events do not wait for it.

        Raises `UnknownEventType`, `PayloadTooLarge` or `InvalidInput`, and then nothing was written; `TransactionOpen`
        for a call without `tx` inside an open transaction; `Misuse` for a `tx` of another `Database` (a joined handle cannot
        be asked: that it is of the same file is the caller's word). Without `tx` also `Overloaded` when too many publications
        wait, `DeadlineExceeded` (nothing happened) and `OutcomeUnknown` (it may be published). `SchemaMismatch`, and
        nothing written, for an outbox that is not installed, by a release too old or too new for this one (looked at when
        a process first publishes), or with another number of partitions.
        """
        name = self._types.name_of(event, type)
        made = entry(
            id=self._database.env.ids.new(),
            type=name,
            payload=self._types.encode(event, name),
            key=key,
            headers=headers,
            delay=delay,
            partitions=self._options.partitions,
        )
        if tx is None:
            return self._group_commit.submit(made, weight=len(made.payload))
        check_tx(tx, self._database)
        return tx.run(self._publish(made), single=True)  # one statement: a fourth round trip would cost a third more

    def sequencer(self, *, ttl: float = 5.0, batch: int = 2_000) -> Sequencer:
        """The loop that gives committed events their place in the log; for a `Worker`, in any number of processes.

        `ttl`: seconds after a crash until another takes over. `batch`: events moved in one transaction.
        """
        return Sequencer(self._database, self.name, owner=self._owner, ttl=ttl, batch=batch)

    def consumer(self, group: str, handler: Handler, options: ConsumerOptions | None = None) -> Consumer:
        """The loop that delivers to `handler(event, tx)`: what it writes through `tx` takes effect once per event.

        Do quick work on this database there; a slow handler keeps the transaction open. `TryAgain` from it means "later",
        and is not counted against the event. A new group begins at the oldest event kept.
        """
        return self._consumer(group, options, handler=handler)

    def relay(self, group: str, sink: Sink, options: ConsumerOptions | None = None) -> Consumer:
        """The loop that hands events to `sink(event)`, outside any transaction: at least once, in order per key.

        The receiver deduplicates by `event.id`. `TryAgain` from it means "later", and is not counted against the event.
        """
        return self._consumer(group, options, sink=sink)

    def retention(self, *, keep: float = 86_400.0, every: float = 10.0, batch: int = 1_000) -> Retention:
        """The loop that removes what every group has settled `keep` seconds after it was published, or became due.

        At most `batch` events of each partition in one transaction; every `every` seconds it also emits the lag.
        """
        return Retention(self._database, self.name, keep=keep, every=every, batch=batch)

    def dead_letters(self, group: str) -> DeadLetters:
        """What a group has given up: to list, replay or discard."""
        bounds.name("a group", group)
        return DeadLetters(self._database, self.name, group)

    async def lag(self) -> lag.Lag:
        """What is committed and not delivered yet, how old, and who is at it; also emitted as signals."""
        return await lag.measure(self._database, self.name)

    async def forget(self, group: str) -> None:
        """Remove a group that will not come back, with its progress and its dead letters; retention goes on without it.

        Stop its consumers before: one that runs on fails, and says so in its health, until it is stopped. One of that name
        that is started later begins at the oldest event kept.
        """
        bounds.name("a group", group)
        await self._database.transact(lambda: operations.forget(self._database, self.name, group))

    async def begin_epoch(self) -> str:
        """After a restore from a backup: offsets will be given out again, under a new epoch; the epoch's name.

        Consumers read it when they begin, so call it before they are started.
        """
        epoch = self._database.env.ids.new()
        await self._database.transact(lambda: self._database.logs.begin_epoch(self.name, epoch=epoch))
        return epoch

    async def close(self) -> None:
        """Commit publications under way, and refuse new ones outside transactions."""
        await self._group_commit.close()

    def _consumer(
        self, group: str, options: ConsumerOptions | None, handler: Handler | None = None, sink: Sink | None = None
    ) -> Consumer:
        bounds.name("a group", group)
        return Consumer(
            self._database,
            self.name,
            group,
            types=self._types,
            owner=self._owner,
            options=options or ConsumerOptions(),
            handler=handler,
            sink=sink,
        )

    def _create(self) -> Script[None]:
        partitions = self._options.partitions
        yield from self._database.logs.create(self.name, partitions=partitions, epoch=self._database.env.ids.new())
        yield from self._database.claims.add(lease_kind(self.name), [str(number) for number in range(partitions)])

    def _publish(self, made: Entry) -> Script[str]:
        yield from self._database.logs.append(self.name, [made], partitions=self._options.partitions)
        yield Wake(intake_topic(self.name))
        return made.id

    def _publish_all(self, items: Sequence[Entry], wait: bool) -> Script[list[Any]]:
        yield from self._database.logs.append(self.name, items, partitions=self._options.partitions)
        yield Wake(intake_topic(self.name))
        return [Ok(made.id) for made in items]

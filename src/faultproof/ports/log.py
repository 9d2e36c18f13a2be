"""Sequenced logs: an order of committed events that a reader's cursor cannot skip.

Writers insert into an *intake* inside their own transactions. One leased *sequencer* per partition moves committed
rows, in intake order, to the *log*, giving dense offsets 0, 1, 2 … per partition. A plain cursor over offsets misses
nothing: an offset is assigned after the commit that it numbers, never before. (Numbers taken at INSERT become visible
out of order; that is how peers lose events.) Proof: `faultproof.prove.kernel.log:LOG`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from faultproof.ports.schema import Schema
from faultproof.ports.script import Script

_INTAKE = ".intake"


def intake_topic(log: str) -> str:
    """News of what was written into the intake. An engine may look there by itself: not every writer tells."""
    return log + _INTAKE


def logs_among(topics: Iterable[str]) -> list[str]:
    """The logs whose `intake_topic` is among them."""
    return [topic.removesuffix(_INTAKE) for topic in topics if topic.endswith(_INTAKE)]


class Entry(NamedTuple):
    """One event on its way in. `delay_us` 0 means now; a delayed event takes its place when it is due."""

    partition: int
    id: str
    key: str | None
    type: str
    payload: str
    headers: str | None
    delay_us: int


class Record(NamedTuple):
    """One event of the log, at its place for ever."""

    partition: int
    offset: int
    id: str
    key: str | None
    type: str
    payload: str
    headers: str | None
    at_us: int
    """When it was written into the intake, by the engine's clock; of a delayed one, when it became due."""


class Cursor(NamedTuple):
    """Where to read on: the first offset not yet seen."""

    partition: int
    offset: int


class Span(NamedTuple):
    """What one partition holds: offsets first ≤ n < next."""

    partition: int
    first: int
    next: int


class Ready(NamedTuple):
    """What a sequencer has to do: events waiting now, and in how many microseconds the next delayed one is due."""

    waiting: bool
    due_in_us: int | None


class Intake(NamedTuple):
    """The intake as `lag()` reports it. Delayed events that are not due do not count."""

    events: int
    age_us: int
    delayed: int


class LogTable(Protocol):
    """Each method is a script. `log` names one of any number of logs in the database."""

    @property
    def schema(self) -> Schema:
        """The tables behind it."""
        ...

    def create(self, log: str, *, partitions: int, epoch: str) -> Script[str]:
        """Create the log unless it exists; its epoch. Raises `InvalidInput` if it exists with other partitions."""
        ...

    def epoch(self, log: str) -> Script[str]:
        """The name under which offsets of this log may be compared. Raises `SchemaMismatch` if there is no such log."""
        ...

    def begin_epoch(self, log: str, *, epoch: str) -> Script[None]:
        """After a restore from a backup: offsets will be given out again, so they get a new name."""
        ...

    def append(self, log: str, entries: Sequence[Entry], *, partitions: int) -> Script[None]:
        """Write to the intake, in the caller's transaction, in the order given.

        `partitions`: how many the caller spread the keys over. Raises `SchemaMismatch` if the log has another number of
        them, or was never created: such events would lose their keys' order, or wait for ever. So it does, the first
        time that a process appends, if this release cannot work with the tables.
        """
        ...

    def ready(self, log: str) -> Script[Ready]:
        """Whether there is anything to sequence; one cheap look for all partitions."""
        ...

    def sequence(
        self, log: str, partitions: Sequence[int], *, limit: int, moved: Callable[[int], None]
    ) -> Script[None]:
        """Move up to `limit` committed events of these partitions into the log. The caller holds their leases. `moved` is
        told how many: with the answer to the transaction's next statement, or to its commit."""
        ...

    def read(self, log: str, cursors: Sequence[Cursor], *, limit: int) -> Script[list[Record]]:
        """From each cursor up to `limit` events, by partition and offset. Raises `EventsTrimmed` behind the first one kept."""
        ...

    def trim(self, log: str, *, upto: Sequence[Cursor], older_us: int, limit: int) -> Script[int]:
        """Delete events below `upto`, up to the first that is younger than `older_us`, at most `limit` per partition."""
        ...

    def spans(self, log: str) -> Script[list[Span]]:
        """What each partition holds."""
        ...

    def hold(self, log: str) -> Script[list[Span]]:
        """What each partition holds, and goes on holding until this transaction ends: nobody trims meanwhile."""
        ...

    def intake(self, log: str) -> Script[Intake]:
        """What waits to be sequenced."""
        ...

"""What becomes of an event whose handler fails: the decision, and the scripts that write it down.

::

    new ──handler fails──▶ due again ──fails `attempts` times──▶ dead ──replay──▶ due again
     │                        │                                   └────discard──▶ gone
     └─earlier one of its     └──handler succeeds──▶ gone (settled)
       key is parked──▶ behind it ──that one is settled──▶ due again

Parked rows carry a copy of the event, so that retention may trim the log behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from faultproof.errors import LeaseLost
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.sql import Parked, Place, ToPark
from faultproof.ports.log import Record
from faultproof.ports.script import Script

_ERROR_CHARS_MAX = 1_000
_TOGETHER = "its process died, or its attempt was cut off, when it was first delivered together with others"
"""Stands beside events that are taken together, while they are; it stays if nobody comes back to say what became of them.
"""


class Verdict(NamedTuple):
    """Another attempt after `retry_in_us`, or dead if that is None."""

    retry_in_us: int | None

    @property
    def dead(self) -> bool:
        """It is given up until a person decides."""
        return self.retry_in_us is None


def verdict(*, attempts: int, attempts_max: int, base_s: float, cap_s: float, random: float) -> Verdict:
    """After the `attempts`-th attempt has failed: full jitter over an exponential backoff, or dead."""
    if attempts >= attempts_max:
        return Verdict(None)
    return Verdict(int(random * min(cap_s, base_s * 2.0 ** min(attempts - 1, 62)) * 1_000_000))


def error_text(error: BaseException) -> str:
    """The error as it is stored: type and message, cut, without NUL characters."""
    try:
        said = str(error)
    except Exception:  # whatever its class does there, the event is parked
        said = "(an error that cannot be put into words)"
    text = f"{type(error).__name__}: {said}".replace("\0", "?")
    return text.encode("utf-8", "replace").decode()[:_ERROR_CHARS_MAX]


def never_attempted(parked: Parked) -> bool:
    """It only waited for another of its key. Whatever was attempted, set aside as a suspect, or replayed, has an error."""
    return parked.error is None


class Parking:
    """The parked events of one group, as scripts."""

    def __init__(self, log: str, group: str) -> None:
        self._log = log
        self._group = group

    def choose(self, key_waits: bool) -> Script[None]:
        """What later events of a dead letter's key do from now on, and those parked by another choice with them."""
        if not (yield from sql.choose(self._log, self._group, int(key_waits))):
            return  # as before: what a person has replayed since is left alone
        if key_waits:
            yield from sql.let_keys_wait(self._log, self._group)
        else:
            yield from sql.let_keys_go_on(self._log, self._group)

    def aside(self, records: Sequence[Record], *, error: str | None = None) -> Script[None]:
        """Park events that have not been attempted: behind the earlier ones of their key, or due at once.

        Which of the two is decided here, in this transaction: the earlier one may have been settled or discarded since
        somebody looked, and then nobody would call those behind it.
        """
        rows = [_row(record, 0, 0 if record.key is None else None, dead=0, error=error) for record in records]
        yield from sql.hold(self._log, self._group, _partitions(records))
        yield from sql.park(self._log, self._group, rows)
        yield from self._promote(records)

    def behind(self, records: Sequence[Record], blocked: frozenset[str]) -> Script[None]:
        """Park those of the records whose key has a parked event."""
        if waiting := [record for record in records if record.key in blocked]:
            yield from self.aside(waiting)

    def failed(self, record: Record, decision: Verdict, error: str) -> Script[None]:
        """Park an event whose first attempt has failed."""
        row = _row(record, 1, decision.retry_in_us, dead=int(decision.dead), error=error)
        yield from sql.park(self._log, self._group, [row])

    def begin(self, parked: Parked, *, again_in_us: int) -> Script[bool]:
        """Count an attempt before it is made; False if a person has discarded or replayed the event meanwhile."""
        attempts, partition, offset = parked.attempts, parked.partition, parked.offset
        return (yield from sql.begin_attempt(self._log, self._group, partition, offset, attempts, again_in_us)) == 1

    def not_counted(self, parked: Parked, *, again_in_us: int) -> Script[None]:
        """The attempt that was begun was not one: what it needs is not there, and that is not the event's fault."""
        place = (self._log, self._group, parked.partition, parked.offset)
        yield from sql.take_back_attempt(*place, parked.attempts, again_in_us)

    def failed_again(self, parked: Parked, decision: Verdict, error: str) -> Script[None]:
        """Write down why the attempt failed, and when the next one is, or that there is none."""
        place = (self._log, self._group, parked.partition, parked.offset)
        yield from sql.hold(self._log, self._group, [parked.partition])
        yield from sql.record_failure(*place, decision.retry_in_us, int(decision.dead), error)
        if decision.dead:
            yield from self._promote([parked])

    def settled(self, parked: Parked) -> Script[None]:
        """The event is done with (or discarded): the next one of its key is due."""
        yield from sql.hold(self._log, self._group, [parked.partition])
        if (yield from sql.unpark(self._log, self._group, parked.partition, parked.offset)) != 1:
            raise LeaseLost(f"event {parked.id} has been settled by another process; this one's work on it is undone")
        yield from self._promote([parked])

    # -- first attempts at several ----------------------------------------------------------------------------------

    def take(self, heads: Sequence[Parked], limit: int) -> Script[list[Parked]]:
        """Of each head and those behind it, in order, up to the first that has been attempted: what is delivered together.

        It is written down before it is done: an event that kills its process takes these with it, and from then on each
        of them is attempted alone, and counted before.
        """
        taken: list[Parked] = []
        yield from sql.hold(self._log, self._group, _partitions(heads))
        for head in heads:
            if head.key is not None and head not in taken and len(taken) < limit:
                line = yield from sql.line(self._log, self._group, head.partition, head.key, limit - len(taken))
                # Where keys go on, one that was replayed may stand before it: then those behind wait for that one too.
                taken += takewhile(never_attempted, line) if line[:1] == [head] else [head]
        if (yield from sql.take_together(self._log, self._group, _TOGETHER, _places(taken))) != len(taken):
            raise self._settled_elsewhere()
        return taken

    def put_back(self, taken: Sequence[Parked]) -> Script[None]:
        """These were not attempted after all."""
        yield from sql.hold(self._log, self._group, _partitions(taken))
        yield from sql.put_back(self._log, self._group, _places(taken))

    def settled_together(self, taken: Sequence[Record | Parked]) -> Script[None]:
        """Events that were taken together are done with: the next ones of their keys are due."""
        yield from sql.hold(self._log, self._group, _partitions(taken))
        if (yield from sql.unpark_together(self._log, self._group, _places(taken))) != len(taken):
            raise self._settled_elsewhere()
        yield from self._promote(taken)

    def _promote(self, settled: Iterable[Record | Parked]) -> Script[None]:
        for partition, key in dict.fromkeys((one.partition, one.key) for one in settled):
            if key is not None:
                yield from sql.promote(self._log, self._group, partition, key)

    def _settled_elsewhere(self) -> LeaseLost:
        return LeaseLost(
            f"parked events of {self._group!r} have been settled by another process; this one's work is undone"
        )


def record_of(parked: Parked) -> Record:
    """The event as the log held it."""
    return Record(
        parked.partition,
        parked.offset,
        parked.id,
        parked.key,
        parked.type,
        parked.payload,
        parked.headers,
        parked.at_us,
    )


def _partitions(events: Iterable[Record | Parked]) -> list[int]:
    return sorted({event.partition for event in events})


def _places(events: Iterable[Record | Parked]) -> list[Place]:
    return [Place(event.partition, event.offset) for event in events]


def _row(record: Record, attempts: int, due_in_us: int | None, *, dead: int, error: str | None) -> ToPark:
    return ToPark(
        record.partition,
        record.offset,
        record.id,
        record.key,
        record.type,
        record.payload,
        record.headers,
        record.at_us,
        attempts,
        due_in_us,
        dead,
        error,
    )

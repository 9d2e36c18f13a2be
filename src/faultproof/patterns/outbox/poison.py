"""What becomes of an event whose handler fails: the decision, and the scripts that write it down.

::

    new ──handler fails──▶ due again ──fails `attempts` times──▶ dead ──replay──▶ due again
     │                        │                                   └────discard──▶ gone
     └─earlier one of its     └──handler succeeds──▶ gone (settled)
       key is parked──▶ behind it ──that one is settled──▶ due again

Parked rows carry a copy of the event, so that retention may trim the log behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.errors import LeaseLost
from faultproof.patterns.outbox import sql
from faultproof.patterns.outbox.sql import Parked, ToPark
from faultproof.ports.log import Record
from faultproof.ports.script import Script

_ERROR_CHARS_MAX = 1_000


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
        yield from sql.hold(self._log, self._group, sorted({record.partition for record in records}))
        yield from sql.park(self._log, self._group, rows)
        for partition, key in dict.fromkeys((record.partition, record.key) for record in records):
            if key is not None:
                yield from sql.promote(self._log, self._group, partition, key)

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
            yield from self._promote(parked)

    def settled(self, parked: Parked) -> Script[None]:
        """The event is done with (or discarded): the next one of its key is due."""
        yield from sql.hold(self._log, self._group, [parked.partition])
        if (yield from sql.unpark(self._log, self._group, parked.partition, parked.offset)) != 1:
            raise LeaseLost(f"event {parked.id} has been settled by another process; this one's work on it is undone")
        yield from self._promote(parked)

    def _promote(self, parked: Parked) -> Script[None]:
        if parked.key is not None:
            yield from sql.promote(self._log, self._group, parked.partition, parked.key)


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

"""From where the intake has to be looked at.

Rows that were moved stay in the index, dead, as long as any transaction anywhere might see them; one that is left open for
an hour would make each look at the intake pass over an hour's events. Below the *floor* nothing is left and nothing will
come. Ids are given at the INSERT and seen at the COMMIT, so it takes care: whoever draws an id holds a lock on the
sequence to the end of its transaction. All ids up to the sequence's last value are *decided*, committed or lost, once
none of those is left that held the lock just after that value was read. The floor is what is both decided and gone.
"""

from __future__ import annotations

from typing import NamedTuple

from faultproof.clock import Clock
from faultproof.ports.script import Script, later, sql

LOOK_S = 0.5
"""How often the decided ids are asked for: about as long as it takes to make ten thousand rows dead."""


class _Watched(NamedTuple):
    """A last value, and the transactions that may hold ids up to it."""

    last: int
    holders: frozenset[str]


# A sequence that nobody has drawn from names the value that it will give.
@sql("SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM faultproof_intake_id_seq")
def _last() -> int: ...


@sql(
    """SELECT DISTINCT virtualtransaction FROM pg_locks
       WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND relation = 'faultproof_intake_id_seq'::regclass
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
)
def _holders() -> list[str]: ...


class Floor:
    """Of one log, in this process. A process that has just begun looks at everything once."""

    def __init__(self, clock: Clock) -> None:
        self.passed = 0
        """Up to here nothing is left, and nothing will come."""
        self.decided = 0
        """Up to here every id is committed or lost."""
        self._watched: _Watched | None = None
        self._clock = clock
        self._looked = -LOOK_S
        self._transaction = ""

    def look(self) -> Script[None]:
        """Find out, now and then, what is decided. Before the statement whose snapshot `saw` is told of."""
        now = self._clock.monotonic()
        if now < self._looked + LOOK_S:
            return
        self._looked = now
        # The value first and then who holds the lock, in two statements: the other way round somebody could come between.
        # What they say counts from the next snapshot on, so nobody waits for it.
        last = list[int]()
        yield from later(_last(), last.append, refuses=False)
        yield from later(_holders(), lambda holders: self._found(last[-1], frozenset(holders)), refuses=False)

    def _found(self, last: int, holders: frozenset[str]) -> None:
        if self._watched is None or not self._watched.holders & holders:
            if self._watched is not None:
                self.decided = max(self.decided, self._watched.last)
            self._watched = _Watched(last, holders)
        if not holders:
            self.decided = max(self.decided, last)

    def saw(self, lowest: int | None, *, decided: int, in_transaction: str) -> None:
        """A snapshot had nothing between the floor and `lowest` (None: nothing at all). `decided`: as it was before that."""
        # A second time in one transaction it has not what this transaction itself has moved, and may yet roll back.
        if in_transaction != self._transaction:
            self.passed = max(self.passed, min(decided, decided if lowest is None else lowest - 1))
        self._transaction = in_transaction


class Floors:
    """Of all logs that this process sequences."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._floors: dict[str, Floor] = {}  # bounded: by the logs

    def of(self, log: str) -> Floor:
        """The one of this log, from now on kept."""
        return self._floors.setdefault(log, Floor(self._clock))

    def known(self, logs: list[str]) -> list[tuple[str, int]]:
        """Those of the logs that this process sequences, with what is passed there. Called from the ear's thread."""
        return [(log, floor.passed) for log in logs if (floor := self._floors.get(log)) is not None]

"""What `ClaimTable` and `LogTable` raise, worded once for all engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faultproof.errors import EventsTrimmed, InvalidInput, LeaseLost, SchemaMismatch
from faultproof.ports.claims import Claim
from faultproof.ports.log import Record


def lease_lost(kind: str) -> LeaseLost:
    """A claim was presented that is not the latest of its row."""
    return LeaseLost(f"another worker has taken over work of kind {kind!r}: what this one did has been undone")


def all_held(kind: str, claims: Sequence[Claim]) -> Callable[[int], None]:
    """For `later`: raises `lease_lost` unless so many rows were found as claims were presented."""

    def check(found: int) -> None:
        if found != len(claims):
            raise lease_lost(kind)

    return check


def no_such_log(log: str) -> SchemaMismatch:
    """A log was used before it was created."""
    return SchemaMismatch(
        f"there is no log {log!r} in this database: give the name of one that is there, or install it first"
    )


def other_partitions(log: str, *, existing: int, asked: int) -> InvalidInput:
    """A log was asked for with another number of partitions than it has."""
    return InvalidInput(
        f"the log {log!r} has {existing} partitions and keeps them for ever, because a key must stay in its own: "
        f"ask for {existing}, not {asked}, or choose another name"
    )


def no_place(log: str, *, existing: int, asked: int) -> SchemaMismatch | InvalidInput:
    """Events were appended to a log that is not there, has other partitions, or not the one that an event names."""
    if not existing:
        return no_such_log(log)
    if existing == asked:
        return InvalidInput(f"an event names a partition that {log!r} does not have: they are 0 to {existing - 1}")
    # Not the event's fault, whatever else is wrong: a handler that publishes must not make dead letters of its events.
    return SchemaMismatch(
        f"the log {log!r} was installed with {existing} partitions, and this process spreads keys over {asked}, which "
        f"would break their order: give `partitions={existing}`, or choose another name"
    )


def events_trimmed(log: str, first: Record) -> EventsTrimmed:
    """A cursor stands before the first event kept."""
    return EventsTrimmed(
        f"partition {first.partition} of {log!r} begins at offset {first.offset}: what this reader asks for before it has "
        "been removed by retention"
    )

"""Moving events into a log as its sequencer does."""

from collections.abc import Sequence

from faultproof.ports.log import LogTable
from faultproof.ports.script import Script


def moving(logs: LogTable, log: str, partitions: Sequence[int], *, limit: int) -> Script[int]:
    """How many were moved, which an engine may say no sooner than with the next answer."""
    moved = list[int]()
    yield from logs.sequence(log, partitions, limit=limit, moved=moved.append)
    if not moved:
        yield from logs.spans(log)
    (events,) = moved
    return events

"""All contenders by name."""

from __future__ import annotations

from benchmarks.faults import dbos, faststream_outbox, ours, pgqueuer, planted, procrastinate
from benchmarks.faults.model import Contender
from faultproof.errors import InvalidInput

CONTENDERS: dict[str, Contender] = {
    each.name: each
    for each in (
        *pgqueuer.CONTENDERS,
        *procrastinate.CONTENDERS,
        *faststream_outbox.CONTENDERS,
        *dbos.CONTENDERS,
        *ours.CONTENDERS,
    )
}
PLANTED: dict[str, Contender] = {each.name: each for each in planted.CONTENDERS}
"""Broken on purpose, to show that the harness notices."""


def contender_called(name: str) -> Contender:
    """Raises `InvalidInput` for a name that is none."""
    try:
        return (CONTENDERS | PLANTED)[name]
    except KeyError:
        raise InvalidInput(f"there is no contender {name!r}: choose from {', '.join(CONTENDERS)}") from None

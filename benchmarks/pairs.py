"""Two transactions that differ in one thing, in turns."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from benchmarks.model import Place
from benchmarks.spread import p50

PAIRS = 300
QUICK = 5

PLAIN, PUBLISHING, ADDS = "without, p50", "with, p50", "adds"
ORDERS = "CREATE TABLE orders (id BIGINT PRIMARY KEY, item TEXT NOT NULL)"

Transaction = Callable[[int], Awaitable[object]]
"""One transaction with the insert of this order."""


async def in_turns(place: Place, first: int, plain: Transaction, publishing: Transaction) -> dict[str, float]:
    """Both transactions one after the other, again and again, on the same connection: what they differ in is publishing."""
    times: tuple[list[float], list[float]] = ([], [])
    pairs = place.size(PAIRS, QUICK)
    for number in range(first, first + 2 * pairs, 2):
        for offset, (into, transaction) in enumerate(zip(times, (plain, publishing), strict=True)):
            began = time.perf_counter()
            await transaction(number + offset)
            into.append((time.perf_counter() - began) * 1e3)
    without, with_ = p50(times[0]), p50(times[1])
    return {PLAIN: without, PUBLISHING: with_, ADDS: (with_ / without - 1) * 100}


def measuring(place: Place, plain: Transaction, publishing: Transaction) -> Callable[[], Awaitable[dict[str, float]]]:
    """`Ready.measure` for a pair of transactions; each round has orders of its own."""
    number = 0

    async def measure() -> dict[str, float]:
        nonlocal number
        number += 2 * PAIRS
        return await in_turns(place, number, plain, publishing)

    return measure

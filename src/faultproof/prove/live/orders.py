"""What is to strike in one run: an order can be written down, and given again.

A run of the live world cannot be repeated to the microsecond: the machine schedules it. Its order can: the same fault at
the same point, or at times drawn from the same seed. Who looks again and again, or is late, passes more points one time
than another; so a point is meant by what happens there, and counted among those of its kind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Literal, NamedTuple, get_args

import msgspec

from faultproof.errors import InvalidInput

AtPoint = Literal["kill", "stop", "orphan", "lose", "twice"]
"""Faults that strike when a process passes a point: SIGKILL; SIGSTOP, and SIGCONT after its successor has long begun;
SIGKILL while the proxy keeps its server's side open; the answer of a service outside lost; its request sent twice."""
AtCommit = Literal["drop"]
"""The answer to the so-many-th COMMIT of a process is dropped by the proxy."""
AtTimes = Literal["kills", "reset", "half-open", "lost-requests", "lost-answers", "latency", "server"]
"""Faults at times drawn from a seed: SIGKILL from outside; what a network does; kill -9 of the server."""
Kind = Literal["none"] | AtPoint | AtCommit | AtTimes

POINTED: frozenset[str] = frozenset(get_args(AtPoint))
COMMITS: frozenset[str] = frozenset(get_args(AtCommit))
TIMED: frozenset[str] = frozenset(get_args(AtTimes))
BY_PROXY: frozenset[str] = frozenset(
    {"orphan", "drop", "reset", "half-open", "lost-requests", "lost-answers", "latency"}
)
"""Those that need the proxy before the server, and so PostgreSQL."""


class Order(msgspec.Struct, frozen=True):
    """One fault of one run."""

    kind: Kind = "none"
    process: str = ""
    """Whom it strikes, where it is one of them."""
    number: int = 0
    """The point or the COMMIT, counted from 1; or the seed."""
    label: str = ""
    """Of the point, which is counted among those of that label; without one, among all."""

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        parts = [self.kind, self.process, str(self.number), self.label]
        return ":".join(part for part in parts if part)

    @property
    def point(self) -> str:
        """In words."""
        return f"point {self.number} of {self.label!r}" if self.label else f"point {self.number}"


_WRITTEN = re.compile(r"(?P<kind>[a-z-]+):(?:(?P<process>.+?):)?(?P<number>[0-9]{1,18})(?::(?P<label>.+))?", re.DOTALL)


def parsed(text: str) -> Order:
    """The order that was written down so. Raises `InvalidInput` for anything else."""
    order = Order() if text == "none" else _read(text)
    if order is None:
        raise InvalidInput(f"{text!r} is not an order: none, kill:PROCESS:POINT, drop:PROCESS:COMMIT, kills:SEED …")
    return order


def _read(text: str) -> Order | None:
    if (written := _WRITTEN.fullmatch(text)) is None:
        return None
    parts = {**written.groupdict(default=""), "number": int(written["number"])}
    try:
        order = msgspec.convert(parts, Order)
    except msgspec.ValidationError:  # there is no such kind
        return None
    least = 1 if order.kind in POINTED | COMMITS else 0
    fits = order.kind != "none" and order.number >= least and bool(order.process) == bool(least)
    return order if fits and (order.kind in POINTED or not order.label) else None


class Point(NamedTuple):
    """A place that a process passed."""

    process: str
    number: int
    label: str

    @property
    def changes(self) -> bool:
        """Whether a kill here leaves another world behind than one at the point before: a transaction is open, or has been
        committed, or the outside has been told. Elsewhere it would repeat that one."""
        return not self.label.startswith("before")


def at_points(kind: AtPoint, points: Iterable[Point], most: int | None = None) -> list[Order]:
    """One order for each point; or for at most so many, spread over all of them. `points`: all of a label that there are."""
    found = _meant(kind, points)
    return found if most is None else spread(found, most)


def _meant(kind: AtPoint, points: Iterable[Point]) -> list[Order]:
    """Each point, by what happens there."""
    passed = Counter[tuple[str, str]]()
    found = []
    for point in points:
        passed[point.process, point.label] += 1
        found.append(Order(kind, point.process, passed[point.process, point.label], point.label))
    return found


def stops(points: Iterable[Point], most: int) -> list[Order]:
    """Where to make zombies: before transactions and requests, so that a successor takes over what the zombie then believes
    to be its own; and at a COMMIT, so that it holds its locks meanwhile. First one of each kind of each process, from the
    middle of the run, then more of them."""
    kinds: dict[tuple[str, str], list[Order]] = {}
    for order in _meant("stop", points):
        if order.label.startswith(("before", "at COMMIT")) and not order.label.startswith("before note"):
            kinds.setdefault((order.process, order.label), []).append(order)
    rounds = [
        [order for order in turn if order is not None] for turn in zip_longest(*map(_from_the_middle, kinds.values()))
    ]
    if rounds and len(rounds[0]) > most:
        return spread(rounds[0], most)
    return list(chain.from_iterable(rounds))[:most]


def _from_the_middle(orders: Sequence[Order]) -> list[Order]:
    middle = len(orders) // 2
    return [orders[number] for number in sorted(range(len(orders)), key=lambda number: abs(number - middle))]


def at_commits(points: Sequence[Point], most: int) -> list[Order]:
    """Dropped answers, spread over the COMMITs of all processes."""
    found: list[Order] = []
    for process in dict.fromkeys(point.process for point in points):
        commits = sum(1 for point in points if point.process == process and point.label.startswith("at COMMIT"))
        found += [Order("drop", process, number + 1) for number in range(commits)]
    return spread(found, most)


def spread(orders: Sequence[Order], most: int) -> list[Order]:
    """At most so many of them, at even distances, and not the first ones only."""
    if len(orders) <= most:
        return list(orders)
    return [orders[(2 * number + 1) * len(orders) // (2 * most)] for number in range(most)]

"""The search for an order of operations that a model allows.

Depth first over moments, as in G. Lowe, "Testing for linearizability" (2017), section 4 (just-in-time linearization):
an operation is put in its place only when an answer makes it necessary. Configurations that were seen are not entered
again, as in J. Wing & C. Gong, "Testing and verifying concurrent objects" (1993) with Lowe's memory. Three more things
keep unanswered operations, which stay open to the end, from multiplying the work; none of them loses an order:

- equal unanswered calls can stand for each other, so only the oldest of them is tried;
- one that would change nothing is not tried: it may as well never have happened;
- a configuration is not entered if one was that had used up fewer of them, and was the same otherwise: whatever could
  follow here could follow there.

An answered call that fits, and is known to change no state (a read), is put in its place at once: it is in nobody's way
there. Not so one that merely changes nothing here: a write of the value that is there may be needed later.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from faultproof.prove.checkers.history import Operation, Tell
from faultproof.prove.checkers.models import Model
from faultproof.prove.checkers.plan import ILLEGAL, Level, Plan, Steps, TooWide, planned

_LOOK_EVERY = 256


class Verdict(Enum):
    """What is known about a history."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to give up. Verdicts are never guessed: what is not settled by then is UNKNOWN."""

    seconds: float = 60.0
    configurations: int = 1_000_000
    """That are remembered, at about 300 bytes each."""
    state_bytes: int = 500_000_000
    """For all states that a model has made."""
    clock: Callable[[], float] = time.monotonic


@dataclass(kw_only=True)
class Searched:
    """What a search came to."""

    verdict: Verdict = Verdict.UNKNOWN
    order: tuple[int, ...] = ()
    """If linearizable: operations by place in the history, in an order that the model allows; those that are never
    answered only where they are needed."""
    stuck: int | None = None
    """If not: the operation whose answer nothing can explain. All before that answer can be explained."""
    expected: tuple[str, ...] = ()
    """If not: what `stuck` would have returned instead, in some of the states that the object may have been in."""
    states: tuple[Hashable, ...] = ()
    """If not: every state that it may have been in at any time until then."""
    configurations: int = 0
    why: str = ""
    """If unknown."""


class _Path(NamedTuple):
    """Who was put in order so far, newest first."""

    number: int
    before: _Path | None


class _Configuration(NamedTuple):
    state: int
    placed: int
    """Open operations that have taken effect, as bits."""
    used: int
    """Unanswered ones that have."""
    path: _Path | None


class _GaveUp(Exception):
    pass


def search(
    operations: Sequence[Operation],
    model: Model[Hashable],
    limits: Limits | None = None,
    tell: Tell = lambda _: None,
    *,
    starts: Sequence[Hashable] | None = None,
) -> Searched:
    """Look for an order of these operations of one object, which stand in order of their calls.

    The object begins in the model's initial state, or in any one of `starts`.

    Promise: LINEARIZABLE comes with such an order, NOT_LINEARIZABLE after all were ruled out. Bounded by `limits`, in
    time and memory; a model whose single step takes long is not interrupted.
    """
    try:
        plan = planned(operations)
    except TooWide:
        return Searched(why="too many operations are open at once")
    steps = Steps(model, plan.calls, [model.initial] if starts is None else starts)
    running = _Search(plan, steps, limits or Limits(), tell)
    try:
        found = running.run()
    except _GaveUp as why:
        found = Searched(why=str(why))
    found.configurations = running.configurations
    return found


class _Search:
    def __init__(self, plan: Plan, steps: Steps, limits: Limits, tell: Tell) -> None:
        self.configurations = 0
        self._levels = plan.levels
        self._groups = plan.groups
        self._steps = steps
        self._limits = limits
        self._tell = tell
        self._end = limits.clock() + limits.seconds
        self._seen: dict[tuple[int, int, int], list[int]] = {}
        """By level, state and open operations placed: the smallest sets of unanswered ones that were used on the way."""
        self._deepest = -1
        self._stuck_in: dict[int, None] = {}  # ordered, for the same words every time
        self._weighed = 0
        self._state_bytes = 0

    def run(self) -> Searched:
        """Search. Raises `_GaveUp` where the limits end it."""
        for start in range(len(self._steps.states)):
            level, configuration = self._advanced(0, _Configuration(start, 0, 0, None))
            stack = [(level, self._exits(level, configuration))]
            while stack and level < len(self._levels):
                reached, exits = stack[-1]
                found = next(exits, None)
                if found is None:
                    stack.pop()
                    continue
                level, configuration = self._advanced(reached, found)
                stack.append((level, self._exits(level, configuration)))
            if stack:
                return Searched(verdict=Verdict.LINEARIZABLE, order=_in_order(configuration.path))
        return Searched(
            verdict=Verdict.NOT_LINEARIZABLE,
            stuck=self._levels[self._deepest].number,
            expected=self._steps.expected(self._stuck_in, self._levels[self._deepest].kind),
            states=tuple(self._steps.states),
        )

    def _advanced(self, level: int, now: _Configuration) -> tuple[int, _Configuration]:
        """On to the first moment at which an answer is not yet explained."""
        while level < len(self._levels):
            here = self._levels[level]
            if not now.placed & here.bit:
                now = self._settled(here, now)
                if not now.placed & here.bit:
                    break
            now = _Configuration(now.state, now.placed & ~here.bit, now.used, now.path)
            level += 1
        return level, now

    def _exits(self, level: int, start: _Configuration) -> Iterator[_Configuration]:
        """Every way to explain the answer of this moment, the shortest first."""
        if level > self._deepest:
            self._deepest = level
            self._stuck_in.clear()
        if not self._is_new(level, start):
            return
        here = self._levels[level]
        queue = [start]
        for now in queue:  # which grows
            for after in self._followed(here, now, is_deepest=level == self._deepest):
                settled = self._settled(here, after)
                if settled.placed & here.bit:
                    yield settled
                elif self._is_new(level, settled):
                    queue.append(settled)

    def _followed(self, here: Level, now: _Configuration, *, is_deepest: bool) -> Iterator[_Configuration]:
        """What may take effect next."""
        after = self._steps.after
        tried = set()
        for bit, kind, number in here.open:
            if now.placed & bit or kind in tried:
                continue
            tried.add(kind)  # of equal calls the one that is answered first goes first
            state = after(now.state, kind)
            if state != ILLEGAL:
                yield _Configuration(state, now.placed | bit, now.used, _Path(number, now.path))
            elif is_deepest and bit == here.bit:
                self._stuck_in[now.state] = None
        if free := here.unanswered & ~now.used:
            for kind, bits, numbers, lowest in self._groups:
                if mine := free & bits:
                    state = after(now.state, kind)
                    if state not in (ILLEGAL, now.state):
                        oldest = mine & -mine
                        number = numbers[oldest.bit_length() - 1 - lowest]
                        yield _Configuration(state, now.placed, now.used | oldest, _Path(number, now.path))

    def _settled(self, here: Level, now: _Configuration) -> _Configuration:
        """With every open operation in its place that fits here and only observes."""
        state, placed, used, path = now
        observing = self._steps.observing
        for bit, kind, number in here.open:
            if kind in observing and not placed & bit and self._steps.after(state, kind) != ILLEGAL:
                placed |= bit
                path = _Path(number, path)
        return now if placed == now.placed else _Configuration(state, placed, used, path)

    def _is_new(self, level: int, now: _Configuration) -> bool:
        """Whether none like it was entered that had used no other unanswered operations; then it is remembered."""
        used = now.used
        seen = self._seen.setdefault((level, now.state, now.placed), [])
        if any(not before & ~used for before in seen):
            return False
        seen.append(used)
        self.configurations += 1
        if self.configurations > self._limits.configurations:
            raise _GaveUp(f"after {self._limits.configurations:,} configurations")
        if self.configurations % _LOOK_EVERY == 1:
            self._look()
        return True

    def _look(self) -> None:
        if self._limits.clock() >= self._end:
            raise _GaveUp(f"after {self._limits.seconds:.2g} s")
        states = self._steps.states
        self._state_bytes += sum(map(sys.getsizeof, states[self._weighed :]))
        self._weighed = len(states)
        if self._state_bytes > self._limits.state_bytes:
            raise _GaveUp(f"after {len(states):,} states of the model, which take {self._state_bytes:,} bytes")
        self._tell(self.configurations)


def _in_order(path: _Path | None) -> tuple[int, ...]:
    order = []
    while path is not None:
        order.append(path.number)
        path = path.before
    return tuple(reversed(order))

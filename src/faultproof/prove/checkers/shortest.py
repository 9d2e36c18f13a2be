"""The part of a history that no order explains: as few operations as possible, and what was expected instead.

To leave operations out would not do: without the write that it saw, every read is a contradiction. So the part is found
in three steps, none of which makes a contradiction that was not there:

1. *Cut.* Nothing after the first answer that cannot be explained matters. Nor do operations that were over before some
   moment, if the contradiction is there **whatever state** they left: any that the search has come across, and some
   more that the history's calls can lead to. The latest such moment is taken. What was called before it and not over
   may still take effect.
2. *Weaken.* An operation is weakened by forgetting its answer: it may have taken effect at any time after its call, or
   never. The **core** are those that must not be weakened: with all others weakened they cannot be put in order, and with
   any one of them weakened as well, they can. (Weakening is monotone, so each need be tried only once; halves first, as
   in A. Zeller & R. Hildebrandt, "Simplifying and isolating failure-inducing input", 2002.)
3. *Explain.* Without the answer at which it breaks the core can be put in order; the fewest others that this takes are
   added. A read needs its write.

The core is minimal: none of it can be spared. It is not always the one with the fewest operations, which would take
exponential time to find.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace

from faultproof.prove.checkers.history import Operation
from faultproof.prove.checkers.models import Illegal, Model
from faultproof.prove.checkers.search import Limits, Searched, Verdict, search

_IMAGINED_MAX = 100


@dataclass(frozen=True, kw_only=True)
class Part:
    """Operations that together are not linearizable: a search of these alone has said so."""

    operations: tuple[Operation, ...]
    """In order of their calls. Weakened ones have no answer."""
    core: tuple[Operation, ...]
    """Those of them that cannot be put in order, whatever all others did."""
    breaks: Operation
    """The one of the core at whose answer no order goes on; nearly always the last to be answered."""
    expected: tuple[str, ...]
    """What the model would have said instead of the answer of `breaks`, in the states that it may have been in then."""
    around: tuple[Operation, ...]
    """What was looked at: the core, and all others after the cut, weakened."""
    cut: int
    """The line before which nothing mattered."""
    starts: tuple[Hashable, ...]
    """The states that the object may be in then."""
    is_minimal: bool
    """False if time ran out before each was tried."""


def shortest_part(
    operations: Sequence[Operation], model: Model[Hashable], found: Searched, limits: Limits | None = None
) -> Part:
    """The part of these operations of one object, of which `found` says that they are not linearizable.

    Takes about `limits.seconds` at most, and shows more than the minimum when they are over.
    """
    judge = _Judge(model, limits or Limits())
    judge.allow(0.4)
    history = _until_stuck(operations, found, judge)
    judge.starts = _imaginable(history, model, found.states)
    history, cut, judge.starts = _cut(history, judge, model.initial)
    judge.allow(0.8)
    core = {number for number, each in enumerate(history) if each.returned is not None}
    _without(core, set(core), lambda kept: judge.contradicts(_only(history, kept)))
    breaks, expected = _breaking(history, core, operations, found, judge)
    others = _needed(history, core, breaks, judge)
    part = [others.get(number, each) for number, each in enumerate(history) if number in core or number in others]
    judge.allow(1.0)
    if not judge.contradicts(part):  # no time to make sure: then it is all that was looked at
        part = history
    return Part(
        operations=tuple(part),
        core=tuple(each for number, each in enumerate(history) if number in core),
        breaks=breaks,
        expected=expected,
        around=tuple(_only(history, core)),
        cut=cut,
        starts=judge.starts,
        is_minimal=judge.in_time,
    )


class _Judge:
    """Searches within what is left of the time, beginning in any of `starts`."""

    def __init__(self, model: Model[Hashable], limits: Limits) -> None:
        self.starts: tuple[Hashable, ...] = (model.initial,)
        self.in_time = True
        self._model = model
        self._limits = limits
        self._began = self._end = limits.clock()

    def allow(self, share: float) -> None:
        """Go on until this share of the whole time is over."""
        self._end = self._began + share * self._limits.seconds

    def searched(self, operations: Sequence[Operation]) -> Searched:
        limits = replace(self._limits, seconds=self._end - self._limits.clock())
        found = search(operations, self._model, limits, starts=self.starts)
        self.in_time &= found.verdict is not Verdict.UNKNOWN
        return found

    def contradicts(self, operations: Sequence[Operation]) -> bool:
        """What cannot be settled in time counts as no: an operation that may be needed is kept."""
        return self.searched(operations).verdict is Verdict.NOT_LINEARIZABLE

    def explains(self, operations: Sequence[Operation]) -> bool:
        return self.searched(operations).verdict is Verdict.LINEARIZABLE


def _until_stuck(operations: Sequence[Operation], found: Searched, judge: _Judge) -> list[Operation]:
    """What was called before the first answer that cannot be explained; nothing later matters."""
    assert found.stuck is not None
    moment = operations[found.stuck].returned
    assert moment is not None
    history = [each for each in operations if each.called < moment]
    # What came afterwards was not known yet, and is seldom needed.
    unknown = [_weakened(each) if each.returned is None or each.returned > moment else each for each in history]
    return unknown if judge.contradicts(unknown) else history


def _breaking(
    history: Sequence[Operation],
    core: Collection[int],
    operations: Sequence[Operation],
    found: Searched,
    judge: _Judge,
) -> tuple[Operation, tuple[str, ...]]:
    """The operation of the core at which no order goes on, and what was expected of it."""
    assert found.stuck is not None
    last = judge.searched(_only(history, core))
    if last.stuck is None or history[last.stuck] == operations[found.stuck]:
        return operations[found.stuck], found.expected
    return history[last.stuck], last.expected


def _imaginable(
    history: Sequence[Operation], model: Model[Hashable], states: Sequence[Hashable]
) -> tuple[Hashable, ...]:
    """The states that were seen, and a number of those that any of these calls, in any order, can lead to.

    More than the history allows: a reader who sees that the last value was read twice should not have to know how often
    it was written a thousand lines before.
    """
    known = dict.fromkeys((model.initial, *states))
    most = len(known) + _IMAGINED_MAX
    calls = dict.fromkeys(_weakened(each).call for each in history)
    queue = list(known)
    for state in queue:  # which grows
        for call in calls:
            if len(known) >= most:
                return tuple(known)
            after = model.step(state, call)
            if not isinstance(after, Illegal) and after not in known:
                known[after] = None
                queue.append(after)
    return tuple(known)


def _cut(
    history: list[Operation], judge: _Judge, initial: Hashable
) -> tuple[list[Operation], int, tuple[Hashable, ...]]:
    """The history after the latest moment before which nothing matters, that moment, and the states it may begin in."""
    moments = [each.called for each in history if each.returned is not None]

    def contradicts(back: int) -> bool:
        return judge.contradicts(_after(moments[-back], history))

    low, high = 0, 1
    while not contradicts(high):  # twice as far back until it is there, then by halves
        if high == len(moments):
            return history, 0, (initial,)
        low, high = high, min(2 * high, len(moments))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if contradicts(middle) else (middle, high)
    after = _after(moments[-high], history)
    return (after, moments[-high], judge.starts) if len(after) < len(history) else (history, 0, (initial,))


def _after(moment: int, history: Sequence[Operation]) -> list[Operation]:
    return [
        each if each.called >= moment else _weakened(each)
        for each in history
        if each.called >= moment or each.returned is None or each.returned > moment
    ]


def _needed(
    history: Sequence[Operation], core: Collection[int], breaks: Operation, judge: _Judge
) -> dict[int, Operation]:
    """The fewest others with which the core can be put in order, but for the one that breaks it.

    With their answers, unless it is without them only that they help.
    """
    explained = [_weakened(each) if each == breaks else each for each in history]
    needed = set(judge.searched(_only(explained, core)).order) - set(core)

    def explains(kept: Collection[int], answered: Collection[int]) -> bool:
        return judge.explains([each for number, each in enumerate(_only(explained, answered)) if number in kept])

    _without(needed, set(needed), lambda kept: explains({*core, *kept}, core))
    answered = set(core)
    for number in needed:
        if explains({*core, *needed}, {*answered, number}):
            answered.add(number)
    return {number: history[number] if number in answered else _weakened(history[number]) for number in needed}


def _weakened(operation: Operation) -> Operation:
    return replace(operation, call=operation.call._replace(result=None, answered=False), returned=None)


def _only(operations: Sequence[Operation], kept: Collection[int]) -> list[Operation]:
    return [each if number in kept else _weakened(each) for number, each in enumerate(operations)]


def _without(kept: set[int], candidates: set[int], is_enough: Callable[[Collection[int]], bool]) -> None:
    """Remove from `kept` every candidate that is not needed, many at a time while that works."""
    left = sorted(candidates)
    size = len(left)
    while size:
        for start in range(0, len(left), size):
            some = set(left[start : start + size])
            if is_enough(kept - some):
                kept -= some
        left = [number for number in left if number in kept]
        size = min(size // 2, len(left))

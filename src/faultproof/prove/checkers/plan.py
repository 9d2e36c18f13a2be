"""A history of one object, laid out for the search: levels, bits, and which operations stand for each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from faultproof.errors import InvalidInput
from faultproof.prove.checkers.history import Call, Operation
from faultproof.prove.checkers.models import Illegal, Model

ILLEGAL = -1
_SLOTS_MAX = 5_000_000
_EXPECTED_MAX = 8


class TooWide(Exception):
    """More operations are open at once than there is memory for."""


class Open(NamedTuple):
    """An operation that has been called and will be answered."""

    bit: int
    kind: int
    """The number of its call: operations with equal calls are of one kind."""
    number: int
    """Its place in the history."""


class Level(NamedTuple):
    """The moment before an answer: by now its operation must have taken effect."""

    bit: int
    kind: int
    number: int
    """Of the operation that is answered."""
    open: tuple[Open, ...]
    """Those that may take effect now and will be answered, the next to be answered first."""
    unanswered: int
    """The bits of those that have been called by now, and are never answered."""


class Group(NamedTuple):
    """Unanswered operations with equal calls: they can stand for each other, so they are used in order of their calls."""

    kind: int
    bits: int
    numbers: tuple[int, ...]
    lowest: int
    """Index of the lowest of its bits."""


class Plan(NamedTuple):
    """What the search reads."""

    levels: tuple[Level, ...]
    groups: tuple[Group, ...]
    calls: tuple[Call, ...]
    """By kind."""


def planned(operations: Sequence[Operation]) -> Plan:
    """The layout of these operations, which stand in order of their calls. Raises `TooWide`."""
    kinds: dict[Call, int] = {}
    kind_of = [kinds.setdefault(operation.call, len(kinds)) for operation in operations]
    groups, bit_of = _groups(operations, kind_of)
    return Plan(tuple(_levels(operations, kind_of, bit_of)), groups, tuple(kinds))


def _groups(operations: Sequence[Operation], kind_of: list[int]) -> tuple[tuple[Group, ...], dict[int, int]]:
    numbers_of: dict[int, list[int]] = {}
    for number, operation in enumerate(operations):
        if operation.returned is None:
            numbers_of.setdefault(kind_of[number], []).append(number)
    groups, bit_of, lowest = [], {}, 0
    for kind, numbers in numbers_of.items():
        bits = ((1 << len(numbers)) - 1) << lowest
        groups.append(Group(kind, bits, tuple(numbers), lowest))
        bit_of.update({number: 1 << lowest + place for place, number in enumerate(numbers)})
        lowest += len(numbers)
    return tuple(groups), bit_of


def _levels(operations: Sequence[Operation], kind_of: list[int], bit_of: dict[int, int]) -> list[Level]:
    """Answered operations share bits: one that is free again is given to the next call."""
    answers = [(each.returned, number) for number, each in enumerate(operations) if each.returned is not None]
    rank = {number: place for place, (_, number) in enumerate(sorted(answers))}
    free: list[int] = []
    waiting: dict[int, Open] = {}
    unanswered, bits, slots, called = 0, 0, 0, 0
    levels = []
    for returned, number in sorted(answers):
        while called < len(operations) and operations[called].called < returned:
            if called in rank:
                if not free:
                    free.append(1 << bits)
                    bits += 1
                waiting[called] = Open(free.pop(), kind_of[called], called)
            else:
                unanswered |= bit_of[called]
            called += 1
        slots += len(waiting)
        if slots > _SLOTS_MAX:
            raise TooWide
        is_open = tuple(sorted(waiting.values(), key=lambda each: rank[each.number]))
        levels.append(Level(*waiting[number], is_open, unanswered))
        free.append(waiting.pop(number).bit)
    return levels


class Steps:
    """The model as a table of numbered states and kinds of calls, filled when it is first asked."""

    def __init__(self, model: Model[Hashable], calls: Sequence[Call], starts: Sequence[Hashable]) -> None:
        self.states: list[Hashable] = list(dict.fromkeys(starts))
        self._model = model
        self._calls = calls
        self._number_of: dict[Hashable, int] = {state: number for number, state in enumerate(self.states)}
        self._rows: list[dict[int, int]] = [{} for _ in self.states]
        observes: Callable[[Call], bool] = getattr(model, "observes", lambda _: False)
        self.observing = frozenset(kind for kind, call in enumerate(calls) if observes(call))
        """Kinds that change no state."""

    def after(self, state: int, kind: int) -> int:
        """The state after the call, or `ILLEGAL`."""
        row = self._rows[state]
        found = row.get(kind)
        if found is None:
            found = row[kind] = self._asked(state, kind)
        return found

    def expected(self, states: Iterable[int], kind: int) -> tuple[str, ...]:
        """What the model says instead of that call in these states, each once, a few at most."""
        answers = (self._model.step(self.states[state], self._calls[kind]) for state in states)
        said = dict.fromkeys(answer.expected for answer in answers if isinstance(answer, Illegal))
        return tuple(said)[:_EXPECTED_MAX]

    def _asked(self, state: int, kind: int) -> int:
        after = self._model.step(self.states[state], self._calls[kind])
        if isinstance(after, Illegal):
            return ILLEGAL
        if kind in self.observing and after != self.states[state]:
            raise InvalidInput(f"the model says that {self._calls[kind]} only observes, and it changes a state")
        number = self._number_of.setdefault(after, len(self.states))
        if number == len(self.states):
            self.states.append(after)
            self._rows.append({})
        return number

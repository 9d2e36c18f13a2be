"""Histories for the checkers' tests: written by hand, made at random, and judged by trying every order."""

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from itertools import chain, combinations, permutations
from random import Random
from typing import Any, NamedTuple

from faultproof.prove.checkers.history import Entry, History, Operation, paired
from faultproof.prove.checkers.models import CasRegister, Counter, Illegal, Lock, Model, Queue, Register
from faultproof.prove.checkers.search import Limits

PATIENT = Limits(clock=lambda: 0.0)
"""Time stands still: a busy machine must not decide a test."""

ANSWERS = ("ok", "fail", "info")


def events(text: str) -> list[Entry]:
    """`a write 1 | a ok | b read | b ok 1`: who, what, and the value as JSON; an answer is to the open call."""
    made, open_ops = [], dict[str, str]()
    for each in text.split("|"):
        process, word, *value = each.split(maxsplit=2)
        if word in ANSWERS:
            type, op = word, open_ops.pop(process)
        else:
            type, op = "invoke", open_ops.setdefault(process, word)
        made.append(Entry(type=type, process=process, op=op, value=json.loads(value[0]) if value else None))  # type: ignore[arg-type]
    return made


def history(text: str) -> History:
    return paired(enumerate(events(text), start=1))


def possible(operations: Sequence[Operation], model: Model[Any], starts: Sequence[Hashable] | None = None) -> bool:
    """Whether any order at all explains them: every permutation, with and without each that was never answered."""
    sure = [each for each in operations if each.returned is not None]
    unsure = [each for each in operations if each.returned is None]
    some = chain.from_iterable(combinations(unsure, count) for count in range(len(unsure) + 1))
    begins = [model.initial] if starts is None else starts
    return any(
        explains(order, model, start) for each in some for order in permutations((*sure, *each)) for start in begins
    )


def possible_for(operations: Sequence[Operation], model: Model[Any]) -> bool:
    """The same for somewhat longer histories: Wing and Gong's search in its plainest form."""

    @cache
    def can_go_on(left: frozenset[Operation], state: Hashable) -> bool:
        sure = [each.returned for each in left if each.returned is not None]
        if not sure:
            return True
        return any(
            not isinstance(after := model.step(state, each.call), Illegal) and can_go_on(left - {each}, after)
            for each in left
            if each.called < min(sure)
        )

    return can_go_on(frozenset(operations), model.initial)


def explains(order: Sequence[Operation], model: Model[Any], start: Hashable) -> bool:
    """Whether this order respects time and the model."""
    latest_call, state = 0, start
    for each in order:
        latest_call = max(latest_call, each.called)
        if each.returned is not None and each.returned < latest_call:
            return False
    for each in order:
        state = model.step(state, each.call)
        if isinstance(state, Illegal):
            return False
    return True


class Kind(NamedTuple):
    """A model, calls that may be made, and an object that answers them: written once more, not by the model."""

    model: Model[Any]
    draw: Callable[[Random], tuple[str, Any]]
    act: Callable[[Any, str, Any], tuple[Any, Any]]
    """State, call, value: the state after it, and the answer."""
    start: Any
    lies: tuple[Any, ...]
    """Answers of an object that is broken."""


def _register(state: Any, op: str, value: Any) -> tuple[Any, Any]:
    if op == "cas":
        return (value[1], True) if state == value[0] else (state, False)
    return (value, None) if op == "write" else (state, state)


def _counter(state: Any, op: str, value: Any) -> tuple[Any, Any]:
    return (state + value, None) if op == "add" else (state, state)


def _queue(state: Any, op: str, value: Any) -> tuple[Any, Any]:
    if op == "enqueue":
        return [*state, value], None
    return state[1:], state[0] if state else None


def _lock(state: Any, op: str, value: Any) -> tuple[Any, Any]:
    if op == "acquire":
        return (value, True) if state is None else (state, False)
    return (None, True) if state == value else (state, False)


KINDS = {
    "register": Kind(
        Register(), lambda r: r.choice([("write", r.randint(1, 2)), ("read", None)]), _register, None, (None, 1, 2)
    ),
    "cas-register": Kind(
        CasRegister(),
        lambda r: r.choice([("write", r.randint(1, 2)), ("read", None), ("cas", [r.randint(1, 2), r.randint(1, 2)])]),
        _register,
        None,
        (None, 1, 2, True, False),
    ),
    "counter": Kind(
        Counter(), lambda r: r.choice([("add", r.choice([1, 1, 2, -1])), ("read", None)]), _counter, 0, (0, 1, 2, 3)
    ),
    "queue": Kind(
        Queue(), lambda r: r.choice([("enqueue", r.randint(1, 2)), ("dequeue", None)]), _queue, [], (None, 1, 2)
    ),
    "lock": Kind(
        Lock(), lambda r: (r.choice(["acquire", "release"]), r.choice(["x", "y"])), _lock, None, (True, False)
    ),
}


def random_history(kind: Kind, random: Random, count: int, lost: float = 0.1) -> History:
    """`count` operations of a few processes on one object, of which some answers are lies, and some are lost."""
    return paired(enumerate(random_events(kind, random, count, lost), start=1))


def random_events(kind: Kind, random: Random, count: int, lost: float = 0.1) -> Iterator[Entry]:
    state, left, fresh = kind.start, count, 0
    idle = [f"p{number}" for number in range(random.randint(1, 4))]
    busy: dict[str, list[Any]] = {}
    while left or busy:
        if left and idle and (not busy or random.random() < 0.5):
            process = idle.pop(random.randrange(len(idle)))
            op, value = kind.draw(random)
            busy[process] = [op, value, None, False]
            left -= 1
            yield Entry(type="invoke", process=process, op=op, value=value)
            continue
        process = random.choice(list(busy))
        call = busy[process]
        op, value, answer, has_happened = call
        fate = random.random()
        if fate < 0.35 and not has_happened:  # it takes effect, long before the answer perhaps
            state, call[2] = kind.act(state, op, value)
            call[3] = True
        elif fate < 0.35 + lost / 2:
            fresh += 1
            del busy[process]
            idle.append(f"q{fresh}")  # who never heard an answer is not heard of again
            if fate < 0.35 + lost / 2:
                yield Entry(type="info", process=process, op=op)
        elif has_happened:
            del busy[process]
            idle.append(process)
            value = random.choice(kind.lies) if random.random() < 0.4 else answer
            yield Entry(type="ok", process=process, op=op, value=value)
        elif random.random() < 0.2:
            del busy[process]
            idle.append(process)
            yield Entry(type="fail", process=process, op=op)

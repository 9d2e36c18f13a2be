"""What must be true of rows, as functions that return what is wrong: an empty list, or a sentence for each fault.

They are given what was read and ask nobody, so they serve a proof's `always` and `eventually`, a test, and an audit of
a live system alike. Each returns at most `SENTENCES_MAX` sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
Fold: TypeAlias = Callable[[T], list[str]]
"""Says what is wrong with a value."""

SENTENCES_MAX = 20


def together(*folds: Fold[T]) -> Fold[T]:
    """All of these."""
    return lambda value: _bounded(sentence for fold in folds for sentence in fold(value))


def after_every_commit(fold: Fold[T]) -> Fold[Iterable[T]]:
    """The same of every value in turn, with what was read after each commit; stops at the first that is wrong."""

    def judged(values: Iterable[T]) -> list[str]:
        for number, value in enumerate(values, start=1):
            if wrong := fold(value):
                return [f"after commit {number}: {sentence}" for sentence in wrong]
        return []

    return judged


class Published(NamedTuple):
    """An event: of a committed transaction, or as it came out of a stream."""

    key: str
    """Events of one key must keep their order."""
    event: Hashable


def stream_is_what_was_committed(committed: Sequence[Published], stream: Sequence[Published]) -> list[str]:
    """Each committed event is in the stream once, nothing else is, and those of one key are in the order of commits."""
    wanted, got = Counter(committed), Counter(stream)
    wrong = [f"{each.event!r} of key {each.key!r} was committed and is not in the stream" for each in (wanted - got)]
    for each, more in (got - wanted).items():
        if each in wanted:
            wrong.append(
                f"{each.event!r} of key {each.key!r} is in the stream {more + wanted[each]} times, not {wanted[each]}"
            )
        else:
            wrong.append(f"{each.event!r} of key {each.key!r} is in the stream and was never committed")
    if not wrong:
        orders = zip(_by_key(committed).items(), _by_key(stream).values(), strict=True)
        wrong = [
            f"events of key {key!r} were committed as {before!r} and streamed as {after!r}"
            for (key, before), after in orders
            if before != after
        ]
    return _bounded(wrong)


def _by_key(events: Sequence[Published]) -> dict[str, list[Hashable]]:
    found: dict[str, list[Hashable]] = {}
    for each in sorted(events, key=lambda each: each.key):  # stable: of one key they stay as they are
        found.setdefault(each.key, []).append(each.event)
    return found


class Stock(NamedTuple):
    """Where the units of one item are."""

    item: str
    total: int
    available: int
    reserved: int
    sold: int


def stock_adds_up(stocks: Iterable[Stock]) -> list[str]:
    """Of every item reserved + sold + available == total, and none of them is negative."""
    wrong = []
    for item, total, available, reserved, sold in stocks:
        where = f"{reserved} reserved + {sold} sold + {available} available"
        if reserved + sold + available != total:
            wrong.append(f"{item!r}: {where} is {reserved + sold + available}, and there are {total}")
        if min(reserved, sold, available) < 0:
            wrong.append(f"{item!r}: less than none: {where}")
    return _bounded(wrong)


class SagaStep(NamedTuple):
    """How a step of a saga ended, when all of it has."""

    saga: str
    step: str
    state: Literal["none", "done", "undone"]
    """Never took effect; took effect; took effect and was compensated."""


def all_done_or_all_undone(steps: Iterable[SagaStep]) -> list[str]:
    """Of every saga either all steps are done, or none is: each was compensated, or never took effect."""
    sagas: dict[str, dict[str, list[str]]] = {}
    for saga, step, state in steps:
        sagas.setdefault(saga, {}).setdefault(state, []).append(step)
    return _bounded(
        f"{saga!r} is half done: {_listed(states['done'])} done, and {_listed(rest)} not"
        for saga, states in sagas.items()
        if "done" in states and (rest := [*states.get("none", ()), *states.get("undone", ())])
    )


class Mark(NamedTuple):
    """Somebody began or ended work on a key, or died, in order of time.

    To be marked by whoever works, after it has begun and before it ends: then what overlaps here overlapped in truth.
    """

    key: str
    """Of the dead, any: whatever it was at is over."""
    who: str
    did: Literal["began", "ended", "died"]


def at_most_one_in_flight(marks: Iterable[Mark]) -> list[str]:
    """Nobody begins work on a key while somebody else is at it; and only who began it ends it."""
    wrong, at_work = [], dict[str, str]()
    for number, (key, who, did) in enumerate(marks, start=1):
        holder = at_work.get(key)
        if did == "died":
            at_work = {each: at_it for each, at_it in at_work.items() if at_it != who}
        elif did == "began":
            if holder is not None:
                wrong.append(f"mark {number}: {who!r} began {key!r} while {holder!r} was at it")
            at_work[key] = who
        elif holder == who:
            del at_work[key]
        else:
            wrong.append(
                f"mark {number}: {who!r} ended {key!r}, and {'nobody' if holder is None else repr(holder)} was at it"
            )
    return _bounded(wrong)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"{name!r}" for name in names) + (" is" if len(names) == 1 else " are")


def _bounded(sentences: Iterable[str]) -> list[str]:
    found = list(sentences)
    more = len(found) - SENTENCES_MAX
    return [*found[: SENTENCES_MAX - 1], f"and {more + 1} more"] if more > 0 else found

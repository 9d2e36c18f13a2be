"""The part that is shown: it is bad by itself, none of its core can be spared, and it does not lie."""

from dataclasses import replace
from itertools import count
from random import Random

import pytest

from faultproof.prove.checkers.history import History, Operation
from faultproof.prove.checkers.linearizability import judge
from faultproof.prove.checkers.models import Counter, Register
from faultproof.prove.checkers.search import Limits, Verdict, search
from faultproof.prove.checkers.shortest import Part, shortest_part
from tests.prove.checkers.histories import KINDS, PATIENT, Kind, history, possible, random_history


def bad(kind: Kind, many: int, operations: int) -> list[tuple[History, Part]]:
    """Histories that are not linearizable, with their parts."""
    found = []
    for seed in range(many):
        made = random_history(kind, Random(seed), operations)
        if made.operations and (part := judge(made, kind.model, PATIENT).objects[0].part) is not None:
            found.append((made, part))
    return found


def weakened(operation: Operation) -> Operation:
    return replace(operation, call=operation.call._replace(result=None, answered=False), returned=None)


@pytest.mark.parametrize("name", KINDS)
def test_part_is_bad_by_itself_and_none_of_its_core_can_be_spared(name: str) -> None:
    kind = KINDS[name]
    parts = [*bad(kind, 120, 6), *bad(kind, 20, 7)]
    assert len(parts) >= 15
    smaller = 0
    for made, part in parts:
        assert part.is_minimal
        assert set(part.core) <= set(part.operations)
        assert not possible(part.operations, kind.model)
        assert not possible(part.around, kind.model, part.starts)
        for each in part.core:
            spared = [weakened(one) if one == each else one for one in part.around]
            assert possible(spared, kind.model, part.starts), str(each.call)
        smaller += len(part.operations) < len(made.operations)
    assert smaller > len(parts) / 2


@pytest.mark.parametrize("name", KINDS)
def test_part_is_of_the_history_and_breaks_where_it_says(name: str) -> None:
    kind = KINDS[name]
    for made, part in bad(kind, 120, 9):
        real = {each.called: each for each in made.operations}
        assert all(each in (real[each.called], weakened(real[each.called])) for each in part.operations)
        assert all(each == real[each.called] for each in part.core)
        assert part.breaks in part.core
        # But for the last answer it can be explained, and what is said to be expected is not what was answered.
        without = [weakened(each) if each == part.breaks else each for each in part.operations]
        assert search(without, kind.model, starts=part.starts).verdict is Verdict.LINEARIZABLE
        assert part.expected
        assert str(part.breaks.call) not in part.expected


def test_write_that_a_read_needs_is_not_left_out() -> None:
    """Leaving operations out would show that read alone, as if nobody had written what it saw."""
    text = "a write 1 | a ok | a write 2 | a ok | b read | b ok 1"
    part = judge(history(text), Register(), PATIENT).objects[0].part
    assert part is not None
    assert [str(each.call) for each in part.operations] == ["write 2", "read → 1"]
    assert (part.cut, set(part.starts)) == (3, {None, 1, 2})


def test_contradiction_in_a_long_history_is_small() -> None:
    good = " | ".join(f"a write {number} | b read | a ok | b ok {number}" for number in range(300))
    part = judge(history(f"{good} | c read | c ok 299 | d read | d ok 7 | {good}"), Register(), PATIENT).objects[0].part
    assert part is not None
    assert [str(each.call) for each in part.operations] == ["read → 299", "read → 7"]
    assert part.expected == ("read → 299",)


def test_cut_is_as_late_as_the_contradiction_allows() -> None:
    good = " | ".join(f"a add 1 | a ok | b read | b ok {number + 1}" for number in range(50))
    part = judge(history(f"{good} | c add 1 | c ok | b read | b ok 50"), Counter(), PATIENT).objects[0].part
    assert part is not None
    assert [str(each.call) for each in part.core] == ["read → 50", "add 1", "read → 50"]
    assert part.cut == part.core[0].called
    assert part.expected == ("read → 51",)


def test_without_time_it_shows_more_than_the_minimum_and_says_so() -> None:
    made = history("a write 1 | a ok | a write 2 | a ok | b read | b ok 1 | b read | b ok 2").operations
    found = search(made, Register())
    ticks = count()
    part = shortest_part(made, Register(), found, Limits(seconds=0.5, clock=lambda: next(ticks)))
    assert not part.is_minimal
    assert [str(each.call) for each in part.operations] == ["write 1", "write 2", "read → 1"]
    assert not possible(part.operations, Register())

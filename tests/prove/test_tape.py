"""The choice tape: dull by default, replayable, shrinkable."""

import random
from collections.abc import Mapping

import pytest

from faultproof.prove.simulated.tape import Tape, shrink


def test_an_empty_tape_gives_the_dull_answer_for_ever():
    tape = Tape()
    assert [tape.choose(7) for _ in range(5)] == [0] * 5
    assert tape.answers == {}


def test_a_replayed_tape_gives_the_recorded_answers():
    first = Tape(rng=random.Random(1), chance=0.5)
    answers = [first.choose(5) if n % 2 else first.fault((1, 2)) for n in range(200)]
    again = Tape(dict(first.answers))
    assert [again.choose(5) if n % 2 else again.fault((1, 2)) for n in range(200)] == answers
    assert again.answers == first.answers


def test_shrinking_keeps_only_what_matters():
    calls = []

    def fails(answers: Mapping[int, int]) -> bool:
        calls.append(answers)
        return answers.get(17, 0) >= 2 and 40 in answers

    noise = dict.fromkeys(range(60), 3)
    assert shrink(noise, fails) == {17: 2, 40: 1}
    assert len(calls) < 200


def test_shrinking_drops_what_must_go_together():
    def fails(answers: Mapping[int, int]) -> bool:
        return 20 in answers and (3 in answers) == (31 in answers)

    assert shrink({3: 1, 8: 1, 20: 1, 25: 2, 31: 1}, fails) == {20: 1}


def test_shrinking_drops_what_a_lower_value_has_made_superfluous():
    def fails(answers: Mapping[int, int]) -> bool:
        return answers.get(9) == 1 or (answers.get(9) == 3 and 4 in answers)

    assert shrink({4: 1, 9: 3}, fails) == {9: 1}


def test_shrinking_begins_again_after_each_step():
    """Each entry can go only after the one behind it."""

    def fails(answers: Mapping[int, int]) -> bool:
        return list(answers) == list(range(len(answers)))

    assert shrink(dict.fromkeys(range(24), 1), fails) == {}


def test_shrinking_leaves_what_cannot_shrink():
    assert shrink({1: 2, 5: 1}, lambda answers: answers == {1: 2, 5: 1}) == {1: 2, 5: 1}
    assert shrink({}, lambda answers: True) == {}


@pytest.mark.parametrize("runs_max", [0, 1, 7, 50])
def test_shrinking_stops_after_so_many_runs_with_a_tape_that_fails(runs_max: int):
    calls = []

    def fails(answers: Mapping[int, int]) -> bool:
        calls.append(answers)
        return len(answers) % 2 == 0 and 11 in answers

    shrunk = shrink(dict.fromkeys(range(100), 7), fails, runs_max=runs_max)
    assert len(calls) == runs_max
    assert fails(shrunk)

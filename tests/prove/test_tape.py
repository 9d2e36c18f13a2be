"""The choice tape: dull by default, replayable, shrinkable."""

import random

from faultproof.prove.tape import Tape, shrink


def test_an_empty_tape_gives_the_dull_answer_for_ever():
    tape = Tape()
    assert [tape.choose(7) for _ in range(5)] == [0] * 5
    assert tape.answers == {}


def test_a_replayed_tape_gives_the_recorded_answers():
    first = Tape(rng=random.Random(1), chance=0.5)
    answers = [first.choose(5) if n % 2 else first.fault(3) for n in range(200)]
    again = Tape(dict(first.answers))
    assert [again.choose(5) if n % 2 else again.fault(3) for n in range(200)] == answers
    assert again.answers == first.answers


def test_shrinking_keeps_only_what_matters():
    calls = []

    def fails(answers: object) -> bool:
        calls.append(answers)
        return isinstance(answers, dict) and answers.get(17, 0) >= 2 and 40 in answers

    noise = dict.fromkeys(range(60), 3)
    assert shrink(noise, fails) == {17: 2, 40: 1}
    assert len(calls) < 200

"""The choice tape: dull by default, replayable, shrinkable, and refused when it is something else."""

import json
import random
from pathlib import Path

import pytest

from faultproof.errors import InvalidInput
from faultproof.prove.tape import Tape, load, shrink


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


def test_a_saved_tape_is_loaded_whole(tmp_path: Path):
    tape = Tape({3: 2, 10: 1})
    for _ in range(20):
        tape.choose(4)
    tape.save(tmp_path / "tape.json", proof="a:B")
    proof, loaded = load(tmp_path / "tape.json")
    assert (proof, loaded.given) == ("a:B", {3: 2, 10: 1})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00binary",
        b"[]",
        b"{}",
        b'{"format": "other", "proof": "x", "answers": []}',
        b'{"format": "faultproof-tape-1", "proof": "x", "answers": [[1]]}',
        b'{"format": "faultproof-tape-1", "proof": "x", "answers": [["a", "b"]]}',
    ],
)
def test_what_is_no_tape_is_refused_by_name(tmp_path: Path, content: bytes):
    path = tmp_path / "tape.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"tape\.json"):
        load(path)
    assert path.read_bytes() == content


def test_a_missing_tape_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="nowhere"):
        load(tmp_path / "nowhere")


def test_shrinking_keeps_only_what_matters():
    calls = []

    def fails(answers: object) -> bool:
        calls.append(answers)
        return isinstance(answers, dict) and answers.get(17, 0) >= 2 and 40 in answers

    noise = dict.fromkeys(range(60), 3)
    assert shrink(noise, fails) == {17: 2, 40: 1}
    assert len(calls) < 200


def test_a_tape_is_plain_json(tmp_path: Path):
    Tape().save(tmp_path / "t", proof="p:Q")
    assert json.loads((tmp_path / "t").read_text()) == {"format": "faultproof-tape-1", "proof": "p:Q", "answers": []}

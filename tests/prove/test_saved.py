"""A saved run: all that it takes to repeat it, as plain JSON, and refused when it is something else."""

import json
from pathlib import Path

import pytest

from faultproof.errors import InvalidInput
from faultproof.prove.saved import load, save

RUN = {
    "format": "faultproof-tape-3",
    "proof": "a:B",
    "plant": "no token",
    "store": "files",
    "granularity": "statement",
    "answers": [[3, 2], [10, 1]],
}


def test_a_run_is_saved_whole_as_plain_json(tmp_path: Path):
    path = tmp_path / "tape"
    save(path, {10: 1, 3: 2}, proof="a:B", plant="no token", store="files", granularity="statement")
    assert json.loads(path.read_text()) == RUN
    saved = load(path)
    assert (saved.proof, saved.plant, saved.store, saved.granularity) == ("a:B", "no token", "files", "statement")
    assert dict(saved.answers) == {3: 2, 10: 1}


def test_a_run_without_planted_bug_says_so(tmp_path: Path):
    save(tmp_path / "tape", {}, proof="a:B")
    saved = load(tmp_path / "tape")
    assert (saved.plant, saved.store, saved.granularity, saved.answers) == (None, "memory", "commit", [])


def test_tape_of_the_first_format_is_refused_because_it_does_not_say_what_was_planted(tmp_path: Path):
    path = tmp_path / "old.tape"
    path.write_text('{"format": "faultproof-tape-1", "proof": "a:B", "answers": []}')
    with pytest.raises(InvalidInput, match=r"of format 'faultproof-tape-1'; this release replays 'faultproof-tape-3'"):
        load(path)


WRONG: dict[str, object] = {
    "proof": 1,
    "plant": 2,
    "store": "tape",
    "granularity": "byte",
    "answers": [[1]],
    "faults_max": 3,
}


@pytest.mark.parametrize("name", WRONG)
def test_value_that_no_release_has_written_is_refused_by_name(tmp_path: Path, name: str):
    path = tmp_path / "tape.json"
    path.write_text(json.dumps({**RUN, name: WRONG[name]}))
    with pytest.raises(InvalidInput, match=rf"tape\.json' is not a tape that can be replayed: .*{name}"):
        load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00binary",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"format": "faultproof-tape-3"}',
        b'{"format": "faultproof-tape-3", "proof": "x", "answers": [["a", "b"]]}',
        b'{"format": "faultproof-tape-3", "proof": "x", "answers": [[-1, 1]]}',
        b'{"format": "faultproof-tape-3", "proof": "x", "answers": [[1, Infinity]]}',
        b'{"format": "faultproof-tape-3", "proof": "\xff", "answers": []}',
    ],
)
def test_what_is_no_tape_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes):
    path = tmp_path / "tape.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"tape\.json"):
        load(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "\udcff", "."])
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str):
    with pytest.raises(InvalidInput, match="is not a tape that can be replayed"):
        load(tmp_path / name)

"""`faultproof prove --stepped` and `--engine`, and `faultproof check` on what live runs leave."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.executable import faultproof
from tests.servers.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
ENV = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
LITTLE = "tests.cli.little_proofs:"


def test_a_proof_that_holds_live_keeps_a_history_that_is_judged_again(tmp_path: Path) -> None:
    args = ("--engine", "sqlite", "--order", "kill:marker:2", "--save", str(tmp_path))
    said = faultproof("prove", LITTLE + "HELD", *args, status=0, env=ENV).stdout
    assert said.index("makes ") < said.index("claim "), "what is going to be done is said first"
    assert "on SQLite" in said.splitlines()[-2]
    assert said.splitlines()[-2].endswith(": held")
    (history,) = tmp_path.glob("*.jsonl")
    judged = faultproof("check", str(history), status=0, env=ENV).stdout
    assert judged.splitlines()[-1] == "result    held"
    # The same file, in which the database has told something else.
    told = [json.loads(line) for line in history.read_text().splitlines()]
    for event in told:
        if "query" in event:
            event["rows"] = [[1], [1]]
    other = tmp_path / "other"
    other.write_text("".join(json.dumps(event) + "\n" for event in told))
    (document,) = json.loads(faultproof("check", str(other), "--json", status=1, env=ENV).stdout)
    assert document["broken"] == {"there are two marks": ["the marks are [1, 1], not [1, 2]"]}


def test_a_violation_in_the_live_world_says_how_to_give_it_again() -> None:
    """Killed behind its first commit, the marker marks once more."""
    said = faultproof("prove", LITTLE + "VIOLATED", "--engine", "sqlite", "--order", "kill:marker:3", status=1, env=ENV)
    assert "the marks are [1, 1, 2], not [1, 2]; struck by" in said.stdout
    assert "again: --order kill:marker:3" in said.stdout


def test_sessions_are_stepped_on_the_server_that_is_named(postgres_server: PostgresServer) -> None:
    postgres_server.start()
    said = faultproof("prove", "claim", "--stepped", "--json", status=0, env=ENV)
    (document,) = json.loads(said.stdout)
    stepped = next(each for each in document["worlds"] if each["world"] == "stepped")
    assert stepped["verdict"] == "held"
    assert stepped["numbers"]["interleavings"] > 100
    assert any("70 interleavings of 2 sessions" in sentence for sentence in stepped["scope"])


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--engine", "oracle://x"), "an engine to prove on is `sqlite`"),
        (("--engine", "postgresql://db.example.com/x"), "--allow-remote"),
        (("--engine", "sqlite", "--stepped"), "--stepped takes sessions of PostgreSQL"),
        (("--engine", "sqlite", "--order", "kill:marker"), "is not an order"),
        (("--engine", "sqlite", "--kills", "-1"), "kills"),
        (("--order", "kill:marker:2"), "belong to the live world"),
        (("--worker", "true"), "belong to the live world"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_run(args: tuple[str, ...], sentence: str) -> None:
    refused = faultproof("prove", LITTLE + "HELD", *args, status=2, env=ENV)
    assert sentence in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stdout == ""


@pytest.mark.parametrize(
    "text", ["", "no json", "{}", '{"run": {}}', '{"run": {"proof": "nowhere:X", "order": "none"}}']
)
def test_what_is_no_history_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text + "\n" * bool(text))
    refused = faultproof("check", str(path), status=2, env=ENV)
    assert len(refused.stderr.splitlines()) == 1

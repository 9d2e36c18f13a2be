"""`faultproof prove --mutants`, through the real executable."""

import json
import os
from pathlib import Path

from tests.cli.executable import faultproof

ROOT = Path(__file__).resolve().parents[2]
LITTLE = "tests.cli.little_proofs:"
ENV = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}


def test_mutants_that_are_all_noticed_are_counted_by_kind() -> None:
    printed = faultproof("prove", LITTLE + "HELD", "--mutants", status=0, env=ENV).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert "tests.cli: 4 mutants" in printed.splitlines()
    assert ["killed", "dearer", "idle", "survived"] in lines
    assert ["statement", "1", "0", "0", "0"] in lines
    assert ["condition", "2", "0", "0", "0"] in lines
    assert ["early", "answer", "1", "0", "0", "0"] in lines
    assert "nobody says why" not in printed
    assert len(lines) <= 25


def test_a_mutant_that_nobody_notices_is_named_and_fails() -> None:
    printed = faultproof("prove", LITTLE + "UNNOTICED", "--mutants", "--json", status=1, env=ENV).stdout
    proof, mutants = json.loads(printed)
    assert (proof["proof"], proof["outcome"]) == (LITTLE + "UNNOTICED", "held")
    assert (mutants["mutants_of"], mutants["outcome"]) == ("tests.cli", "violated")
    assert "survived, and nobody says why: statement tests.cli.little_proofs._mark_once" in mutants["complaints"]
    (statement,) = (each for each in mutants["mutants"] if each["kind"] == "statement")
    assert (statement["fate"], statement["killed_by"], statement["reason"]) == ("survived", None, None)
    assert statement["schedules"] > 10


def test_mutants_of_a_proof_that_does_not_hold_are_not_tried(tmp_path: Path) -> None:
    done = faultproof("prove", LITTLE + "VIOLATED", "--mutants", status=4, env=ENV, cwd=tmp_path)
    assert "does not hold beside neighbours" in done.stderr
    assert "The mutants of tests.cli could not be tried." in done.stderr

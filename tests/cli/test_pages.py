"""What goes on a page, and what must not."""

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from faultproof.cli.documents import report_of
from faultproof.cli.mutants import hunt_of
from faultproof.cli.pages import environment, nobodys, page_path
from faultproof.cli.verdicts import Options, Outcome
from faultproof.errors import InvalidInput
from faultproof.prove.mutants.groups import Group
from faultproof.prove.mutants.hunt import Killed
from faultproof.prove.mutants.hunt import Outcome as MutantOutcome
from faultproof.prove.mutants.verdict import Verdict
from faultproof.prove.proof import Survivor
from faultproof.prove.simulated.explore import Report, Violation
from tests.cli.little_proofs import DULL, HELD

OPTIONS = Options(depth=1, random=0, seed=0, plants=True, save=None)
TRIED = Report(schedules=8, points=8, distinct=7, first_points=8, first_distinct=7, seconds=0.5)
FINISHED = replace(TRIED, seen={"the marker finishes"})


def test_traceback_does_not_say_whose_machine_it_is_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home" / "ada"
    (home / "service").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "service")
    said = nobodys(f'File "{home}/service/pay.py"\nFile "{home}/other.py"\nFile "{sys.prefix}/lib/x.py"')
    assert said == 'File "./pay.py"\nFile "~/other.py"\nFile "…/lib/x.py"'
    monkeypatch.chdir("/")
    assert nobodys("File /usr/lib/x.py") == "File /usr/lib/x.py"
    failed = Outcome(proof=HELD, error=f"{home}/other.py failed")
    assert report_of(failed, OPTIONS).error == "~/other.py failed"


def test_environment_names_versions_and_no_machine() -> None:
    words = " ".join(environment().values())
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in words
    assert socket.gethostname() not in words


def test_verdict_of_the_claim_is_not_that_of_a_planted_bug_that_survived() -> None:
    survivor = Outcome(proof=HELD, plant="marks blindly", exhaustive=FINISHED)
    report = report_of(Outcome(proof=HELD, exhaustive=FINISHED, plants=[survivor]), OPTIONS)
    assert report.verdict == "violated"  # the proof is worth nothing
    assert [(world.world, world.verdict) for world in report.worlds] == [("simulated", "held")]
    (mutant,) = report.mutants
    assert (mutant.name, mutant.killed_by) == ("marks blindly", None)
    assert mutant.breaks == "a mark whose answer was lost is made again"


def test_what_never_happened_is_told_as_such() -> None:
    report = report_of(Outcome(proof=DULL, exhaustive=TRIED), OPTIONS)
    assert (report.verdict, report.worlds[0].verdict) == ("inconclusive", "inconclusive")
    assert [(each.kind, each.verdict) for each in report.properties] == [("eventually", "held"), ("sometimes", "never")]


def test_caught_by_is_told_by_fault_where_the_run_was_not_retold() -> None:
    caught = Outcome(proof=HELD, plant="marks blindly", violation=Violation(("wrong",), ("crash there",), {1: 1}))
    nothing = replace(caught, violation=Violation(("wrong",), (), {}))
    report = report_of(Outcome(proof=HELD, exhaustive=FINISHED, plants=[caught, nothing]), OPTIONS)
    assert [mutant.killed_by for mutant in report.mutants] == ["crash there", "without a fault"]


def test_path_of_a_page_is_refused_before_anything_is_tried(tmp_path: Path) -> None:
    assert page_path(None) is None
    assert page_path(str(tmp_path / "page.html")) == tmp_path / "page.html"
    for bad in ("", str(tmp_path), str(tmp_path / "no" / "page.html"), "a\0b"):
        with pytest.raises(InvalidInput, match="the page cannot be written to"):
            page_path(bad)


def test_derived_mutants_are_told_by_fate_with_the_reason_that_was_given() -> None:
    killed = Killed(HELD.name, "one crash", ("crash there",), "the marks are wrong")
    outcomes = [
        MutantOutcome("mark", "statement", killed, None, False, 3),
        MutantOutcome("mark: n = :n", "condition", None, None, False, 40),
        MutantOutcome("mark: 1 = 1", "condition", None, "9 instructions instead of 7", False, 40),
        MutantOutcome("UNIQUE (n)", "constraint", None, None, True, 40),
        MutantOutcome("other", "split", None, None, False, 40),
    ]
    survivor = Survivor(mutants=("condition mark: n = :n",), reason="the table refuses it too")
    group = Group("little", ("tests.cli",), (HELD,), (survivor,))
    hunt = hunt_of(group, Verdict(outcomes, [], (survivor,)))
    assert [(each.name, each.fate if each.killed_by is None else "killed") for each in hunt.mutants] == [
        ("mark", "killed"),
        ("mark: n = :n", "survived"),
        ("mark: 1 = 1", "dearer"),
        ("UNIQUE (n)", "idle"),
        ("other", "survived"),
    ]
    assert hunt.mutants[0].killed_by == "one crash: crash there and the marks are wrong"
    assert [each.reason for each in hunt.mutants][1:3] == ["the table refuses it too", "9 instructions instead of 7"]
    assert hunt.mutants[4].reason is None
    assert hunt.complaints == [
        "idle, and nobody says why: constraint UNIQUE (n)",
        "survived, and nobody says why: split other",
    ]

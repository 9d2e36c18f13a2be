"""The house keeps its rules, and the rules are known to catch what they are for."""

from pathlib import Path

import pytest

import faultproof.catalogue
from tests.architecture.engines import SQL_RENDERERS
from tests.architecture.planted import CASES, Case
from tests.architecture.rules import RULES, Rule

ROOT = Path(faultproof.catalogue.__file__).resolve().parent.parent


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_keeps_its_rules(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_catches_what_is_planted_and_nothing_else(case: Case, tmp_path: Path) -> None:
    root = tmp_path / "src" / "faultproof"
    for name, text in case.files.items():
        path = tmp_path / name if name.startswith("tests/") else root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # Several violations may share a line (`import time` and its use are two); the places are what counts.
    places = {violation.split(": ")[0].removeprefix("src/faultproof/") for violation in case.rule(root)}
    assert places == set(case.caught)


def test_every_rule_has_a_planted_violation_and_a_near_miss() -> None:
    elsewhere = {"rooms_furnished"}  # test_rooms.py, since a furnished room is more than one file
    names = {rule.__name__ for rule in RULES} - elsewhere
    assert {case.rule.__name__ for case in CASES if case.caught} == names
    assert {case.rule.__name__ for case in CASES if not case.caught} == names


def test_every_permission_to_glue_sql_is_an_engine_s_or_the_prover_s_and_has_a_reason() -> None:
    for path, reason in SQL_RENDERERS.items():
        assert path.startswith(("engines/", "prove/")), path
        assert (ROOT / path).is_file(), path
        assert len(reason.split()) > 3, path

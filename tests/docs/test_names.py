"""What the documents name is there: tests, files, links, signals."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer.main

from faultproof import signals
from faultproof.cli import app
from tests.architecture.rules import RULES
from tests.docs.markdown import DOCUMENTS, REPOSITORY, ROOMS, code_spans, named, rows, section

_TEST = re.compile(r"tests/[\w/]+\.py(::\w+(\[\w+\])?)?")
_MODULE = re.compile(r"(?:src/faultproof/)?((?:[a-z_]+/)*[a-z_]+\.py)")
_COMMAND = re.compile(r"(?:^\$ |`)faultproof ((?:[a-z]+ ?)+)", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_test_that_is_named_exists(document: Path) -> None:
    spans = {span for span in code_spans(_text(document)) if span.startswith("tests/") and ".py" in span}
    assert [span for span in sorted(spans) if not _TEST.fullmatch(span) or not _is_a_test(span)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_module_that_is_named_exists(document: Path) -> None:
    places = [document.parent, REPOSITORY / "src/faultproof", REPOSITORY]
    spans = {match[1] for span in code_spans(_text(document)) if (match := _MODULE.fullmatch(span))}
    if document not in ROOMS:  # elsewhere a bare name is a kind of file, like every suite's `conftest.py`
        spans = {span for span in spans if "/" in span}
    assert [span for span in sorted(spans) if not any((place / span).is_file() for place in places)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_leads_somewhere(document: Path) -> None:
    assert [link for link in _LINK.findall(_text(document)) if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("readme", ROOMS, ids=named)
def test_signals_are_named_with_their_units(readme: Path) -> None:
    units = {signal.name: signal.unit for signal in signals.ALL}
    alarming = {signal.name for signal in signals.ALL if signal.alarming}
    for name, unit, *_ in rows(section(_text(readme), "Signals")):
        (signal,) = code_spans(name)
        assert (unit, "⚠" in name) == (units[signal], signal in alarming), signal


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_command_that_is_shown_exists(document: Path) -> None:
    shown = [words.split() for words in _COMMAND.findall(_text(document))]
    assert [" ".join(words) for words in shown if not _is_a_command(typer.main.get_command(app), words)] == []


def test_a_command_that_is_not_there_is_noticed() -> None:
    assert _COMMAND.findall("$ faultproof show outbox --json\nwith `faultproof patterns`") == [
        "show outbox ",
        "patterns",
    ]
    command = typer.main.get_command(app)
    assert _is_a_command(command, ["show", "outbox"])
    assert not _is_a_command(command, ["shows"])


def test_a_test_that_is_not_there_is_noticed() -> None:
    assert _is_a_test("tests/docs/test_names.py::test_a_test_that_is_not_there_is_noticed")
    assert not _is_a_test("tests/docs/test_names.py::test_nothing")
    assert not _is_a_test("tests/docs/test_nothing.py")
    assert _is_a_test("tests/architecture/test_rules.py::test_house_keeps_its_rules[layers]")
    assert not _is_a_test("tests/architecture/test_rules.py::test_house_keeps_its_rules[nothing]")


def _is_a_command(command: object, words: list[str]) -> bool:
    verbs: dict[str, object] | None = getattr(command, "commands", None)
    if verbs is None:
        return True  # what follows are arguments
    return bool(words) and words[0] in verbs and _is_a_command(verbs[words[0]], words[1:])


def _text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def _is_a_test(name: str) -> bool:
    path, _, case = name.partition("::")
    function, _, rule = case.rstrip("]").partition("[")
    if rule and rule not in {each.__name__ for each in RULES}:
        return False
    return (REPOSITORY / path).is_file() and (not function or function in _functions(REPOSITORY / path))


@cache
def _functions(path: Path) -> frozenset[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

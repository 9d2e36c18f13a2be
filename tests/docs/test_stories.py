"""What a document tells step by step happens: its files are written, its commands typed, and they print what it shows."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import DOCUMENTS, named
from tests.docs.programs import MarkerWithoutFence
from tests.docs.stories import ChangedFile, Step, Typed, WrittenFile, matches, story

STORIES = [
    pytest.param(steps, id=named(document))
    for document in DOCUMENTS
    if (steps := story(document.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("steps", STORIES)
def test_story_of_a_document_happens_as_it_is_told(steps: list[Step], tmp_path: Path) -> None:
    for step in steps:
        if isinstance(step, WrittenFile):
            path = tmp_path / step.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text, encoding="utf-8")
        elif isinstance(step, ChangedFile):
            text = (tmp_path / step.name).read_text(encoding="utf-8")
            assert text.count(step.old) == 1, f"{step.name} has not once:\n{step.old}"
            (tmp_path / step.name).write_text(text.replace(step.old, step.new), encoding="utf-8")
        else:
            _type(step, tmp_path)


def _type(step: Typed, directory: Path) -> None:
    plain = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    got = subprocess.run(
        [Path(sys.executable).parent / (words := shlex.split(step.command))[0], *words[1:]],
        cwd=directory,
        # The plugin also where the environment was made before it was there; nothing of what this run was started with.
        env={**plain, "PYTEST_ADDOPTS": "-p faultproof_pytest -p no:cacheprovider", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert got.returncode == step.status, f"line {step.line}: {step.command}\n{got.stdout}"
    assert matches(step.prints, got.stdout), f"line {step.line}: {step.command}\n{got.stdout}"


def test_story_has_its_files_and_commands_in_order() -> None:
    text = (
        "<!-- file a.py -->\n```python\nx = 1\n```\n```console\n$ left alone\n```\n"
        "<!-- change a.py -->\n```diff\n-x = 1\n+x = 2\n y\n```\n"
        "<!-- types, exit 1 -->\n```console\n$ pytest -q\none\n…\n```\n<!-- types -->\n```console\n$ ls\n```\n"
    )
    assert story(text) == [
        WrittenFile(name="a.py", text="x = 1\n"),
        ChangedFile(name="a.py", old="x = 1\ny\n", new="x = 2\ny\n"),
        Typed(line=15, command="pytest -q", prints="one\n…\n", status=1),
        Typed(line=21, command="ls", prints="", status=0),
    ]
    assert story("````markdown\n<!-- file a.py -->\n```python\n```\n````\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "<!-- file a.py -->\n\n```python\n```\n",
        "<!-- file a.py -->",
        "<!-- types -->\n```console\nls\n```\n",
        "<!-- types -->\n```console\n$ ls\n",
    ],
)
def test_step_that_says_nothing_is_an_error(text: str) -> None:
    with pytest.raises(MarkerWithoutFence):
        story(text)


@pytest.mark.parametrize(
    ("shown", "printed", "does_match"),
    [
        ("one\ntwo\n", "one  \ntwo\n", True),
        ("one\n", "one\ntwo\n", False),
        ("one\n…\n", "one\ntwo\nthree\n", True),
        ("…\nthree\n", "one\ntwo\nthree\n", True),
        ("…\nthree\n…\n", "three\n", True),
        ("in … s\n", "in 0.3 s\n", True),
        ("in … s\n", "in 0.3\n s\n", False),
        ("a.c\n", "abc\n", False),
        ("", "one\n", False),
    ],
)
def test_what_is_left_out_is_marked(shown: str, printed: str, does_match: bool) -> None:
    assert matches(shown, printed) is does_match

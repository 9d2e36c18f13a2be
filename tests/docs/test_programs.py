"""What a document shows, runs: every marked program, in a directory of its own, with the output it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import DOCUMENTS, named
from tests.docs.programs import MarkerWithoutFence, Program, programs

README_PROGRAMS = [
    pytest.param(program, id=f"{named(document)}:{program.line}")
    for document in DOCUMENTS
    for program in programs(document.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("program", README_PROGRAMS)
def test_program_of_a_document_runs_and_prints_what_it_says(
    program: Program, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "program.py"
    path.write_text(program.code, encoding="utf-8")
    got = subprocess.run(
        [sys.executable, "-X", "utf8", path.name],
        cwd=tmp_path,
        env={**os.environ, **_server(program, request)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert got.returncode == 0, got.stderr
    if program.prints is not None:
        assert got.stdout == program.prints


def _server(program: Program, request: pytest.FixtureRequest) -> dict[str, str]:
    """For a program that reads the address of its database from the environment: a database of its own."""
    return {"SHOP_DB": request.getfixturevalue("postgres_url")} if "SHOP_DB" in program.code else {}


def test_marked_program_is_found_with_its_output() -> None:
    text = (
        "# A\n\n<!-- runs -->\n```python\nprint(1)\n```\nprints\n\n<!-- prints -->\n```text\n1\n```\n"
        "<!-- runs -->\n```python\npass\n```\n"
    )
    assert programs(text) == [
        Program(line=4, code="print(1)\n", prints="1\n"),
        Program(line=14, code="pass\n", prints=None),
    ]


def test_unmarked_fence_is_a_sketch_and_left_alone() -> None:
    assert programs("```python\nawait nothing\n```\n```text\n1\n```\n") == []


def test_marker_inside_a_fence_is_text() -> None:
    assert programs("````markdown\n<!-- runs -->\n```python\n1 / 0\n```\n````\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "<!-- runs -->\n\n```python\n```\n",
        "<!-- runs -->\n```text\n```\n",
        "<!-- runs -->\n```python\nprint(1)\n",
        "<!-- runs -->",
        "<!-- prints -->\n```text\n1\n```\n",
        "<!-- runs -->\n```python\n```\n" + "<!-- prints -->\n```text\n1\n```\n" * 2,
    ],
)
def test_marker_that_marks_nothing_is_an_error(text: str) -> None:
    with pytest.raises(MarkerWithoutFence):
        programs(text)

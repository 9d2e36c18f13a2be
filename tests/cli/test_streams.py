"""Every verb with standard streams that are closed, full, or have lost their reader: never a traceback."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

from faultproof.cli import app
from faultproof.prove.saved import save
from tests.cli.executable import EXECUTABLE

AT_ONCE = 4
NO_STDOUT = "standard output is closed: if nobody is to read it, send it to /dev/null\n"
FULL = "the output could not be written: No space left on device\n"

REFUSED = (["show", "zzz"], ["nonsense"], ["replay", "/nowhere"], ["outbox", "lag", "--db", "/nowhere"])


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def verbs(tmp_path: Path, installed: Path) -> list[list[str]]:
    """Every verb, well used, with something to print."""
    history = tmp_path / "run.jsonl"
    history.write_text('{"type": "invoke", "process": "a", "op": "read"}\n')
    tape = tmp_path / "batch.tape"
    save(tape, {}, proof="faultproof.patterns.batch.proof:BATCH")
    return [
        [],
        ["--help"],
        ["--version"],
        ["patterns"],
        ["patterns", "--json"],
        ["show", "outbox"],
        ["show", "outbox", "--json"],
        ["shop", "--help"],
        ["bench", "--help"],
        ["shop", "--orders", "3", "--kill-every", "0", "--synchronous", "normal"],
        ["prove", "batch"],
        ["saga", "--help"],
        ["sidecar", "--help"],
        ["replay", str(tape)],
        ["check", str(history), "--model", "register"],
        ["outbox", "lag", "--db", str(installed)],
        ["outbox", "dead", "--db", str(installed), "--group", "post", "--json"],
    ]


def ended(shell: str, calls: list[list[str]] | tuple[list[str], ...], stdout: int = subprocess.PIPE) -> list[Ended]:
    """Each call, `"$@"` in a line of shell that does something to its streams."""

    def one(args: list[str]) -> Ended:
        got = subprocess.run(
            ["/bin/sh", "-c", shell, "sh", EXECUTABLE, *args],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(got.returncode, got.stdout or "", got.stderr)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, calls))


def test_closed_stdout_is_refused_before_anything_is_done(verbs: list[list[str]]) -> None:
    for_people = [verb for verb in verbs if "--json" not in verb][1:]
    assert set(ended('exec "$@" >&-', for_people)) == {Ended(2, "", NO_STDOUT)}


def test_without_any_stream_the_status_says_it() -> None:
    assert set(ended('exec "$@" <&- >&- 2>&-', [["--help"], ["show", "zzz"]])) == {Ended(2, "", "")}


def test_closed_stderr_changes_nothing_on_stdout() -> None:
    assert ended('exec "$@" 2>&-', [["patterns"]]) == ended('exec "$@"', [["patterns"]])
    assert set(ended('exec "$@" 2>&-', REFUSED)) == {Ended(2, "", "")}


def test_reader_that_left_is_told_nothing(verbs: list[list[str]]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert set(ended('exec "$@"', verbs, stdout=writer)) == {Ended(141, "", "")}
    finally:
        os.close(writer)


def test_output_that_cannot_be_written_is_no_verdict(verbs: list[list[str]]) -> None:
    some = [verb for verb in verbs if {"--help", "--json", "prove", "shop"} & set(verb)][1:]
    assert set(ended('exec "$@" >/dev/full', some)) == {Ended(4, "", FULL)}
    assert set(ended('exec "$@" >/dev/full 2>&1', some[:1])) == {Ended(4, "", "")}


def test_sentence_that_cannot_be_written_leaves_the_status() -> None:
    assert ended('exec "$@" 2>/dev/full', [["show", "zzz"]]) == [Ended(2, "", "")]


def test_every_verb_is_here(verbs: list[list[str]]) -> None:
    command = typer.main.get_command(app)
    assert {args[0] for args in verbs if args and args[0][0] != "-"} == set(command.commands)  # type: ignore[attr-defined]

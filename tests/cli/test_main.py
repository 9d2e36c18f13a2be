"""How the command line ends: exit statuses, and errors as one sentence."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from tests.cli.executable import faultproof, run

# A verb that misbehaves, added the way a real one is, in a process of its own.
VERB = """
import os, signal, sys
from faultproof import cli
from faultproof.errors import FaultproofError

@cli.app.command("misbehave")
def misbehave() -> None:
    {body}

sys.argv = ["faultproof", "misbehave"]
cli.main()
"""


def misbehave(body: str, status: int, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", VERB.format(body=body)], status=status, before=before)


def test_version() -> None:
    assert faultproof("--version").stdout == f"faultproof {version('faultproof')}\n"


def test_module_is_the_command() -> None:
    assert run([sys.executable, "-m", "faultproof", "--version"]).stdout == f"faultproof {version('faultproof')}\n"
    assert run([sys.executable, "-m", "faultproof", "show", "zzz"], status=2).stdout == ""


def test_help_teaches_with_examples() -> None:
    printed = faultproof("--help").stdout
    for example in ("faultproof patterns", "faultproof show outbox", "faultproof show saga --json"):
        assert example in printed


def test_without_arguments_the_help_is_printed() -> None:
    got = faultproof(status=2)
    assert "faultproof patterns" in got.stdout + got.stderr


@pytest.mark.parametrize("args", [["shwo"], ["show"], ["patterns", "--jsno"], ["show", "a", "b"]])
def test_usage_errors_exit_2_without_traceback(args: list[str]) -> None:
    got = faultproof(*args, status=2)
    assert got.stdout == ""
    assert "Usage: faultproof" in got.stderr
    assert "Traceback" not in got.stderr


def test_misspelt_verb_is_answered_with_the_right_one() -> None:
    assert "Did you mean 'patterns'?" in faultproof("patern", status=2).stderr


def test_our_errors_become_one_sentence() -> None:
    got = misbehave("raise FaultproofError('The file\\n  is gone.')", status=2)
    assert (got.stdout, got.stderr) == ("", "The file is gone.\n")


def test_error_without_words_is_named() -> None:
    assert misbehave("raise FaultproofError", status=2).stderr == "FaultproofError\n"


def test_other_errors_keep_their_traceback() -> None:
    got = misbehave("raise ZeroDivisionError", status=1)
    assert "Traceback" in got.stderr
    assert got.stderr.endswith("ZeroDivisionError\n")


def test_interrupt_exits_130_in_silence() -> None:
    got = misbehave("os.kill(os.getpid(), signal.SIGINT)", status=130)
    assert (got.stdout, got.stderr.strip()) == ("", "")


def test_exit_status_of_a_verb_is_kept() -> None:
    assert misbehave("raise SystemExit(3)", status=3).stderr == ""


def test_no_file_takes_the_number_of_a_closed_stream() -> None:
    """A database that was number 2 would be written into by whoever prints on stderr."""
    body = "print(os.open(os.devnull, os.O_RDONLY) > 2, sys.stderr.fileno())"
    assert misbehave(body, 0, before=lambda: os.close(2)).stdout == "True 2\n"


def test_verbs_do_not_load_what_an_extra_brings() -> None:
    loaded = run(
        [sys.executable, "-X", "importtime", "-c", "import faultproof.cli.patterns, faultproof.cli.show"]
    ).stderr
    extras = re.findall(r"\b(starlette|uvicorn|httpx|psycopg|opentelemetry)\b", loaded)
    assert extras == []

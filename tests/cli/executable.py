"""Running the installed `faultproof` the way a shell does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

EXECUTABLE = str(Path(sys.executable).with_name("faultproof"))


def faultproof(
    *args: str,
    status: int | Collection[int] = 0,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `faultproof *args` without a terminal, and insist on its exit status, or one of several."""
    return run([EXECUTABLE, *args], status=status, env=env, stdin=stdin, cwd=cwd)


def run(
    command: list[str],
    *,
    status: int | Collection[int] = 0,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    cwd: Path | None = None,
    before: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` in a plain environment: the developer's terminal settings must not decide a test."""
    plain = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    got = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**plain, **(env or {})},
        cwd=cwd,
        preexec_fn=before,
    )
    expected = (status,) if isinstance(status, int) else status
    assert got.returncode in expected, f"exit status {got.returncode}, stderr: {got.stderr}"
    return got


# Start-up takes most of a refusal's time; this is what the executable calls, again and again.
REFUSALS = """
import contextlib, io, json, sys
from faultproof import cli
answers = []
for args in json.loads(sys.argv[1]):
    sys.argv = ["faultproof", *args]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            cli.main()
        except SystemExit as end:
            answers.append([end.code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


def refusals(*calls: list[str]) -> list[str]:
    """Call `faultproof` with each; all must end with status 2, nothing on stdout and one sentence on stderr: those."""
    answers = json.loads(run([sys.executable, "-c", REFUSALS, json.dumps(calls)]).stdout)
    assert [(status, out, err.count("\n")) for status, out, err in answers] == [(2, "", 1)] * len(calls), answers
    return [err.removesuffix("\n") for _, _, err in answers]


def refused(*args: str, env: Mapping[str, str] | None = None, before: Callable[[], None] | None = None) -> str:
    """Run `faultproof *args`, which must end with status 2, nothing on stdout and one sentence on stderr: that."""
    got = run([EXECUTABLE, *args], status=2, env=env, before=before)
    assert got.stdout == ""
    (sentence,) = got.stderr.splitlines()
    return sentence

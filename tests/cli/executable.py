"""Running the installed `faultproof` the way a shell does."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

EXECUTABLE = str(Path(sys.executable).with_name("faultproof"))


def faultproof(*args: str, status: int = 0, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `faultproof *args` without a terminal, and insist on its exit status."""
    return run([EXECUTABLE, *args], status=status, env=env)


def run(
    command: list[str], *, status: int = 0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command` in a plain environment: the developer's terminal settings must not decide a test."""
    plain = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    got = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**plain, **(env or {})})
    assert got.returncode == status, f"exit status {got.returncode}, stderr: {got.stderr}"
    return got

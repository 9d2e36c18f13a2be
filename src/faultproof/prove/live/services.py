"""The services outside, as a file that processes change one after the other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

SERVICES_NAME = "services.json"
"""Of the file, in the directory of its run."""


class Outside:
    """Their state. A request is atomic: who dies in the middle of it has not asked."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, act: Callable[[dict[str, Any]], T]) -> T:
        """Let `act` read and change the state, with nobody beside it."""
        # The lock ends with the process that holds it, also if that is killed; and a process that is stopped holds none,
        # because it stops at points only, which are before and after a request.
        lock = os.open(self._path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.state()
            result = act(state)
            written = self._path.with_suffix(".new")
            written.write_bytes(msgspec.json.encode(state))
            written.rename(self._path)
            return result
        finally:
            os.close(lock)

    def state(self) -> dict[str, Any]:
        """As it is now."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Any])
        except FileNotFoundError:
            return {}

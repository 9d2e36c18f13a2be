"""Writing a history down while it happens, from any number of processes into one file."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import msgspec

from faultproof import bounds
from faultproof.errors import CannotOpen, DiskFull, InvalidInput, PayloadTooLarge, StorageFailed, UsedAfterFork
from faultproof.prove.checkers.history import Entry, FileLimits, Key
from faultproof.prove.checkers.values import frozen


class Recorder:
    """Appends calls and answers to a history.

    Promise: a call is in the file before `call` returns, and an answer after it was given; so what overlaps in the file
    may have overlapped in truth, and what does not, did not, also between processes on one machine (each line is one
    write at the end of the file, and the order of the lines is the order of time). Survives the death of the process,
    not of the machine: nothing is synced.

    Any thread may call it. Each caller gets a lane, a name that no other caller has while it waits, and that nobody has
    again after a call whose outcome stayed unknown: `name`, the process id, and a number.
    """

    def __init__(self, path: Path, name: str) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise CannotOpen(f"the history {str(path)!r} cannot be written: {why}") from error
        self._path = path
        self._pid = os.getpid()
        self._name = f"{name}:{self._pid}:{os.urandom(3).hex()}"
        self._lock = threading.Lock()
        self._free: list[str] = []
        self._lanes = 0

    def call(self, op: str, value: Any = None, *, key: Key = None) -> Recorded:
        """Write down that `op` is about to be called with `value`. Do it after this has returned.

        :raises InvalidInput: for what is no JSON, or longer than a line may be; then nothing is written.
        """
        if os.getpid() != self._pid:  # its lanes would have the names of the parent's
            raise UsedAfterFork("this recorder was made before a fork: make one for each process")
        with self._lock:
            if not self._free:
                self._lanes += 1
                self._free.append(f"{self._name}:{self._lanes}")
            lane = self._free.pop()
        try:
            self._write(Entry(type="invoke", process=lane, op=op, value=value, key=key))
        except InvalidInput:
            self._done(lane)
            raise
        return Recorded(self, lane, op, key)

    def close(self) -> None:
        """Close the file. Calls that are open stay so: nobody knows their outcome."""
        os.close(self._file)

    def _done(self, lane: str) -> None:
        with self._lock:
            self._free.append(lane)

    def _write(self, event: Entry) -> None:
        try:
            line = msgspec.json.encode(event) + b"\n"
            if frozen(msgspec.json.decode(line, type=Entry).value) != frozen(event.value):
                raise InvalidInput(f"{bounds.short(event.value)} would be read back as another value")
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError, RecursionError) as error:
            raise InvalidInput(f"this is no event of a history: {error}") from error
        if len(line) > (most := FileLimits().line_bytes):
            raise PayloadTooLarge(
                f"an event of a history has at most {most:,} bytes", size_bytes=len(line), limit_bytes=most
            )
        try:
            written = os.write(self._file, line)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"the disk of the history {str(self._path)!r} is full: free some space") from error
            raise StorageFailed(f"the history {str(self._path)!r} cannot be written: {error.strerror}") from error
        if written < len(line):  # the rest would be appended to somebody else's line
            raise DiskFull(f"the disk of the history {str(self._path)!r} is full, and its last line is cut off")


class Recorded:
    """A call that is written down; say how it ended, once. Unsaid, nobody knows: it may have happened, or not."""

    def __init__(self, recorder: Recorder, lane: str, op: str, key: Key) -> None:
        self._recorder = recorder
        self._lane = lane
        self._op = op
        self._key = key

    def ok(self, value: Any = None) -> None:
        """It happened, and answered this."""
        self._recorder._write(Entry(type="ok", process=self._lane, op=self._op, value=value, key=self._key))
        self._recorder._done(self._lane)

    def fail(self) -> None:
        """It certainly had no effect, and never will have."""
        self._recorder._write(Entry(type="fail", process=self._lane, op=self._op, key=self._key))
        self._recorder._done(self._lane)

    def unknown(self) -> None:
        """It may have happened, or still will: a time-out, a lost connection."""
        self._recorder._write(Entry(type="info", process=self._lane, op=self._op, key=self._key))

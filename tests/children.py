"""Other processes that a test talks to: one line there, one line back."""

import subprocess
import sys
import threading
from types import TracebackType
from typing import Self

WAIT_S = 20.0


class Python:
    """A Python process that runs `code` with `arguments`; `ask` and `say` are its standard input and output."""

    def __init__(self, code: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        # Nobody waits for ever for a process that hangs: it ends, and so does what it was to say.
        self._timer = threading.Timer(WAIT_S * 2, self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def hear(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait(WAIT_S)

    def finish(self) -> str:
        """All that it still says; it must end well."""
        rest, _ = self._process.communicate(timeout=WAIT_S)
        assert self._process.returncode == 0, self._process.returncode
        return rest

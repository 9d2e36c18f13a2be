"""What the nursery sees of its children: that one has stopped, and nothing of the kind of one that is dead."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from faultproof.prove.live.nursery import _has_stopped

WAIT_S = 20.0
LIVES = "import signal; signal.pause()"
STOPS = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"


@contextmanager
def child_of_ours(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """That runs this, and is gone at the end, also if it has stopped."""
    child = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield child
    finally:
        child.kill()
        child.wait(WAIT_S)


@pytest.mark.parametrize("killed", [False, True])
def test_a_child_that_is_dead_and_not_yet_reaped_has_not_stopped(killed: bool) -> None:
    """It died between two looks at it: who asks for children that stop is told then that he has none."""
    with child_of_ours(LIVES if killed else "") as child:
        if killed:
            child.kill()
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None, "a zombie from now on"
        assert not _has_stopped(child.pid)
        assert child.wait(WAIT_S) == (-signal.SIGKILL if killed else 0), "how it ended is left for who reaps it"


def test_a_child_that_has_stopped_is_told_of_once() -> None:
    with child_of_ours(STOPS) as child:
        assert os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT) is not None
        assert _has_stopped(child.pid)
        assert not _has_stopped(child.pid)
        child.send_signal(signal.SIGCONT)
        assert child.wait(WAIT_S) == 0

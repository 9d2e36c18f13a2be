"""Becomes the program that is named, tied to the life of the process that started it: `launch.py PARENT PROGRAM …`.

A script of its own rather than a `preexec_fn`, which is unsafe beside threads. It imports nothing of ours, and nothing is
left of it but the process id. On systems without Linux's prctl nothing is tied: there a supervisor that is killed leaves its
proxy behind.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Ends with SIGKILL when the thread that started it does: the supervisor's main thread, which lives as long as it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has died before we could be tied to it
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # a program of our supervisor's choice, and no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

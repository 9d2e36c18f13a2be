"""Ends a test server, and removes its directory, once the process that started it is gone.

Run as a script of its own by `PostgresServer`, which holds the other end of standard input and never writes
to it: the read below returns when that process has ended, in whatever way, SIGKILL included. (A child forked
without exec holds a copy of that end, so the server then lives as long as the child.)

Why not PR_SET_PDEATHSIG: it fires when the *thread* that called fork ends, so a server started from a worker
thread would vanish in the middle of the tests; it needs a `preexec_fn`, which is unsafe beside threads; and
it leaves the directory behind.
"""

import os
import select
import shutil
import signal
import sys

STEP_TIMEOUT_S = 5.0


def main(base: str, data: str) -> None:
    os.read(0, 1)
    try:
        with open(f"{data}/postmaster.pid") as file:
            pid = int(file.readline())
        # A pid file may outlive its process and the number may be used again. The descriptor pins one
        # process, and only then do we look whether it is the one that lives in our data directory.
        handle = os.pidfd_open(pid)
        if os.readlink(f"/proc/{pid}/cwd") == data:
            for sig in (signal.SIGQUIT, signal.SIGKILL):  # SIGQUIT is PostgreSQL's immediate shutdown
                signal.pidfd_send_signal(handle, sig)
                if select.select([handle], [], [], STEP_TIMEOUT_S)[0]:
                    break
    except (OSError, ValueError):
        # Not running; or /proc is closed to us, and then the server ends itself within a minute of finding
        # postmaster.pid gone.
        pass
    shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

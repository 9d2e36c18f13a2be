"""A pgbouncer of the test's own, before a test's own server, where Debian's binary is."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from faultproof.shop.postgres_server import _free_port
from faultproof.shop.postgres_wheel import environment, unprivileged_account

_FOUND = shutil.which("pgbouncer", path="/usr/bin:/usr/sbin:/usr/local/bin")
POOLERS = [_FOUND] if _FOUND else []
"""What tests of poolers are made for; without Debian's there are none, and the header of the run says so."""
START_S = 20.0


@contextlib.contextmanager
def pooler(url: str, *, mode: str, program: str) -> Iterator[str]:
    """The address of the database behind a pgbouncer in `mode`: session, transaction or statement."""
    parts = urlsplit(url)
    account = unprivileged_account()
    base = Path(tempfile.mkdtemp(prefix="fp-bouncer-"))
    port = _free_port()
    try:
        (base / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
        (base / "ini").write_text(
            f"[databases]\n* = host={parts.hostname} port={parts.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n"
            f"auth_file = {base / 'users'}\npool_mode = {mode}\ndefault_pool_size = 3\nserver_round_robin = 1\n"
            f"logfile = {base / 'log'}\npidfile =\n"
        )
        for path in (base, *base.iterdir()):
            if account:
                shutil.chown(path, account["user"], account["group"])
        process = subprocess.Popen(
            [program, base / "ini"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            **account,
        )
        try:
            _wait_until_ready(process, base / "log")
            yield f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(base)


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not (log.exists() and "process up" in log.read_text()):
        assert process.poll() is None, "pgbouncer ended"
        assert time.monotonic() < deadline, "pgbouncer does not start"
        time.sleep(0.01)  # sleeps: another program writes the file

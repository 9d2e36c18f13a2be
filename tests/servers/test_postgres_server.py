"""The server that other tests stand on: it must not lose rows, linger, or be reachable from elsewhere."""

import ipaddress
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from faultproof.shop import postgres_server as postgres
from faultproof.shop import postgres_wheel
from tests.fakes import WAIT_S, eventually
from tests.servers.postgres import PostgresServer, ServerFailed


@pytest.fixture(scope="module")
def shared() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def server(shared: PostgresServer) -> PostgresServer:
    """A running server that this module may stop and kill."""
    shared.start()
    return shared


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not. (Who reaps an orphan, and when, is up to the machine.)"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def listening_addresses(port: int) -> set[str]:
    """Who may connect to `port`, as the kernel sees it."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        if not path.exists():  # a machine without IPv6
            continue
        for line in path.read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, hex_port = local.partition(":")
            if state == "0A" and int(hex_port, 16) == port:
                # Words of 32 bits, each in the machine's byte order.
                words = re.findall("." * 8, address)
                packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
                found.add(str(ipaddress.ip_address(packed)))
    return found


# --- what it is -----------------------------------------------------------------------------------


def test_answers_as_postgresql_18(server: PostgresServer) -> None:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT version()").fetchone()
    assert row is not None
    assert row[0].startswith("PostgreSQL 18.")


def test_locale_encoding_and_time_zone_do_not_depend_on_the_machine(server: PostgresServer) -> None:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(
            "SELECT datcollate, pg_encoding_to_char(encoding), current_setting('log_timezone')"
            " FROM pg_database WHERE datname = 'template0'"
        ).fetchone()
    assert row == ("C", "UTF8", "UTC")


def test_port_is_below_the_ephemeral_range(server: PostgresServer) -> None:
    assert 1024 <= server.port < 32768
    assert all(1024 <= postgres._free_port() < 32768 for _ in range(200))


def test_listens_on_loopback_only(server: PostgresServer) -> None:
    assert listening_addresses(server.port) == {"127.0.0.1"}
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_wrong_password_is_refused(server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url, password="wrong").close()


def test_is_durable_unless_told_otherwise(server: PostgresServer) -> None:
    def fsync(url: str) -> object:
        with psycopg.connect(url) as connection:
            return connection.execute("SHOW fsync").fetchone()

    assert fsync(server.url) == ("on",)
    with PostgresServer(durable=False, settings={"wal_level": "logical"}) as careless:
        assert fsync(careless.url) == ("off",)
        with psycopg.connect(careless.url) as connection:
            assert connection.execute("SHOW wal_level").fetchone() == ("logical",)


def test_never_runs_as_root(server: PostgresServer) -> None:
    uids = {Path(f"/proc/{pid}").stat().st_uid for pid in server.processes()}
    assert uids == {pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()}


# --- stop, kill, restart --------------------------------------------------------------------------


def test_restart_keeps_data_and_address(server: PostgresServer) -> None:
    url, pid = server.url, server.pid
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    server.restart()
    assert server.url == url
    assert server.pid != pid
    with psycopg.connect(url) as connection:
        assert connection.execute("TABLE kept").fetchall() == [(42,)]


def test_committed_rows_survive_a_kill_and_others_do_not(server: PostgresServer) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE survivors (n int)")
        for n in range(100):
            connection.execute("INSERT INTO survivors VALUES (%s)", (n,))
    open_transaction = psycopg.connect(server.url)
    open_transaction.execute("INSERT INTO survivors VALUES (-1)")
    server.kill()
    assert not server.is_running
    open_transaction.close()
    server.start()
    assert "automatic recovery in progress" in server.log_tail()
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT n FROM survivors ORDER BY n").fetchall()
    assert rows == [(n,) for n in range(100)]


def test_after_a_kill_a_busy_backend_cannot_commit(server: PostgresServer) -> None:
    # It never waits, so it would not notice by itself that its postmaster is gone.
    busy = "CREATE TABLE late AS SELECT count(*) FROM generate_series(1, 100_000_000_000)"
    failures: list[psycopg.Error] = []

    def run() -> None:
        try:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(busy)
        except psycopg.Error as error:
            failures.append(error)

    # A daemon: should the backend survive after all, then the test fails and does not hang.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with psycopg.connect(server.url, autocommit=True) as watch:
        running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s"
        eventually(lambda: watch.execute(running, (busy,)).fetchone() == (1,), "the statement runs")
        server.kill()
    assert server.processes() == []
    thread.join(WAIT_S)
    assert [type(error) for error in failures] == [psycopg.OperationalError]


def test_a_postmaster_killed_by_somebody_else_can_be_started_again(server: PostgresServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.is_running, "the postmaster is gone")
    server.start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_stop_leaves_no_process_and_no_listener(server: PostgresServer) -> None:
    with psycopg.connect(server.url):  # an open session does not hold a fast shutdown up
        pid = server.pid
        assert pid in server.processes()
        server.stop()
    assert server.processes() == []
    assert not is_alive(pid)
    assert listening_addresses(server.port) == set()
    assert "received fast shutdown request" in server.log_tail()
    server.stop()  # twice is fine
    with pytest.raises(ServerFailed, match="not running"):
        _ = server.pid


def test_close_leaves_nothing_even_after_a_kill() -> None:
    def segments_of(pid: int) -> set[str]:
        """Shared memory that this process created: other servers may come and go meanwhile."""
        lines = (line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:])
        return {fields[1] for fields in lines if int(fields[4]) == pid}

    with PostgresServer(durable=False) as server:
        base, pid = server.data.parent, server.pid
        server.kill()
        assert segments_of(pid)
    assert not base.exists()
    assert server.processes() == []
    assert not segments_of(pid)
    server.close()  # twice is fine


# --- a first start that meets trouble -------------------------------------------------------------


def test_first_start_moves_when_its_port_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", postgres._free_port()))
        squatter.listen()
        taken = squatter.getsockname()[1]
        ports = iter([taken, taken, postgres._free_port()])
        monkeypatch.setattr(postgres, "_free_port", lambda: next(ports))
        with PostgresServer(durable=False) as server:
            assert server.port != taken


def test_bad_setting_fails_with_the_servers_own_words_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not pytest's tmp_path, which lies under a directory for its owner only: root's server is not root.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        monkeypatch.setattr("tempfile.tempdir", directory)
        with pytest.raises(ServerFailed, match="max_connections"):
            PostgresServer(settings={"max_connections": "many"}).__enter__()
        assert list(Path(directory).iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as somebody else, who may lack access")
def test_binaries_under_a_closed_directory_are_copied_and_nothing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    for part in postgres_wheel.WHEEL_PARTS:
        source = postgres_wheel.site_directory() / part
        (site / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, site / part)
    site.chmod(0o700)
    monkeypatch.setattr(postgres, "site_directory", lambda: site)
    with PostgresServer(durable=False) as server:
        assert site not in server._bin.parents
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert site.stat().st_mode & 0o777 == 0o700


# --- the end of the test process ------------------------------------------------------------------

STARTS_A_SERVER = """
import importlib, sys
server = importlib.import_module(sys.argv[1]).PostgresServer(durable=False)
server.start()
print(server.pid, server.data, flush=True)
"""


def start_elsewhere(then: str) -> tuple["subprocess.Popen[str]", int, Path]:
    """A process that starts a server, reports it, and goes on with `then`."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SERVER + then, postgres.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = re.fullmatch(r"(\d+) (.+)\n", process.stdout.readline())
    assert said is not None
    return process, int(said[1]), Path(said[2])


def test_server_ends_when_the_test_process_is_killed() -> None:
    process, pid, data = start_elsewhere("sys.stdin.read()")
    with process:
        process.kill()
    eventually(lambda: not is_alive(pid), "the postmaster is gone")
    eventually(lambda: not data.parent.exists(), "its directory is removed")


def test_server_ends_with_the_interpreter() -> None:
    process, pid, data = start_elsewhere("sys.exit(7)")
    with process:
        assert process.wait(WAIT_S) == 7
    assert not is_alive(pid)
    assert not data.parent.exists()


def test_exit_of_a_forked_child_ends_nothing() -> None:
    process, pid, data = start_elsewhere(
        "import os\nif os.fork() == 0: sys.exit()\nos.wait()\nprint('waited', flush=True)\nsys.stdin.read()"
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waited\n"
        assert is_alive(pid)
        assert data.exists()
        process.communicate(timeout=WAIT_S)


# --- the fixtures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("visit", ["first", "second"])
def test_each_test_gets_an_empty_database(postgres_url: str, visit: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE mine AS SELECT %s::text AS visit", (visit,))
        assert connection.execute("TABLE mine").fetchall() == [(visit,)]


def test_a_test_may_leave_the_server_killed(postgres_server: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url):
        postgres_server.kill()


def test_databases_of_earlier_tests_are_dropped(postgres_server: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test%'").fetchall()
        assert names == [(connection.info.dbname,)]

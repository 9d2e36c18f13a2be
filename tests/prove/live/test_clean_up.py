"""Whatever becomes of the prover, its processes end, and nothing is ever removed that it has not made."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from faultproof.errors import InvalidInput
from faultproof.prove.live.ground import Workshop, abandoned
from faultproof.prove.live.schemas import PostgresGround, leftovers, sweep
from tests.fakes import eventually
from tests.prove.live.little import LITTLE

PROVER = """
import sys
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.orders import parsed
from faultproof.prove.live.proving import prove_live
from tests.prove.live.little import LITTLE

orders = tuple(parsed("stop:worker:4") for _ in range(8))
prove_live(LITTLE, sys.argv[1], LiveOptions(orders=orders, freeze_s=600.0, run_s=900.0, parallel=2))
"""
_TAG = "FAULTPROOF_TEST"


def running(tag: str) -> list[int]:
    """Processes whose environment says that they belong to this test."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"{_TAG}={tag}".encode() in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                found.append(int(entry))
        except OSError:
            continue
    return found


def stopped(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                found.append(pid)
        except OSError:
            continue
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as raw:
        rows = raw.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'faultproof_prove%' ORDER BY 1"
        ).fetchall()
    return [name for (name,) in rows]


Prover = tuple["subprocess.Popen[bytes]", str]


@pytest.fixture
def prover(postgres_url: str, tmp_path: Path) -> Iterator[Prover]:
    """A prover in two of whose runs a process has been stopped; and its tag."""
    tag = secrets.token_hex(8)
    environment = {**os.environ, _TAG: tag, "TMPDIR": str(tmp_path)}
    prover = subprocess.Popen([sys.executable, "-c", PROVER, postgres_url], env=environment, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: len(stopped(running(tag))) == 2, "two runs with a stopped process", 60.0)
        assert len(running(tag)) >= 4, "prover, nursery, and the two that are stopped"
        yield prover, tag
    finally:
        if prover.poll() is None:
            prover.kill()
            prover.wait()


def test_a_prover_that_is_killed_takes_its_processes_with_it_and_a_later_one_removes_the_rest(
    prover: Prover, postgres_url: str, tmp_path: Path
) -> None:
    process, tag = prover
    process.kill()
    process.wait()
    eventually(lambda: running(tag) == [], "no process of the prover's is left, stopped ones included")
    left = schemas(postgres_url)
    assert len(left) >= 2
    eventually(lambda: leftovers(postgres_url) == left, "the server notices that the prover is gone")
    assert len(abandoned(tmp_path)) == 1
    assert sweep(postgres_url) == left
    assert schemas(postgres_url) == []


def test_a_prover_that_is_interrupted_removes_everything_itself(
    prover: Prover, postgres_url: str, tmp_path: Path
) -> None:
    process, tag = prover
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) != 0
    assert running(tag) == []
    assert schemas(postgres_url) == []
    assert list(tmp_path.iterdir()) == []


def test_processes_end_with_their_nursery_and_the_prover_says_so(
    prover: Prover, postgres_url: str, tmp_path: Path
) -> None:
    process, tag = prover
    (nursery,) = [pid for pid in running(tag) if parent(pid) == process.pid]
    os.kill(nursery, signal.SIGKILL)  # a child of our own child's
    assert process.wait(60.0) == 1
    eventually(lambda: running(tag) == [], "the kernel has ended them, stopped ones included")
    assert schemas(postgres_url) == []
    assert list(tmp_path.iterdir()) == []


def test_only_what_carries_the_marker_of_a_run_that_is_over_is_swept(postgres_url: str) -> None:
    others = ["faultproof_prove_0123456789ab_1", "faultproof_prove_mine", "faultproof_prove_0123456789ab_2"]
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        for name in others:
            raw.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        raw.execute(
            "COMMENT ON SCHEMA faultproof_prove_0123456789ab_2 IS 'made by `faultproof prove`, run ffffffffffff'"
        )
    ground = PostgresGround(LITTLE, postgres_url)
    place = ground.place(1)
    (ours,) = set(schemas(postgres_url)) - set(others)
    assert leftovers(postgres_url) == []
    assert sweep(postgres_url) == [], "neither what others have made, nor what belongs to a prover that runs"
    place.close()
    assert ground.close() == []
    assert ours not in schemas(postgres_url)
    assert schemas(postgres_url) == sorted(others)


def test_a_schema_that_lost_its_marker_is_not_dropped(postgres_url: str) -> None:
    ground = PostgresGround(LITTLE, postgres_url)
    place = ground.place(1)
    (ours,) = schemas(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(sql.SQL("COMMENT ON SCHEMA {} IS 'mine now'").format(sql.Identifier(ours)))
    with pytest.raises(InvalidInput, match="does not carry this run's marker"):
        place.close()
    assert ground.close() == [f"the schema {ours} could not be dropped: it does not carry this run's marker"]
    assert schemas(postgres_url) == [ours]


def test_a_directory_is_abandoned_when_its_prover_is_gone_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "faultproof-prove-mine").mkdir()
    workshop = Workshop(tmp_path)
    assert abandoned(tmp_path) == []
    os.close(workshop._marker)  # what the kernel does when its process is killed
    assert abandoned(tmp_path) == [workshop.path]

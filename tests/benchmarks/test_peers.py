"""`python -m benchmarks.faults`: that it notices queues which are broken, strikes what it says, and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.faults.__main__ import trial_of
from benchmarks.faults.index import CONTENDERS, contender_called
from benchmarks.faults.judging import disordered
from benchmarks.faults.model import KEYS, Trial
from faultproof.errors import InvalidInput
from tests.fakes import eventually

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.faults"]
WAIT_S = 120.0
QUICK_S = 180.0
"""On a machine that has a lot else to do."""
SOAK_S = 900.0


def faults(*arguments: str, status: int, timeout: float = QUICK_S) -> dict[str, Any]:
    """Its reports by contender."""
    got = subprocess.run(
        [*COMMAND, *arguments, "--json"], cwd=REPOSITORY, capture_output=True, timeout=timeout, check=False
    )
    assert got.returncode == status, got.stderr.decode()
    return {each["contender"]: each for each in msgspec.json.decode(got.stdout)}


def test_broken_queues_are_noticed_and_a_sound_one_is_not() -> None:
    reports = faults("by-hand", "planted-early", "planted-for-ever", "planted-once", "--kills", "2", status=1)
    sound = reports["by-hand"]
    assert (sound["verdict"], sound["wrong"], sound["missing"]) == ("held", [], [])
    assert (sound["killed"], sound["crashed"]) == (2, 0)
    assert (sound["findings"]["strikes"], sound["findings"]["repeated"], sound["findings"]["effects_max"]) == (2, 2, 2)
    assert sound["findings"]["bystanders"] == 0
    assert reports["planted-early"]["wrong"] == ["2 of 20 jobs have no effect: 10, 20"]
    assert reports["planted-for-ever"]["wrong"] == ["2 jobs are unfinished after 2 s in which nothing happened"]
    assert reports["planted-once"]["wrong"] == ["2 jobs have their effect more than once: 10, 20"]


@pytest.mark.soak
def test_every_library_does_its_jobs_once_when_nothing_strikes() -> None:
    names = ("pgqueuer", "procrastinate-locks", "faststream-outbox", "faultproof-relay")
    reports = faults(*names, "--fault", "none", "--kills", "1", status=0)
    assert reports.keys() == set(names)
    for report in reports.values():
        assert report["verdict"] == "held", report
        assert (report["killed"], report["crashed"]) == (0, 0), report
        assert report["findings"]["effects_max"] == 1, report


@pytest.mark.soak
@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("fault", ["none", "kill", "stop", "server"])
def test_every_library_keeps_its_promise(name: str, fault: str) -> None:
    report = faults(name, "--fault", fault, "--kills", "3", status=0, timeout=SOAK_S)[name]
    assert report["verdict"] == "held", report


@pytest.mark.soak
def test_the_live_world_takes_a_contender_as_a_service() -> None:
    got = subprocess.run(
        [*COMMAND, "faultproof-inbox", "--fault", "live", "--kills", "1", "--json"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=SOAK_S,
        check=False,
    )
    (report,) = msgspec.json.decode(got.stdout)
    assert (got.returncode, report["violations"], report["left"]) == (0, [], []), report
    assert report["fired"]["kills"] == 1


class Told:
    """Evidence that has one answer."""

    notes: Sequence[tuple[Any, ...]] = ()
    outside: Mapping[str, Any] = {}

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self._rows


def test_order_is_that_of_first_effects_within_a_key() -> None:
    assert disordered(Told([(1,), (2,), (1 + KEYS,), (2 + KEYS,)])) == []
    assert disordered(Told([(1 + KEYS,), (2,), (1,), (2 + KEYS,)])) == [1]
    assert disordered(Told([(2,), (1,)])) == []  # of two keys


def test_only_workers_that_may_be_stopped_are() -> None:
    trial = trial_of(contender_called("pgqueuer"), "stop", 3)
    assert trial.workers == ("worker-1", "worker-2", "worker-3", "worker-4", "worker-5")
    assert [name for name in trial.workers if trial.strikes_at(1, name)] == ["worker-3", "worker-4", "worker-5"]
    assert [job for job in range(1, 31) if Trial(fault="kill", strikes=3).strikes_at(job, "worker-1")] == [10, 20, 30]


def test_bad_input_is_refused_in_one_sentence() -> None:
    for name, fault, strikes, sentence in (
        ("pgqueue", "kill", 1, "there is no contender 'pgqueue': choose from pgqueuer, "),
        ("pgqueuer", "flood", 1, "a fault is none, kill, stop, server, live, not 'flood'"),
        ("pgqueuer", "kill", 1_001, "`--kills` must be a whole number from 1 to 1,000, got 1001"),
    ):
        with pytest.raises(InvalidInput) as refused:
            trial_of(contender_called(name), fault, strikes)
        assert str(refused.value).startswith(sentence)
    got = subprocess.run(
        [*COMMAND, "pgqueuer", "--kills", "0"],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=QUICK_S,
        text=True,
        check=False,
    )
    assert (got.returncode, got.stdout, got.stderr) == (
        2,
        "",
        "`--kills` must be a whole number from 1 to 1,000, got 0\n",
    )


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Not pytest's own, which the account that the server runs under cannot enter."""
    directory = Path(tempfile.mkdtemp(prefix="fp-faults-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.soak
def test_interrupted_it_leaves_no_server_no_worker_and_no_file(temporary: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "by-hand", "--kills", "1000"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: len(_processes(temporary, b"benchmarks.faults")) >= 3, "workers run", WAIT_S)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (128 + signal.SIGTERM, "", "")
    assert _processes(temporary, b"") == []
    assert list(temporary.iterdir()) == []


def _processes(temporary: Path, command: bytes) -> list[int]:
    """Those that run with this directory for temporary files."""
    found = []
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if line and command in line and f"TMPDIR={temporary}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


PAGE = (REPOSITORY / "docs" / "peers.md").read_text(encoding="utf-8")


def test_the_page_has_every_contender_and_its_version() -> None:
    for name, contender in CONTENDERS.items():
        assert re.search(rf"`{name}`", PAGE), name
        if contender.package != "faultproof":
            assert f"{contender.package} {version(contender.package)}" in PAGE, name


def test_every_command_on_the_page_can_be_given() -> None:
    commands = re.findall(r"python -m benchmarks\.faults ([^`\n#]+)", PAGE)
    assert commands
    for command in commands:
        names, _, options = command.partition("--")
        for name in set(names.split()) - {"NAME"}:
            contender_called(name)
        assert re.fullmatch(r"((fault (none|kill|stop|server|live)|kills \d+|json)\s*(--)?)*", options.strip()), command

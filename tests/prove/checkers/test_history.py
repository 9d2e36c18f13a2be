"""Reading and writing histories: what is torn, damaged or too much, and many processes at one file."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from faultproof.errors import CannotOpen, InvalidInput, PayloadTooLarge, UsedAfterFork
from faultproof.prove.checkers.history import Call, FileLimits, Operation, read_history
from faultproof.prove.checkers.linearizability import judge
from faultproof.prove.checkers.models import Counter
from faultproof.prove.checkers.recorder import Recorder
from faultproof.prove.checkers.search import Verdict

CALL = b'{"type": "invoke", "process": "a", "op": "write", "value": 1}\n'
OK = b'{"type": "ok", "process": "a", "op": "write"}\n'


def refused(path: Path, limits: FileLimits | None = None) -> str:
    with pytest.raises(InvalidInput) as error:
        read_history(path, limits)
    return str(error.value).replace(str(path), "FILE")


def test_calls_are_paired_with_their_answers(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(
        CALL
        + b'{"type": "invoke", "process": 7, "op": "read", "key": "x", "time": 0.25}\n'
        + OK
        + b"\n"  # an empty line is nothing
        + b'{"type": "invoke", "process": "a", "op": "cas", "value": [1, 2]}\n'
        + b'{"type": "ok", "process": 7, "op": "read", "value": {"b": [true], "a": 2.0}}\n'
        + b'{"type": "info", "process": "a", "op": "cas", "value": "timed out"}\n'
        + b'{"type": "invoke", "process": "b", "op": "write", "value": 3}\n'
        + b'{"type": "fail", "process": "b", "op": "write"}\n'
        + b'{"type": "invoke", "process": "b", "op": "write", "value": 4}'
    )
    history = read_history(path)
    assert history.failed == 1
    assert history.notes == ()
    read = history.operations[1]
    assert (read.process, read.key, read.called, read.returned, str(read.call)) == (
        "7",
        "x",
        2,
        6,
        'read → {"a":2,"b":[true]}',
    )
    assert [history.operations[0], *history.operations[2:]] == [
        Operation("a", None, Call("write", 1), 1, 3),
        Operation("a", None, Call("cas", (1, 2), None, False), 5),
        Operation("b", None, Call("write", 4, None, False), 10),
    ]


@pytest.mark.parametrize("left", [1, 17, len(OK) - 2])
def test_last_line_that_a_kill_cut_off_is_left_out_and_said(tmp_path: Path, left: int) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(CALL + OK[:left])
    history = read_history(path)
    assert history.notes == ("line 2 is cut off, as a kill leaves it, and left out",)
    assert [each.returned for each in history.operations] == [None]
    path.write_bytes(CALL + OK[:left] + b"\n")  # somebody went on after it: that is damage
    assert "line 2, is no event" in refused(path)


DAMAGED = {
    b"{}\n": "'FILE', line 2, is no event of a history: Object missing required field `type`",
    b"nonsense\n" + OK: "'FILE', line 2, is no event of a history: JSON is malformed: invalid",
    b"\x00\xff\n": "'FILE', line 2, is no event",
    b"[" * 10_000 + b"\n": "'FILE', line 2, is no event",
    CALL.replace(b'"value"', b'"vlaue"'): "unknown field `vlaue`",
    CALL.replace(b"invoke", b"call"): "Invalid enum value 'call'",
    CALL.replace(b'"a"', b'""'): "`$.process`",
    CALL.replace(b'"a"', b"true"): "`$.process`",
    CALL: "line 2: process 'a' calls while its call of line 1 is not answered; "
    "after a death it needs another name, or an `info` first",
    OK.replace(b'"a"', b'"b"'): "line 2: process 'b' is answered (ok) and has called nothing",
    OK.replace(b"write", b"read"): "line 2: process 'a' is answered another call than that of line 1",
    OK.replace(b'"op"', b'"key": "x", "op"'): "line 2: process 'a' is answered another call than that of line 1",
}


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: line[:40])
def test_damage_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(CALL + line)
    assert DAMAGED[line] in refused(path)


def test_more_than_the_limits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes((CALL + OK) * 3)
    limits = FileLimits(file_bytes=100)
    assert refused(path, limits) == "'FILE' is larger than 100 bytes: judge it in parts"
    assert refused(path, FileLimits(operations=2)) == "there are more than 2 operations: judge them in parts"
    assert (
        refused(path, FileLimits(line_bytes=60)) == "'FILE', line 1, is longer than 60 bytes: no event of a history is"
    )
    assert len(read_history(path, FileLimits(file_bytes=path.stat().st_size, operations=3)).operations) == 3


def test_endless_file_is_not_read_to_its_end() -> None:
    assert "line 1, is longer than 65,536 bytes" in refused(Path("/dev/zero"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == "the history 'FILE' cannot be read: Is a directory"
    assert refused(tmp_path / "none") == "the history 'FILE/none' cannot be read: No such file or directory".replace(
        "FILE/none", "FILE"
    )
    assert "null" in refused(Path("a\0b"))


WORKER = """
import sys
from pathlib import Path
from faultproof.prove.checkers.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), "adder")
for _ in range(200):
    recorder.call("add", 1).ok()
lost = recorder.call("add", 1)
print("ready", flush=True)
sys.stdin.read()
"""


def test_many_processes_write_one_history_and_a_killed_one_leaves_its_call_open(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        worker.send_signal(signal.SIGKILL)
        worker.communicate(timeout=20)
    reader = Recorder(path, "reader")
    for value in (400, 401):
        reader.call("read").ok(value)
    reader.close()
    history = read_history(path)
    assert [each.returned for each in history.operations].count(None) == 2
    assert len(history.operations) == 404
    assert judge(history, Counter()).verdict is Verdict.LINEARIZABLE
    again = Recorder(path, "reader")
    again.call("read").ok(400)
    again.close()
    assert judge(read_history(path), Counter()).verdict is Verdict.NOT_LINEARIZABLE


def test_threads_have_lanes_and_an_unknown_outcome_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path, "api")

    def adds(number: int) -> None:
        for turn in range(50):
            call = recorder.call("add", 1, key=f"k{number}")
            call.unknown() if turn == 25 else call.fail() if turn == 30 else call.ok()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(adds, range(4)))
    recorder.close()
    history = read_history(path)
    assert (len(history.operations), history.failed) == (4 * 49, 4)
    lost = {each.process for each in history.operations if each.returned is None}
    assert len(lost) == 4
    assert len({each.process for each in history.operations}) <= 8
    by_lost = [each for each in history.operations if each.process in lost]
    assert max(by_lost, key=lambda each: each.called).returned is None


def test_recorder_of_before_a_fork_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parent and child would take the same lanes, and answer each other's calls."""
    recorder = Recorder(tmp_path / "run.jsonl", "api")
    ours = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: ours + 1)
    with pytest.raises(UsedAfterFork):
        recorder.call("add", 1)
    recorder.close()
    assert read_history(tmp_path / "run.jsonl").operations == ()


def test_what_cannot_be_written_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path, "api")
    for value in (object(), float("nan"), [[object()]], {1, 2}):
        with pytest.raises(InvalidInput):
            recorder.call("write", value)
    with pytest.raises(PayloadTooLarge):
        recorder.call("write", "x" * 70_000)
    with pytest.raises(InvalidInput):
        recorder.call("")
    assert path.read_bytes() == b""
    assert os.stat(path).st_mode & 0o077 == 0
    recorder.call("write", 1).ok()
    recorder.close()
    assert len(read_history(path).operations) == 1
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    # Those that were refused have left their lane.
    assert [(each["type"], each["process"].rpartition(":")[2]) for each in lines] == [("invoke", "1"), ("ok", "1")]
    with pytest.raises(CannotOpen, match="No such file"):
        Recorder(tmp_path / "none" / "run.jsonl", "api")

"""`faultproof check` through the real executable: verdicts, what is shown, and what is refused."""

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from faultproof.cli import app, check
from faultproof.prove.checkers import search
from tests.cli.executable import faultproof, refusals
from tests.prove.checkers.corpus import BAD, GOOD
from tests.prove.checkers.histories import events
from tests.prove.checkers.test_jepsen import STALE

LITTLE = "tests.cli.little_models:"


@pytest.fixture
def saved(tmp_path: Path) -> "Saved":
    return Saved(tmp_path)


class Saved:
    """Histories as files, written the short way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, text: str, name: str = "run.jsonl") -> str:
        path = self.directory / name
        path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in events(text)))
        return str(path)


def checked(*args: str, status: int) -> Result:
    """`faultproof check` in this process: a start takes longer than what is tried here."""
    got = CliRunner().invoke(app, ["check", *args], env={"COLUMNS": ""})
    assert got.exit_code == status, got.output
    return got


def test_every_model_judges_good_and_bad_histories(saved: Saved) -> None:
    for model, texts in GOOD.items():
        good = [saved(text, f"{model}{number}.jsonl") for number, text in enumerate(texts)]
        assert checked(*good, "--model", model, status=0).stdout.count("LINEARIZABLE, ") == len(texts)
        bad = [saved(text, f"{model}.{bug}.jsonl") for bug, (text, *_) in BAD[model].items()]
        assert checked(*bad, "--model", model, status=1).stdout.count("NOT LINEARIZABLE, ") == len(bad)


def test_contradiction_is_shown_in_words_within_25_lines(saved: Saved) -> None:
    path = saved("a write 1 | a ok | c write 3 | a write 2 | a ok | b read | b ok 1 | c info")
    lines = [line.rstrip() for line in checked(path, "--model", "register", status=1).stdout.splitlines()]
    assert lines[0] == f"{path}: register"
    assert lines[1] == "operations  4, 1 of them never answered"
    assert lines[2].startswith("result      NOT LINEARIZABLE, ")
    assert lines[3:] == [
        "because     no order explains 2 operations, whatever happened before line 4 and whatever all others did:",
        "            lines 4-5  process a  write 2",
        "            lines 6-7  process b  read → 1",
        "expected    read → 2; or read → 3",
        "actual      read → 1, line 7, process b",
        "",
    ]
    long = " | ".join(f"p{number} add 1" for number in range(40))
    done = " | ".join(f"p{number} ok" for number in range(40))
    path = saved(f"{long} | {done} | r read | r ok 39")
    lines = checked(path, "--model", "counter", status=1).stdout.splitlines()
    assert len(lines) <= 25
    assert any("29 before these" in line for line in lines)


def test_log_of_jepsen_s_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    path.write_text(STALE)
    got = faultproof("check", str(path), "--format", "jepsen-log", "--model", "cas-register", status=1)
    assert "actual      read → 1, line 14, process 2" in got.stdout
    path.write_text(STALE.removesuffix("INFO  jepsen.util - 2\t:ok\t:read\t1\n"))
    assert (
        "result      LINEARIZABLE"
        in checked(str(path), "--format", "jepsen-log", "--model", "cas-register", status=0).stdout
    )


def test_unknown_is_said_with_what_ran_out(saved: Saved) -> None:
    many = " | ".join(f"p{number} add {number}" for number in range(30))
    answers = " | ".join(f"p{number} ok" for number in range(30))
    path = saved(f"{many} | {answers} | r never | r ok")
    for option, why in ((("--timeout", "0.01"), "0.01 s"), (("--configurations", "300"), "300 configurations")):
        got = checked(path, "--model", LITTLE + "SLOW", *option, status=3)
        assert "result      UNKNOWN, " in got.stdout
        assert f"given up after {why}" in " ".join(got.stdout.split())
    empty = saved("a add 1 | a fail")
    got = checked(empty, "--model", "counter", status=3)
    assert "UNKNOWN: there is nothing to judge" in got.stdout
    assert "0, 1 more that failed and had no effect" in got.stdout
    Path(empty).write_bytes(b"")
    assert "there is nothing to judge" in checked(empty, "--model", "counter", status=3).stdout


def test_worst_of_several_files_decides(saved: Saved) -> None:
    good, bad, none = (
        saved("a add 1 | a ok", "good"),
        saved("a read | a ok 1", "bad"),
        saved("a add 1 | a fail", "none"),
    )
    for files, status in (((good, none, bad), 1), ((good, none), 3), ((good, good), 0)):
        got = checked(*files, "--model", "counter", "--json", status=status)
        verdicts = {each["file"]: each["verdict"] for each in json.loads(got.stdout)}
        right = {good: "linearizable", bad: "not linearizable", none: "unknown"}
        assert verdicts == {file: right[file] for file in files}


def test_json_has_every_key_and_the_part(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    lines = []
    for key in ("x", "y"):
        for each in events("a write 1 | a ok | b read | b ok 7" if key == "y" else "a read | a ok null | c write 1"):
            lines.append(msgspec.json.encode(msgspec.structs.replace(each, key=key)) + b"\n")
    path.write_bytes(b"".join(lines) + b'{"type": "inv')
    (got,) = json.loads(checked(str(path), "--model", "register", "--json", status=1).stdout)
    assert (got["operations"], got["unanswered"], got["failed"]) == (4, 1, 0)
    assert got["notes"] == ["line 8 is cut off, as a kill leaves it, and left out"]
    x, y = got["objects"]
    assert (x["key"], x["verdict"], x["part"]) == ("x", "linearizable", None)
    assert (y["key"], y["verdict"]) == ("y", "not linearizable")
    assert y["part"] == {
        "operations": [
            {"process": "b", "call": "read → 7", "called": 6, "answered": 7, "can_be_spared": False},
        ],
        "expected": ["read → 1"],
        "actual": "read → 7",
        "answered": 7,
        "whatever_happened_before": 6,
        "is_minimal": True,
    }
    shown = checked(str(path), "--model", "register", status=1).stdout
    assert "of 2 keys 1 linearizable, 1 not linearizable" in shown
    assert 'no order explains this operation of key "y"' in shown
    assert "note        line 8 is cut off" in shown


def test_model_of_one_s_own(saved: Saved) -> None:
    path = saved("a put 3 | a ok | b put 2 | b ok | c top | c ok 3")
    assert "LINEARIZABLE" in checked(path, "--model", LITTLE + "HIGHEST", status=0).stdout
    path = saved("a put 3 | a ok | b put 2 | b ok | c top | c ok 2")
    assert "expected    top → 3" in checked(path, "--model", LITTLE + "HIGHEST", status=1).stdout


def test_model_that_fails_shows_nothing(saved: Saved) -> None:
    got = checked(saved("a put 3 | a ok"), "--model", LITTLE + "FAILING", status=4)
    assert got.stdout == ""
    assert got.stderr.splitlines()[-2:] == [
        "ZeroDivisionError: no model today",
        f"The model {LITTLE}FAILING failed, so this shows nothing.",
    ]


def test_help_teaches() -> None:
    text = " ".join(checked("--help", status=0).stdout.split())
    for part in ('{"type": "invoke", "process": "api-1"', "--format jepsen-log", "cas [old, new]", "3 unknown"):
        assert part in text


def test_progress_is_shown_on_a_terminal_after_a_second(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(" | ".join(f"a read | a ok 0 | a add 1 | b read | a ok | b ok {each % 1}" for each in range(1)))
    now, terminal = 100.0, io.StringIO()

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr("time.monotonic", clock)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    limits = search.Limits(clock=lambda: 0.0)
    done = check._checked(Path(path), "jsonl", "counter", check.MODELS["counter"], limits)
    assert done.status == 0
    assert f"judging {path}: 1 configurations, " in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_bad_input_is_one_sentence(saved: Saved, tmp_path: Path) -> None:
    good = saved("a add 1 | a ok")
    binary, large, log = tmp_path / "binary", tmp_path / "large", tmp_path / "log"
    binary.write_bytes(bytes(range(256)) * 10)
    with large.open("wb") as file:
        file.truncate(100_000_001)  # a hole
    log.write_text("nothing of Jepsen's\n")
    sentences = refusals(
        ["check", good, "--model", "stack"],
        ["check", good, "--model", "nowhere.at_all:X"],
        ["check", good, "--model", LITTLE + "NOTHING"],
        ["check", good, "--model", "faultproof.prove.checkers.models:Counter"],
        ["check", good, "--model", "counter", "--timeout", "0"],
        ["check", good, "--model", "counter", "--timeout", "nan"],
        ["check", good, "--model", "counter", "--configurations", "0"],
        ["check", good, "--model", "register"],
        ["check", str(tmp_path), "--model", "counter"],
        ["check", str(tmp_path / "none"), "--model", "counter"],
        ["check", str(binary), "--model", "counter"],
        ["check", str(large), "--model", "counter"],
        ["check", str(log), "--model", "counter", "--format", "jepsen-log"],
    )
    for sentence, part in zip(
        sentences,
        (
            "there is no model 'stack'; there are register, cas-register, counter, queue, lock, and yours as pkg.module:NAME",
            "there is no model 'nowhere.at_all:X': no module 'nowhere.at_all' is in the current directory, or installed",
            f"there is no model '{LITTLE}NOTHING': ",
            "it must be an object with `initial` and `step(state, call)`",
            "`--timeout` must be a number of seconds from 0.000001",
            "`--timeout` must be a number of seconds from 0.000001",
            "`--configurations` must be a whole number from 1",
            "a register has read, write, not 'add'",
            "cannot be read: Is a directory",
            "cannot be read: No such file or directory",
            "line 1, is no event of a history",
            "is larger than 100,000,000 bytes: judge it in parts",
            "is no log of Jepsen's: none of its lines is an event",
        ),
        strict=True,
    ):
        assert part in sentence

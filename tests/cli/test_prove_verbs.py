"""`faultproof prove` and `faultproof replay`, through the real executable."""

import inspect
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from faultproof.catalogue import UnknownPattern
from faultproof.cli import prove
from faultproof.cli.proofs import proofs_of
from faultproof.cli.tapes import again
from faultproof.prove.saved import load, save
from faultproof.prove.simulated.faults import EVERY
from faultproof.prove.simulated.lanes import FileStore, MemoryStore
from tests.cli import little_proofs
from tests.cli.executable import EXECUTABLE, faultproof, refusals
from tests.cli.little_proofs import HELD
from tests.fakes import WAIT_S

ROOT = Path(__file__).resolve().parents[2]
LITTLE = "tests.cli.little_proofs:"
ENV = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def proved(name: str, *args: str, status: int) -> subprocess.CompletedProcess[str]:
    """`faultproof prove` on one of the little proofs."""
    return faultproof("prove", LITTLE + name, *args, status=status, env=ENV)


def source_line(function: Any, beginning: str) -> int:
    """The line of a function that begins so."""
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if line.strip().startswith(beginning))


def test_claim_that_holds_is_reported_with_all_that_was_not_tried() -> None:
    printed = proved("HELD", "--plants", "--random", "7", "--seed", "3", status=0).stdout
    lines = printed.splitlines()
    assert lines[0] == LITTLE + "HELD"
    text = " ".join(printed.split())
    for part in (
        "claim Each mark is made once.",
        "faults the process dies, or freezes, anywhere",
        "assuming what was committed stays",
        "not tested more than two marks",
        "planted bugs marks blindly: caught, freeze before writer in marker.0",
    ):
        assert part in text
    # Before and after two commits, crash and freeze: a crash between the two is one place.
    assert "result every one of 8 points (7 distinct), once: 8 schedules in " in text
    assert "/s), held random from seed 3, " in text
    # Whatever the seven were not struck by, one run more is.
    assert 7 <= int(text.split("faults struck, ")[1].split(" schedules in")[0]) <= 7 + len(EVERY)
    assert "never struck" not in text
    assert len(lines) <= 25


def test_random_runs_that_a_fault_never_struck_show_nothing_about_it() -> None:
    """`LATELY` does what can be struck by that fault only in runs that were struck by another before."""
    proved("LATELY", status=0)
    printed = proved("LATELY", "--random", "30", status=3).stdout
    assert "never struck: twice, late; ask for more with --random" in " ".join(printed.split())
    (document,) = json.loads(proved("LATELY", "--random", "30", "--json", status=3).stdout)
    assert (document["outcome"], document["random"]["never_struck"]) == ("inconclusive", ["twice", "late"])


def test_pattern_s_name_stands_for_all_of_its_proofs() -> None:
    rooms = "faultproof.patterns."
    assert {proof.name for proof in proofs_of(["outbox"])} == {
        rooms + "outbox.proof:" + name for name in ("OUTBOX", "POISON", "DEAD_LETTERS", "KEYS_GO_ON", "RELAY")
    }
    assert [proof.name for proof in proofs_of([rooms + "outbox.proof:POISON", "Batch", "batch"])] == [
        rooms + "outbox.proof:POISON",
        rooms + "batch.proof:BATCH",
    ]
    every = [
        "outbox",
        "saga",
        "escrow",
        "hedged request",
        "sidecar",
        "scatter-gather",
        "bulkhead",
        "batch",
        "shadow",
        "request-response",
        "fan-out",
        "claim",
        "log",
        "idempotency",
    ]
    assert [proof.name for proof in proofs_of([])] == [proof.name for proof in proofs_of(every)]


def test_parts_of_the_kernel_have_names_too() -> None:
    room = "faultproof.prove.kernel."
    assert [proof.name for proof in proofs_of(["log", "Claim", room + "idempotency:IDEMPOTENCY"])] == [
        room + "log:LOG",
        room + "claim:CLAIM",
        room + "idempotency:IDEMPOTENCY",
    ]
    with pytest.raises(UnknownPattern, match="no pattern named 'logs'"):
        proofs_of(["logs"])


def test_ready_pattern_s_planted_bugs_are_caught_within_25_lines() -> None:
    lines = faultproof("prove", "Batch", "--plants").stdout.splitlines()
    assert sum(": caught, " in line for line in lines) == 5
    assert len(lines) <= 25


def test_violation_is_shrunk_saved_and_replayed(tmp_path: Path) -> None:
    printed = proved("VIOLATED", "--save", str(tmp_path), status=1).stdout
    text = " ".join(printed.split())
    assert ": VIOLATED" in text
    assert "struck by freeze before writer in marker.0 (transaction mark)" in text
    assert "expected there are two marks seen the marks are [1, 1, 2, 2], not [1, 2]" in text
    (tape,) = tmp_path.iterdir()
    command = f"faultproof replay {tape}"
    assert printed.splitlines()[-2:] == [f"replay        {command}", ""]
    _is_explained(printed.splitlines())

    page = tmp_path / "page.html"
    got = faultproof(*command.split()[1:], "--html", str(page), status=1, env=ENV)
    assert "seen       the marks are [1, 1, 2, 2], not [1, 2]\n" in got.stdout
    assert "world: FAULT 'freeze before writer in marker.0'" in got.stdout
    assert "planted    nothing\n" in got.stdout
    assert "operations 0.000 s marker.0 *** freeze before transaction mark\n" in got.stdout
    at = source_line(little_proofs._processes, "await database.transact")
    assert f"\nat         tests/cli/little_proofs.py:{at} in _processes.main: " in got.stdout
    assert got.stdout.splitlines()[-1] == f"{LITTLE}VIOLATED: VIOLATED"
    assert "The run on the tape" in page.read_text()
    assert str(tmp_path) not in page.read_text()


def _is_explained(lines: list[str]) -> None:
    """By the operations that matter and the lines of the source."""
    at = source_line(little_proofs._processes, "await database.transact")
    struck = next(n for n, line in enumerate(lines) if line.startswith("struck by"))
    assert lines[struck + 1].split() == [
        f"tests/cli/little_proofs.py:{at}",
        *["in", "_processes.main:", "await", "database.transact(mark(n))"],
    ]
    first = next(n for n, line in enumerate(lines) if line.startswith("operations"))
    assert [line.removeprefix("operations").strip() for line in lines[first : first + 6]] == [
        "0.000 s marker.0 *** freeze before transaction mark",
        f"0.020 s marker.1 cli/little_proofs.py:{at} transaction mark: mark; committed",
        f"0.020 s marker.1 cli/little_proofs.py:{at} transaction mark: mark; committed",
        f"0.020 s marker.1 cli/little_proofs.py:{at + 1} tells the outside: finished ('marker',)",
        "1.500 s marker.0 is back, and goes on",
        f"1.500 s marker.0 cli/little_proofs.py:{at} transaction mark: mark; committed",
    ]


def test_what_explains_a_violation_takes_what_room_is_left_of_25_lines(tmp_path: Path) -> None:
    long = proved("LONG_WINDED", "--save", str(tmp_path), status=1).stdout.splitlines()
    assert len(long) == 25
    assert sum(line.startswith("operations") for line in long) == 1
    assert long[-2].startswith("replay ")


def test_page_of_a_violation_shows_the_run_and_names_nobody_s_home(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    got = json.loads(proved("VIOLATED", "--save", str(tmp_path), "--html", str(page), "--json", status=1).stdout)
    text = page.read_text()
    for part in (
        "freeze before transaction mark",
        "tests/cli/little_proofs.py:",
        "the marks are [1, 1, 2, 2], not [1, 2]",
    ):
        assert part in text, part
    assert "<code>faultproof replay cli-violated.tape</code>" in text
    assert str(tmp_path) not in text
    assert str(ROOT) not in text
    assert str(Path.home()) not in text.replace(str(ROOT), "") or Path.home() == Path("/")
    assert socket.gethostname() not in text
    # The same facts for machines.
    violation = got[0]["violation"]
    assert violation["struck"][0]["at"].startswith("tests/cli/little_proofs.py:")
    assert violation["expected"] == [
        {"expected": "there are two marks", "seen": ["the marks are [1, 1, 2, 2], not [1, 2]"]}
    ]
    assert violation["operations"][0] == "0.000 s  marker.0  *** freeze before transaction mark"
    kinds = [event["kind"] for event in violation["history"]["events"]]
    assert (kinds[0], kinds.count("fault"), kinds.count("wakes")) == ("start", 1, 1)
    assert got[0]["properties"][0]["verdict"] == "violated"
    (world,) = got[0]["worlds"]
    assert (world["world"], world["verdict"]) == ("simulated", "violated")
    assert world["scope"] == ["every one of 8 points (7 distinct), once"]
    assert set(got[0]["environment"]) == {"faultproof", "Python", "SQLite", "system"}


def test_page_of_what_held_shows_runs_and_mutants(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    proved("HELD", "--plants", "--html", str(page), status=0)
    text = page.read_text()
    for part in ("The undisturbed run", "One crash", "One freeze", "With &#x27;marks blindly&#x27; planted"):
        assert f">{part}</label>" in text, part
    assert "Mutants: 1 of 1 killed" in text
    assert "What went wrong" not in text


def test_page_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """The disk may be full by then; the verdict stands, and whoever looks for the page must be told."""
    (tmp_path / "full").symlink_to("/dev/full")
    got = proved("HELD", "--html", str(tmp_path / "full"), status=4)
    assert "the page could not be written" in got.stderr
    assert ", held" in got.stdout


def test_tape_of_a_planted_bug_is_replayed_with_it_and_holds_without_it(tmp_path: Path) -> None:
    got = json.loads(proved("HELD", "--plants", "--save", str(tmp_path), "--json", status=0).stdout)
    (plant,) = got[0]["plants"]
    violation = plant["violation"]
    assert (plant["plant"], plant["caught"]) == ("marks blindly", True)
    assert violation["seen"] == ["the marks are [1, 1, 2, 2], not [1, 2]"]
    tape = violation["tape"]
    assert violation["replay"] == f"faultproof replay {tape}"

    again = json.loads(faultproof("replay", tape, "--json", status=1, env=ENV).stdout)
    assert (again["proof"], again["plant"], again["found_with"]) == (f"{LITTLE}HELD", "marks blindly", "marks blindly")
    assert (again["seen"], again["faults"]) == (violation["seen"], violation["faults"])
    assert again["struck"] == violation["struck"] != []
    assert again["history"]["events"] == violation["history"]["events"]
    *_, planted, struck, seen, verdict = faultproof("replay", tape, status=1, env=ENV).stdout.splitlines()
    assert planted == "planted    'marks blindly', which the tape was found with"
    assert struck == "struck by  freeze before writer in marker.0"
    assert seen == "seen       the marks are [1, 1, 2, 2], not [1, 2]"
    assert verdict == f"{LITTLE}HELD with 'marks blindly' planted: VIOLATED"

    *_, planted, struck, verdict = faultproof("replay", tape, "--unplanted", env=ENV).stdout.splitlines()
    assert planted == "planted    nothing, although the tape was found with 'marks blindly'"
    assert struck == "struck by  freeze before writer in marker.0"
    assert verdict == f"{LITTLE}HELD: held"


def test_tape_that_was_asked_for_and_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """Found: it was said, and the status was that of a run in which all is well."""
    first, then = tmp_path / "first", tmp_path / "then"
    first.mkdir()
    proved("HELD", "--plants", "--save", str(first), status=0)
    for tape in first.iterdir():
        (then / tape.name).mkdir(parents=True)  # as good as a full disk
    got = proved("HELD", "--plants", "--save", str(then), status=4)
    assert "could not be saved" in got.stderr
    assert ", held" in got.stdout


@pytest.mark.parametrize(
    ("store", "granularity", "struck"),
    [
        ("memory", "commit", (MemoryStore, "crash before writer in marker.0")),
        ("files", "commit", (FileStore, "crash before writer in marker.0")),
        ("memory", "statement", (MemoryStore, "crash before Begin in marker.0")),
    ],
)
def test_tape_is_replayed_in_the_world_it_was_found_in(
    tmp_path: Path, store: Any, granularity: Any, struck: tuple[type, str]
) -> None:
    save(tmp_path / "tape", {1: 1}, proof=HELD.name, store=store, granularity=granularity)
    world, wrong = again(load(tmp_path / "tape"), HELD, None)
    assert (type(world.store), *world.faults) == struck
    assert wrong == []


def test_planted_bug_that_survives_is_a_failure() -> None:
    printed = proved("BLIND", "--plants", status=1).stdout
    assert "harmless: SURVIVED 8 schedules" in printed
    assert ", held" in printed


def test_pairs_of_faults_are_every_point_twice() -> None:
    (got,) = json.loads(proved("HELD", "--depth", "2", "--json", status=0).stdout)
    tried = got["exhaustive"]
    assert tried["schedules"] == 1 + tried["distinct"] > 30
    pairs = f"({tried['points'] - 8:,} pairs, {tried['distinct'] - 7:,} distinct)"
    assert got["worlds"][0]["scope"] == [f"every one of 8 points (7 distinct), twice {pairs}"]


def test_nothing_that_could_strike_is_inconclusive() -> None:
    assert "no fault could strike anywhere, so nothing was shown" in proved("VACUOUS", status=3).stdout


def test_what_was_to_happen_and_never_did_is_inconclusive() -> None:
    assert "never happened: pigs fly; so this shows little" in proved("DULL", status=3).stdout
    (got,) = json.loads(proved("DULL", "--json", status=3).stdout)
    assert got["sometimes"] == [{"claim": "pigs fly", "happened": False}]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("FAILING", "ZeroDivisionError: no tables today"),
        ("ESCAPING", "simulated code called time.time: take it from the Env instead"),
        ("DYING", "a process that was exploring has been killed"),
    ],
)
def test_proof_that_fails_itself_is_neither_held_nor_violated(name: str, reason: str) -> None:
    got = proved(name, status=4)
    assert reason in got.stderr
    assert got.stderr.splitlines()[-1] == f"{LITTLE}{name} could not be carried out, so it shows nothing."
    assert "held" not in got.stdout
    assert "VIOLATED" not in got.stdout


def test_worst_of_several_proofs_decides() -> None:
    got = faultproof("prove", LITTLE + "VACUOUS", LITTLE + "BLIND", "--plants", "--json", status=1, env=ENV)
    assert [outcome["outcome"] for outcome in json.loads(got.stdout)] == ["inconclusive", "violated"]


def test_module_that_fails_when_imported_is_the_proof_s_own_failure(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    got = faultproof("prove", "broken:PROOF", status=4, env={"PYTHONPATH": str(tmp_path)})
    assert got.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'nothing_of_this_name'"


def test_proof_of_a_module_that_is_not_installed_is_found_from_the_current_directory(tmp_path: Path) -> None:
    package = tmp_path / "myservice"
    package.mkdir()
    (package / "__init__.py").touch()
    little = (Path(__file__).parent / "little_proofs.py").read_text()
    (package / "proofs.py").write_text(little.replace(LITTLE, "myservice.proofs:"))
    got = faultproof("prove", "myservice.proofs:VIOLATED", status=1, cwd=tmp_path)
    tape = tmp_path / "myservice-violated.tape"
    assert got.stdout.splitlines()[-2] == "replay        faultproof replay myservice-violated.tape"
    assert ": VIOLATED" in faultproof("replay", tape.name, status=1, cwd=tmp_path).stdout
    # Nothing else than the directory we are in, and not where the interpreter was told to keep out of it.
    assert "no module 'myservice.proofs'" in faultproof("replay", str(tape), status=2).stderr
    safe = faultproof("prove", "myservice.proofs:HELD", status=2, cwd=tmp_path, env={"PYTHONSAFEPATH": "1"})
    assert safe.stderr.endswith("no module 'myservice.proofs' is in the current directory, or installed\n")


def test_name_that_the_module_does_not_have_is_answered_with_those_it_has(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(Path(__file__).with_name("little_proofs.py").read_text())
    got = faultproof("prove", "mine:HOLDS", status=2, cwd=tmp_path)
    assert "there is no proof 'mine:HOLDS': the module has no Proof of that name; it has HELD, " in got.stderr


def test_ctrl_c_ends_every_process_in_silence() -> None:
    hanging, it_hangs = os.pipe()
    running = subprocess.Popen(
        [EXECUTABLE, "prove", LITTLE + "HANGING"],
        env={**os.environ, **ENV, "HANGING": str(it_hangs)},
        pass_fds=[it_hangs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(it_hangs)
    with open(hanging, "rb") as pipe:
        assert select.select([pipe], [], [], WAIT_S)[0]
        assert pipe.read(1) == b"!"
    os.killpg(running.pid, signal.SIGINT)
    # A process that was left would hold these pipes open.
    assert running.communicate(timeout=20) == (b"", b"")
    assert running.returncode == 130


def test_progress_is_shown_on_a_terminal_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, terminal = 100.0, io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    with prove.Progress("OUTBOX") as progress:
        progress(20)
        assert terminal.getvalue() == ""
        now = 103.0
        progress(4_000)
        assert terminal.getvalue().endswith("OUTBOX: 4,000 schedules, 3 s")
    assert terminal.getvalue().endswith("\r\x1b[K")
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    shown = terminal.getvalue()
    with prove.Progress("OUTBOX") as progress:
        now = 110.0
        progress(1)
    assert terminal.getvalue() == shown


PROVE: dict[str, tuple[str, ...]] = {
    "There is no pattern named 'outbx'; did you mean Outbox?": ("outbx",),
    "CQRS has no proof yet; ready are Outbox, Saga, Escrow, Hedged Request, Sidecar, Scatter-Gather, Bulkhead, Batch, "
    "Shadow, Request-Response, Fan-out": ("cqrs",),
    "there is no proof 'nowhere.at_all:X': no module 'nowhere.at_all' is in the current directory, or installed": (
        "nowhere.at_all:X",
    ),
    "there is no proof ':X': no module '' is in the current directory, or installed": (":X",),
    "there is no proof 'faultproof.cli:app': the module has no Proof of that name; it has none": (
        "faultproof.cli:app",
    ),
    "--depth is 1 (every fault) or 2 (every pair of faults), not 3": ("batch", "--depth", "3"),
    "--random is a number of schedules, not -1": ("batch", "--random", "-1"),
    "--seed is a whole number from 0 on, not -1": ("batch", "--seed", "-1"),
    "the page cannot be written to '': name a file in a directory that is writable": ("batch", "--html", ""),
    "the page cannot be written to '/nowhere/page.html': name a file in a directory that is writable": (
        "batch",
        "--html",
        "/nowhere/page.html",
    ),
    "the page cannot be written to '/': name a file in a directory that is writable": ("batch", "--html", "/"),
    "tapes cannot be saved in '': name a directory that exists and is writable": ("batch", "--save", ""),
    "tapes cannot be saved in '/nowhere': name a directory that exists and is writable": (
        "batch",
        "--save",
        "/nowhere",
    ),
}
TAPE = '{"format": "faultproof-tape-3", "answers": [], "proof": '
BATCH = "faultproof.patterns.batch.proof:BATCH"
TAPES = {
    "": "truncated",
    '{"answers": ' + "[" * 100_000: "recursion",
    "\x00\x01": "malformed",
    '{"format": "faultproof-tape-1"}': "this release replays 'faultproof-tape-3'",
    '{"format": "faultproof-tape-3"}': "`proof`",
    TAPE + '"a.b:C"}': "there is no proof 'a.b:C'",
    TAPE + '"outbox"}': "there is no proof 'outbox'",
    TAPE + f'"{BATCH}", "plant": "x"}}': f"{BATCH} has no planted bug 'x'; its planted bugs are: ",
}


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    assert refusals(*(["prove", *args] for args in PROVE.values())) == list(PROVE)
    paths = []
    for number, text in enumerate(TAPES):
        paths.append(tmp_path / f"{number}.tape")
        paths[-1].write_text(text)
    said = refusals(*(["replay", str(path)] for path in paths))
    assert [part for sentence, part in zip(said, TAPES.values(), strict=True) if part not in sentence] == []
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == list(TAPES)
    missing, directory = refusals(["replay", str(tmp_path / "none")], ["replay", str(tmp_path)])
    assert "No such file" in missing
    assert "Is a directory" in directory


def test_proof_under_another_name_is_refused() -> None:
    got = proved("MISNAMED", status=2)
    assert got.stderr == (
        f"the proof at '{LITTLE}MISNAMED' must be named so, not 'elsewhere:HELD': its tapes are found by that name\n"
    )

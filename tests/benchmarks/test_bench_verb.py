"""`faultproof bench` as a shell runs it: reports, refusals, and that nothing is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

import benchmarks.run
import faultproof
from benchmarks.index import BENCHMARKS
from benchmarks.model import Benchmark, Contestant, Figure
from benchmarks.report import SCHEMA, Report
from benchmarks.run import Options, benchmarks_called
from faultproof.errors import MissingExtra
from tests.benchmarks.planted import well_behaved
from tests.cli.executable import EXECUTABLE, refusals, refused, run
from tests.cli.executable import faultproof as call
from tests.fakes import eventually

WAIT_S = 60.0


def test_a_run_is_one_json_document_and_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    got = call("bench", "publish-sqlite", "drain-sqlite", "--quick", "--json", "--html", str(page))
    report = msgspec.json.decode(got.stdout, type=Report)
    assert report.schema == SCHEMA
    assert report.quick
    assert any("figures mean nothing" in warning for warning in report.warnings)
    assert [chapter.name for chapter in report.benchmarks] == ["drain-sqlite", "publish-sqlite"]  # always in one order
    for chapter in report.benchmarks:
        assert [row.name for row in chapter.rows] == [each.name for each in BENCHMARKS[chapter.name].contestants]
        assert {row.settings["synchronous"] for row in chapter.rows} == {"full"}
        assert all(len(figure.values) == 2 for row in chapter.rows for figure in row.figures.values())
        assert len(chapter.aims) == len(BENCHMARKS[chapter.name].aims)
    text = page.read_text(encoding="utf-8")
    assert_self_contained(text)
    assert "default-src 'none'" in text
    assert text.count("Durability in effect, all: journal_mode=wal, synchronous=full") == 2
    for chapter in report.benchmarks:
        assert f'id="{chapter.name}"' in text
    assert text.count("<figure>") == sum(len(chapter.columns) for chapter in report.benchmarks)
    assert "<text" not in text  # it would shrink with the plot, and cannot be read in a narrow window


def test_people_get_a_table_with_settings_and_aims() -> None:
    printed = call("bench", "publish-sqlite", "--quick", "--rounds", "1").stdout
    for expected in (
        "our transaction",
        "Durability in effect, all: journal_mode=wal, synchronous=full",
        "at most 30 %",
    ):
        assert expected in printed


class _Outside(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed", "base"}:
            self.found.append(tag)
        self.found += [f"{tag} {name}={value}" for name, value in attributes if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style" and ("url(" in data or "@import" in data):
            self.found.append("style")


def assert_self_contained(text: str) -> None:
    parser = _Outside()
    parser.feed(text)
    assert parser.found == []
    assert text.count("<svg") >= 1
    assert text.count("<svg") == text.count("</svg>")


def test_a_name_is_one_benchmark_or_its_family() -> None:
    assert [each.name for each in benchmarks_called(["drain"])] == ["drain-postgresql", "drain-sqlite"]
    assert [each.name for each in benchmarks_called(["drain-sqlite", "drain"])] == ["drain-postgresql", "drain-sqlite"]
    assert [each.name for each in benchmarks_called([])] == list(BENCHMARKS)


def test_bad_input_is_refused_in_one_sentence_before_anything_is_measured(tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    unknown, sqlite, elsewhere, unreachable, rounds, page = refusals(
        ["bench", "dran"],
        ["bench", "drain", "--engine", "shop.db"],
        ["bench", "drain-sqlite", "--engine", nowhere],
        ["bench", "callers", "--engine", nowhere],
        ["bench", "drain", "--rounds", "0"],
        ["bench", "drain-sqlite", "--html", str(tmp_path / "no" / "page.html")],
    )
    assert unknown.startswith("there is no benchmark 'dran': choose from drain-postgresql, drain-sqlite,")
    assert sqlite == "the engine is the address of a PostgreSQL server: postgresql://user@host/database"
    assert elsewhere == "drain-sqlite does not run on PostgreSQL: leave out --engine"
    assert unreachable.startswith("the server to measure on does not answer: ")
    assert rounds == "at least one round is needed, got --rounds 0"
    assert page == f"the page cannot be written to {tmp_path}/no/page.html: No such file or directory"


def test_an_installed_package_says_that_it_needs_the_checkout(tmp_path: Path) -> None:
    shutil.copytree(Path(faultproof.__file__).parent, tmp_path / "faultproof")
    got = run(
        [sys.executable, "-c", "from faultproof.cli import main; main()", "bench"],
        status=2,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert got.stderr == (
        "the benchmarks are not part of the installed package: in a checkout of the source, run `make bench`\n"
    )


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    contestant = Contestant(name="peer", side="peer", configured="", open=well_behaved, packages=("no-such-peer",))
    planted = Benchmark(
        name="planted",
        engine="none",
        measures="",
        figures=(Figure(name="rate", unit="/s"),),
        contestants=(contestant,),
    )
    monkeypatch.setattr(benchmarks.run, "BENCHMARKS", {"planted": planted})
    with pytest.raises(MissingExtra, match="the comparison needs no-such-peer: run `make bench`"):
        benchmarks.run.run(Options(), progress=lambda what: None, finished=lambda chapter: None)


def test_a_server_without_the_right_to_make_databases_is_refused(postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute("CREATE ROLE bench_guest LOGIN PASSWORD 'guest'")
    try:
        host = postgres_url.rpartition("@")[2]
        said = refused("bench", "callers", "--quick", "--engine", f"postgresql://bench_guest:guest@{host}")
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as raw:
            raw.execute("DROP ROLE bench_guest")
    assert said.startswith("a benchmark needs databases of its own, and cannot have them: permission denied")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Not pytest's own, which the account that the server runs under cannot enter."""
    directory = Path(tempfile.mkdtemp(prefix="fp-bench-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak)]
)
def test_interrupted_it_leaves_no_server_no_process_and_no_file(
    temporary: Path, number: signal.Signals, status: int
) -> None:
    process = subprocess.Popen(
        [EXECUTABLE, "bench", "publish-postgresql", "--quick", "--rounds", "100000"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: _is_measuring(process, temporary), "a contestant runs", WAIT_S)
        process.send_signal(number)
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert (process.returncode, out.strip(), err.strip()) == (status, "", "")
    assert _commands(temporary) == {}
    assert list(temporary.iterdir()) == []


def _is_measuring(process: subprocess.Popen[str], temporary: Path) -> bool:
    assert process.poll() is None, process.communicate()
    return any("benchmarks.child" in command for command in _commands(temporary).values())


def _commands(temporary: Path) -> dict[int, str]:
    """Processes that were started with this directory for temporary files, or live in it."""
    found = {}
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if f"TMPDIR={temporary}".encode() in environment or os.readlink(f"/proc/{pid}/cwd").startswith(
                str(temporary)
            ):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return {pid: command for pid, command in found.items() if command}  # a zombie has none

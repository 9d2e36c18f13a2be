"""`faultproof shop` with what it cannot work on: exit status 2, one sentence that says what to do, and nothing else."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from faultproof.cli import main
from faultproof.engines.sqlite import database
from tests.cli.executable import faultproof

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command line in this process, which saves a second each time; its sentence on stderr."""

    def run(*args: object) -> str:
        monkeypatch.setattr(sys, "argv", ["faultproof", "shop", "--json", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
        return err.strip()

    return run


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--orders", "missing.csv"], "there is no file missing.csv"),
        (["--orders", "/dev/null"], "/dev/null has no orders in it"),
        (["--orders", "0"], "1 to 1,000,000 orders"),
        (["--orders", ""], "give a number of orders"),
        (["--workers", "0"], "1 to 32 API processes"),
        (["--clients", "0"], "1 to 1,000 customers"),
        (["--kill-every", "-1"], "every 0.05 to 3600 seconds"),
        (["--kill-every", "nan"], "every 0.05 to 3600 seconds"),
        (["--seed", "-1"], "a seed is a whole number"),
        (["--db", "mysql://localhost/shop"], "'mysql' is not a database that faultproof knows"),
        (["--db", "postgresql://127.0.0.1:1/shop"], "cannot be reached"),
        (["--db", "sqlite://shop.db"], "three slashes"),
        (["--db", "sqlite:///shop.db?journal=off"], "unknown option 'journal'"),
        (["--db", "sqlite:///shop.db?synchronous=off"], "full"),
        (["--db", "sqlite:///shop.db?synchronous=full", "--synchronous", "normal"], "options of its own"),
        (["--db", "/nowhere/shop.db"], "the directory /nowhere does not exist: create it first"),
        (["--db", "/proc/shop.db"], "cannot be opened"),
        (["--db", "/"], "is a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_that_cannot_be_meant(args: list[str], said: str, refused: Refused) -> None:
    assert said in refused("--orders", "5", *args)


def test_postgresql_without_its_driver(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `make demo`, which installs no more than the demonstration needs."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    said = refused("--orders", "5", "--db", "postgresql://127.0.0.1:1/shop")
    assert said == "PostgreSQL needs its driver: pip install faultproof[postgres]"


@pytest.mark.parametrize("args", [["--workers", "two"], ["--break", "everything"], ["--synchronous", "off"]])
def test_usage_errors(args: list[str]) -> None:
    got = faultproof("shop", *args, status=2)
    assert "Usage: faultproof shop" in got.stderr
    assert "Traceback" not in got.stderr


def test_one_sentence_reaches_the_shell(tmp_path: Path) -> None:
    got = faultproof("shop", "--orders", str(tmp_path / "missing.csv"), status=2)
    assert (got.stdout, got.stderr.count("\n")) == ("", 1)


def test_baskets_are_refused_by_line(tmp_path: Path, refused: Refused) -> None:
    baskets = tmp_path / "baskets.csv"
    baskets.write_bytes(b"milk\n\xff\xfe\x00\n")
    assert refused("--orders", baskets).startswith(f"line 2 of {baskets} contains a NUL byte")


def test_file_that_is_no_database_is_left_alone(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "shop.db"
    path.write_bytes(b"not a database " * 100)
    assert "is not an SQLite database" in refused("--orders", "5", "--db", path)
    assert path.read_bytes() == b"not a database " * 100


def test_report_goes_to_a_directory(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").touch()
    assert "--report takes a directory" in refused("--report", tmp_path / "file")


def test_database_that_another_program_has_locked(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)  # instead of 5
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        assert "is locked by another connection: try again, or end what holds it" in refused(
            "--orders", 5, "--db", path
        )


def test_database_of_an_earlier_run_is_not_mixed_with_this_one(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "shop.db"
    faultproof("shop", "--orders", "5", "--kill-every", "0", "--db", str(path))
    before = path.read_bytes()
    assert f"{path} has tables already" in refused("--orders", "5", "--db", path)
    assert path.read_bytes() == before


def test_tables_of_somebody_else_are_left_alone(tmp_path: Path, refused: Refused) -> None:
    """Found: a file with other tables got the shop's beside them."""
    path = tmp_path / "mine #1?.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (id INTEGER)")
    before = path.read_bytes()
    assert f"{path} has tables already" in refused("--orders", "5", "--db", path)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])

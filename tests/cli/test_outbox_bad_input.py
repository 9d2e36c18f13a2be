"""What the outbox's verbs are wrongly given: exit status 2, one sentence, and nothing lost, changed or created."""

import ctypes
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.executable import faultproof, refusals, refused

GROUP = ("--group", "post")


@pytest.fixture
def path(installed: Path, tmp_path: Path) -> Path:
    """A copy of it, alone in its directory."""
    return Path(shutil.copy(installed, tmp_path / "mail.db"))


def contents(directory: Path) -> dict[str, bytes | None]:
    """Everything in a directory."""
    return {
        str(each.relative_to(directory)): each.read_bytes() if each.is_file() else None
        for each in sorted(directory.rglob("*"))
    }


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(sql)


def write_empty(path: Path) -> None:
    path.write_bytes(b"")


def write_text(path: Path) -> None:
    path.write_text("Not a database, but quite long enough to be taken for one by who looks at the size only.\n" * 9)


def write_other(path: Path) -> None:
    """Somebody else's database, which to open as one of ours would turn to WAL."""
    path.unlink()
    change(path, "CREATE TABLE theirs (n INTEGER)")


def test_missing_file_is_not_created(tmp_path: Path) -> None:
    db = ["--db", str(tmp_path / "mail.db")]
    verbs = (["lag"], ["dead", *GROUP], ["replay", "--all", *GROUP], ["discard", "0123", *GROUP], ["forget", "post"])
    sentences = refusals(*(["outbox", *verb, *db] for verb in verbs))
    assert set(sentences) == {
        f"there is no database {tmp_path / 'mail.db'}: check the name, or let the application make it first"
    }
    assert contents(tmp_path) == {}


URLS = {
    "mysql://localhost/shop": "'mysql' is not a database that faultproof knows",
    "postgresql://127.0.0.1:1/shop": "the database shop on 127.0.0.1:1 cannot be reached: ",
    "sqlite://mail.db": "an SQLite URL has three slashes",
    "sqlite:///mail.db?mode=ro": "unknown option 'mode'",
    "sqlite:///mail.db?synchronous=off": "synchronous='off' is not one of",
    "": "'' is not a path of a file",
    ":memory:": "':memory:' is not a path of a file",
    "/": "/ is a directory",
    "/nowhere/mail.db": "the directory /nowhere does not exist",
    "/dev/null": "there is no database /dev/null",
    f"/tmp/{'x' * 300}": f"/tmp/{'x' * 300} cannot be looked at (File name too long): check the name",
    "http://[": "'http://[' is not a URL (Invalid IPv6 URL): use a path, sqlite:///path or postgresql://…",
}


def test_url_of_no_database() -> None:
    said = refusals(*(["outbox", "lag", "--db", url] for url in URLS))
    assert [sentence[: len(start)] for sentence, start in zip(said, URLS.values(), strict=True)] == [*URLS.values()]


def changed(sql: str) -> Callable[[Path], None]:
    return lambda path: change(path, sql)


FILES: list[tuple[Callable[[Path], None], str]] = [
    (write_empty, "has no tables of faultproof's"),
    (write_other, "has no tables of faultproof's"),
    (write_text, "is not an SQLite database, or is damaged"),
    (
        changed("UPDATE faultproof_schema SET version = 99 WHERE name = 'outbox'"),
        "version 99, made by a newer release; this one works with 1 to 1: upgrade faultproof",
    ),
    (
        changed("DELETE FROM faultproof_schema WHERE name = 'outbox'"),
        "the tables of 'outbox' are not in this database: call `install()` once before",
    ),
    (changed("DROP TABLE faultproof_schema"), "has no tables of faultproof's"),
    (changed("DROP TABLE faultproof_inbox"), "lacks faultproof's tables"),
]


def test_file_of_something_else_is_left_as_it_is(installed: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(len(FILES))]
    for path, (write, _) in zip(paths, FILES, strict=True):
        write(Path(shutil.copy(installed, path)))
    before = contents(tmp_path)
    said = refusals(*(["outbox", "replay", "--all", *GROUP, "--db", str(path)] for path in paths))
    assert [part for sentence, (_, part) in zip(said, FILES, strict=True) if part not in sentence] == []
    assert contents(tmp_path) == before


CALLS: list[tuple[list[str], str]] = [
    (["lag", "--name", "inbox"], "there is no log 'inbox' in this database"),
    (["dead", "--group", "pots"], "no group 'pots' has ever consumed 'outbox': its groups are post"),
    (["forget", "pots", "--yes"], "no group 'pots' has ever consumed 'outbox': its groups are post"),
    (["dead", *GROUP, "--limit", "0"], "`limit` must be a whole number from 1 to 10,000, got 0"),
    (["replay", "no\x1bone", *GROUP], "not among the dead letters of 'post', and left alone: 'no\\x1bone'"),
    (["replay", "\udcff", *GROUP], "a value does not fit into"),
    (["replay", *GROUP], "name dead letters by their ids, or give --all"),
    (["discard", "--all", "0123", "--yes", *GROUP], "name dead letters by their ids, or give --all"),
]


def test_nothing_is_done_to_what_is_not_there(path: Path) -> None:
    before = contents(path.parent)
    said = refusals(*(["outbox", *args, "--db", str(path)] for args, _ in CALLS))
    assert [sentence[: len(start)] for sentence, (_, start) in zip(said, CALLS, strict=True)] == [s for _, s in CALLS]
    assert contents(path.parent) == before


def test_read_only_directory(path: Path) -> None:
    before = contents(path.parent)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        sentence = refused("outbox", "lag", "--db", str(path), before=give_up_override if os.geteuid() == 0 else None)
    finally:
        path.parent.chmod(0o755)
    assert sentence.startswith(f"{path} ")
    assert "read-only for this user" in sentence or "cannot be opened" in sentence
    assert contents(path.parent) == before


def give_up_override() -> None:
    """Root without the right to pass over permissions. (Another user might not reach this very Python.)"""
    drop_from_bounding_set, override, read_search = 24, 1, 2
    for capability in (override, read_search):
        assert ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


def test_database_locked_for_longer_than_the_lock_timeout(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        # Who only looks need not wait.
        assert faultproof("outbox", "lag", "--db", str(path)).stderr == ""
        sentence = refused("outbox", "discard", "--all", "--yes", *GROUP, "--db", str(path))
    assert sentence.startswith(f"{path} is locked by another connection: try again, or end what holds it (waited 5.")
    assert len(faultproof("outbox", "discard", "--all", "--yes", *GROUP, "--db", str(path)).stdout.split()) == 2

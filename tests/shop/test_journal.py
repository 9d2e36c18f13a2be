"""The journal: on disk before the answer counts, whole lines only."""

import errno
import os
from pathlib import Path

import pytest

from faultproof.clock import Env
from faultproof.errors import CannotOpen, DiskFull, StorageFailed
from faultproof.shop.baskets import Line
from faultproof.shop.journal import Answered, Journal, Sent, read_journal

pytestmark = pytest.mark.anyio

SENT = Sent("k1", [Line("milk", 2)])
ANSWERED = Answered("k1", 201, "o1")


async def test_answer_is_synced_with_all_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    synced: list[list[Sent | Answered]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(read_journal(path)))
    journal = Journal(path, Env())
    journal.sent("k1", (Line("milk", 2),))
    assert read_journal(path) == []
    await journal.answered(ANSWERED)
    assert synced == [[SENT, ANSWERED]]
    await journal.close()


async def test_what_was_only_sent_is_written_at_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", Env())
    journal.sent("k1", (Line("milk", 2),))
    await journal.close()
    assert read_journal(tmp_path / "journal") == [SENT]


async def test_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", Env())
    journal.sent("k1", (Line("milk", 2),))
    await journal.answered(ANSWERED)
    await journal.close()
    whole = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(whole + whole[:-1].rpartition(b"\n")[2])
    assert read_journal(tmp_path / "journal") == [SENT, ANSWERED]


async def test_journal_of_an_earlier_run_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    with pytest.raises(CannotOpen, match="cannot be made"):
        Journal(tmp_path / "journal", Env())


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, StorageFailed)])
async def test_answer_that_cannot_be_written_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    journal = Journal(tmp_path / "journal", Env())
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(error, match="journal"):
            await journal.answered(ANSWERED)
    await journal.close()

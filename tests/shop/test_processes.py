"""The keeper's processes: what ends by itself ends the run, with its last words; and a run that gets no further."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from faultproof.errors import Repair
from faultproof.ports.database import Database
from faultproof.shop import run, sql
from faultproof.shop.baskets import basket
from faultproof.shop.board import unseen
from faultproof.shop.journal import Answered
from faultproof.shop.making import Shop
from faultproof.shop.messages import Fleet
from faultproof.shop.mishandled import started_here
from faultproof.shop.orders import Orders, answers, outbox
from faultproof.shop.processes import ProcessDied, Processes, listen, started
from faultproof.shop.stores import SqliteStore
from tests.fakes import within
from tests.shop.books import ANSWERED, SENT, good, provider

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def fleet(url: str, directory: Path) -> AsyncIterator[Processes]:
    with ExitStack() as open_here:
        listeners = [open_here.enter_context(listener) for listener in listen(1)]
        wanted = Fleet(
            url=url,
            directory=str(directory),
            listeners=[listener.fileno() for listener in listeners],
            sequencers=1,
            consumers=1,
            orchestrators=1,
            provider=[1],
            ttl=1.0,
            seed=1,
            kill_every=0,
            planted=None,
            target=None,
        )
        async with started(wanted, listeners) as processes:
            yield processes


async def test_process_that_ends_by_itself_fails_the_run_with_its_last_words(tmp_path: Path) -> None:
    async with fleet("nonsense://", tmp_path) as processes:
        with pytest.raises(ProcessDied, match=r"ended with status 1: (.|\n)*'nonsense' is not"):
            await within(processes.failure)


async def test_process_that_needs_repair_says_so_in_a_sentence(tmp_path: Path) -> None:
    async with fleet("/nowhere/shop.db", tmp_path) as processes:
        with pytest.raises(Repair, match=r"^the directory /nowhere does not exist: create it first$"):
            await within(processes.failure)


async def test_all_processes_end_when_told(tmp_path: Path) -> None:
    async with fleet(str(tmp_path / "shop.db"), tmp_path) as processes:
        keeper = processes._keeper
    assert keeper.returncode == 0


def test_ports_are_below_those_that_the_system_gives_to_clients() -> None:
    listeners = listen(3)
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    assert len(set(ports)) == 3
    assert max(ports) < 32_768


async def test_run_that_gets_no_further_is_unfinished(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_STUCK_S", 0.0)
    await db.install(sql.SCHEMA)
    shop, saga = Shop(db, outbox(db)), started_here(db)
    await shop.outbox.install()
    await answers(db).install()
    await saga.install()
    await shop.outbox.consumer("summary", _nothing).open()
    assert await within(run._drained(shop, run.Status())) is None
    await Orders(db, unseen(), saga).take("k1", basket(["milk"]))  # and nobody sequences or fulfils it
    said = await within(asyncio.ensure_future(run._drained(shop, run.Status())))
    assert said == "1 events were not settled and 1 orders neither fulfilled nor undone, and they got no fewer for 0 s"
    assert await within(asyncio.ensure_future(run._drained(shop, run.Status(), but_for=1))) == said
    assert await within(asyncio.ensure_future(run._drained(shop, run.Status(), but_for=2))) is None


def test_run_that_had_to_be_given_up_tells_whether_what_was_answered_is_there(tmp_path: Path) -> None:
    path, journal, rows = tmp_path / "shop.db", tmp_path / "journal", provider(tmp_path)
    with closing(sqlite3.connect(path)) as file, closing(good()) as books:
        books.backup(file)
    entries = [*SENT, *ANSWERED]
    journal.write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
    assert (
        run._assurance(SqliteStore(str(path)), str(path), journal, rows) == "all 3 orders that were answered are in it"
    )
    entries.append(Answered("k9", 201, "o9"))
    journal.write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
    assert run._assurance(SqliteStore(str(path)), str(path), journal, rows) == "1 of 4 answered orders are not in it"
    path.write_bytes(b"")
    assert "could not be audited" in run._assurance(SqliteStore(str(path)), str(path), journal, rows)


async def _nothing(event: object, tx: object) -> None:
    raise AssertionError("nobody steps this consumer")

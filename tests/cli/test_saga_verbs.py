"""`faultproof saga …` on a real file, through the real executable, while a worker is at it."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

import faultproof as fp
from faultproof.errors import Failed, InvalidInput
from tests.cli.executable import faultproof
from tests.fakes import env_of
from tests.patterns.saga.shop import Order, Receipt, Shop, always, running

pytestmark = pytest.mark.anyio


async def saga(verb: str, *args: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The verb, from another thread: the workers go on meanwhile."""
    return await asyncio.to_thread(faultproof, "saga", verb, *args, status=status, stdin=stdin)


async def test_a_stuck_saga_is_seen_and_decided_on_while_workers_run(tmp_path: Path) -> None:
    path = ("--db", str(tmp_path / "shop.db"))
    async with fp.connect(tmp_path / "shop.db", env=env_of()) as db:
        shop = Shop(db)
        await shop.saga.install()
        async with db.transaction() as tx:
            await tx.execute("CREATE TABLE reserved (id TEXT)")
        shop.on["ship"] = always(Failed("no [red]road[/]"))
        shop.on["refund"] = always(ConnectionError("down\n\x1b[31m"))
        async with running(shop.saga):
            for id in ("a", "b", "c"):
                await shop.saga.start(id, Order("milk"))
                assert isinstance(await shop.saga.wait(id), fp.NeedsAttention)
            seen = json.loads((await saga("stuck", *path, "--json")).stdout)
            assert [(row["id"], row["state"], row["step"]) for row in seen] == [
                (id, "attention", "charge") for id in "abc"
            ]
            text = (await saga("list", *path, "--state", "attention")).stdout
            assert text.splitlines()[1].split()[:4] == ["a", "attention", "charge", "attention"]
            assert "\x1b" not in text
            shown = (await saga("show", "a", *path, "--name", "fulfil")).stdout
            assert "fulfil a: attention" in shown
            assert "ship: Failed: no [red]road[/]" in shown
            assert json.loads((await saga("show", "a", *path, "--json")).stdout)[-1]["what"] == "attention"

            assert (await saga("skip", "a", *path, stdin="n\n", status=2)).stdout == ""
            assert (await saga("skip", "a", *path, "--yes")).stdout == "skipped a\n"
            await saga("resolve", "b", *path, "--as", "compensated", "--reason", "by hand", "--yes")
            shop.on.clear()
            assert json.loads((await saga("retry", "c", *path, "--json")).stdout) == {"retried": "c"}
            for id in ("a", "b", "c"):
                assert isinstance(await shop.saga.wait(id), fp.Compensated)
            assert (await saga("stuck", *path)).stdout == "no sagas\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("retry", "x"), "there is no saga 'x'"),
        (("show", "x"), "there is no saga 'x'"),
        (("retry", "done"), "wants no attention"),
        (("skip", "done", "--yes", "--result", "{"), "no JSON"),
        (("skip", "done", "--yes", "--result", "\udcff"), "no JSON"),
        (("skip", "done", "--yes", "--result", '"\\u0000"'), "NUL"),
        (("list", "--state", "asleep"), "one of the states"),
        (("list", "--limit", "0"), "`limit`"),
        (("list", "--name", "other"), "'fulfil'"),
        (("stuck", "--older", "-1"), "`older`"),
        (("resolve", "done", "--as", "lost", "--reason", "x"), "completed or compensated"),
    ],
)
async def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    tmp_path: Path, args: tuple[str, ...], words: str
) -> None:
    async with fp.connect(tmp_path / "shop.db", env=env_of()) as db:
        shop = Shop(db)
        await shop.saga.install()
        async with db.transaction() as tx:
            await tx.execute("CREATE TABLE reserved (id TEXT)")
        async with running(shop.saga):
            await shop.saga.start("done", Order("milk"))
            await shop.saga.wait("done")
        told = await saga(*args, "--db", str(tmp_path / "shop.db"), status=2)
        assert words in told.stderr
        assert told.stdout == ""
        assert len(await shop.saga.history("done")) == 7


async def _nothing(context: fp.StepContext[Order]) -> None: ...


async def test_a_result_is_given_for_an_action_and_not_for_an_undo(tmp_path: Path) -> None:
    async def ask(context: fp.StepContext[Order]) -> str:
        raise Failed("nobody at home")

    async def tell(context: fp.StepContext[Order]) -> str:
        return f"told of {context.result(asked)}"

    pivot, asked, told = fp.Step.remote(_nothing), fp.Step.remote(ask), fp.Step.remote(tell)
    path = ("--db", str(tmp_path / "shop.db"))
    async with fp.connect(tmp_path / "shop.db", env=env_of()) as db:
        forward = fp.Saga(db, "forward", input=Order, steps=[pivot, asked, told], pivot=pivot)
        back = Shop(db, name="back")
        await forward.install()
        async with db.transaction() as tx:
            await tx.execute("CREATE TABLE reserved (id TEXT)")
        back.on["ship"] = always(Failed("no road"))
        back.on["refund"] = always(ConnectionError("down"))
        async with running(forward, back.saga):
            await forward.start("a", Order("milk"))
            assert await forward.wait("a") == fp.NeedsAttention("a", "Failed: nobody at home")
            await saga("skip", "a", *path, "--name", "forward", "--yes", "--result", ' "by  letter" ')
            outcome = await forward.wait("a")
            assert isinstance(outcome, fp.Completed)
            assert dict(outcome.results) == {"_nothing": "null", "ask": '"by  letter"', "tell": '"told of by  letter"'}

            await back.saga.start("b", Order("milk"))
            assert isinstance(await back.saga.wait("b"), fp.NeedsAttention)
            refused = await saga("skip", "b", *path, "--name", "back", "--yes", "--result", "7", status=2)
            assert "an undo has no result" in refused.stderr
            with pytest.raises(InvalidInput, match="an undo has no result"):
                await back.saga.skip("b", result=Receipt("k", 1))
            assert [row.state for row in await back.saga.sagas()] == ["attention"]


async def test_help_says_whose_type_a_result_must_have() -> None:
    told = " ".join((await saga("skip", "--help")).stdout.split())
    assert "must be of the type that the step returns" in told
    assert "faultproof saga show ID" in told


async def test_a_database_without_sagas_is_refused(tmp_path: Path) -> None:
    assert "missing.db" in (await saga("list", "--db", str(tmp_path / "missing.db"), status=2)).stderr
    async with fp.connect(tmp_path / "shop.db", env=env_of()) as db:
        await db.install(db.claims.schema)
        assert "not in this database" in (await saga("list", "--db", str(tmp_path / "shop.db"), status=2)).stderr

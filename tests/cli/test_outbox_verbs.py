"""`faultproof outbox …` on a real file, through the real executable, while a worker is at it."""

import asyncio
import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.executable import faultproof
from tests.cli.mailroom import Mailroom, mailroom
from tests.fakes import until

pytestmark = pytest.mark.anyio


async def outbox(verb: str, *args: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The verb, from another thread: the mailroom goes on meanwhile."""
    return await asyncio.to_thread(faultproof, "outbox", verb, *args, status=status, stdin=stdin)


async def delivered(room: Mailroom, *expected: str) -> None:
    await until(lambda: room.delivered == list(expected))


async def test_dead_letters_are_seen_replayed_and_discarded_while_workers_run(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    db = ("--db", str(path))
    post = (*db, "--group", "post")
    async with mailroom(path) as room:
        room.refused = {"ada", "nobody"}
        first = await room.publish("ada", key="a")
        await room.publish("bob", key="a")
        second = await room.publish("nobody", key=None)
        await room.settled(dead=2, parked=1)

        seen = json.loads((await outbox("lag", *db, "--json")).stdout)
        (owner,) = seen["sequencer"]["holders"]
        assert owner.startswith(f"{socket.gethostname()}:{os.getpid()}:")
        assert seen["groups"][0].pop("age_s") > 0.0  # of what waits behind a dead letter
        assert seen == {
            "outbox": "outbox",
            "intake": {"events": 0, "age_s": 0.0, "delayed": 0},
            "sequencer": {"partitions": 3, "holders": {owner: [0, 1, 2]}, "unheld": []},
            "groups": [{"group": "post", "events": 0, "parked": 1, "dead": 2, "holders": {owner: [0, 1, 2]}}],
        }
        lines = (await outbox("lag", *db)).stdout.splitlines()
        assert lines[0] == "intake     0 events; 0 delayed"
        assert lines[1] == f"sequencer  {owner} has partitions 0-2"
        assert lines[2].split() == ["group", "behind", "oldest", "parked", "dead", "consumed", "by", "(partitions)"]
        assert lines[3].split() == ["post", "0", "-", "1", "2", owner, "(0-2)"]

        letters = {letter["id"]: letter for letter in json.loads((await outbox("dead", *post, "--json")).stdout)}
        assert letters.keys() == {first, second}
        assert letters[first]["error"] == "ValueError: no such [red]box[/]:\n\x1b[31mada"
        facts = {name: letters[second][name] for name in ("type", "key", "attempts", "payload")}
        assert facts == {"type": "mail", "key": None, "attempts": 1, "payload": '{"to":"nobody"}'}

        # One that is there and one that is not: the first is done, the second said.
        room.refused.clear()
        got = await outbox("replay", first, "0123", *post, status=2)
        assert got.stdout == f"replayed {first}\n"
        assert got.stderr == "not among the dead letters of 'post', and left alone: '0123'\n"
        await delivered(room, "ada", "bob")

        got = await outbox("discard", second, *post, status=2, stdin="n\n")
        assert got.stdout == ""
        assert got.stderr.splitlines()[-1].endswith("nothing was done: answer y, or give --yes")
        await room.settled(dead=1)
        got = await outbox("discard", second, *post, stdin="y\n")
        assert got.stdout == f"discarded {second}\n"
        assert got.stderr.startswith("Discard 1 of 1 dead letters of 'post' for good? [y/N]")
        await room.settled(dead=0)
        await delivered(room, "ada", "bob")


async def test_all_dead_letters_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    post = ("--db", f"sqlite:///{path}", "--group", "post")
    async with mailroom(path) as room:
        room.refused = {"ada", "bob"}
        ids = {await room.publish("ada", key="a"), await room.publish("bob", key="b")}
        await room.publish("cyd", key="a")
        await room.settled(dead=2, parked=1)

        room.refused = {"bob"}
        got = json.loads((await outbox("replay", "--all", *post, "--json")).stdout)
        assert (set(got["replayed"]), got["not_dead"]) == (ids, [])
        await room.settled(dead=1)
        await delivered(room, "ada", "cyd")

        printed = (await outbox("discard", "--all", *post, "--yes")).stdout
        assert re.fullmatch(r"discarded (\w+)\n", printed)
        await room.settled(dead=0)
        assert (await outbox("replay", "--all", *post)).stdout == "'post' has no dead letters\n"
        assert (await outbox("dead", *post)).stdout == "'post' has no dead letters\n"
        await delivered(room, "ada", "cyd")


async def test_dead_letters_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with mailroom(path) as room:
        room.refused = {"ada"}
        id = await room.publish("ada", key="\x1b]0;title\x07" + "k" * 300)
        await room.settled(dead=1)
    printed = faultproof("outbox", "dead", "--db", str(path), "--group", "post").stdout
    assert "\x1b" not in printed
    assert "ValueError: no such [red]box[/]: \N{REPLACEMENT CHARACTER}[31mada" in printed
    head, row = printed.splitlines()[:2]
    assert head.split()[:3] == ["id", "type", "key"]
    assert row.split()[:2] == [id, "mail"]
    assert "k" * 300 not in printed


async def test_what_nobody_works_on_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with mailroom(path) as room:
        await room.settled(dead=0)
    lines = faultproof("outbox", "lag", "--db", str(path)).stdout.splitlines()
    assert lines[1] == "sequencer  nobody has partitions 0-2: no worker runs one, or its lease has run out"
    assert lines[3].split() == ["post", "0", "-", "0", "0", "nobody"]


async def test_forgotten_group_is_gone_and_only_after_a_yes(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    async with mailroom(path) as room:
        room.refused = {"ada"}
        await room.publish("ada", key="a")
        await room.settled(dead=1)
    got = faultproof("outbox", "forget", "post", "--db", str(path), status=2)
    assert got.stdout == ""
    assert got.stderr.splitlines() == [
        "Forget 'post', which has 0 events before it, 0 parked and 1 dead letters? [y/N] ",
        "nothing was done: answer y, or give --yes",
    ]
    assert "'post'" in faultproof("outbox", "forget", "post", "--db", str(path), "--yes").stdout
    got = faultproof("outbox", "dead", "--db", str(path), "--group", "post", status=2)
    assert got.stderr == "no group 'post' has ever consumed 'outbox': it has no groups yet\n"
    assert faultproof("outbox", "lag", "--db", str(path)).stdout.splitlines()[-1] == "groups     none yet"

"""What a run came to: its exit status, its JSON document, and whether it could have failed."""

import asyncio
import dataclasses
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from faultproof.shop.audit import Audited
from faultproof.shop.customers import Progress
from faultproof.shop.findings import Check
from faultproof.shop.messages import Killed, Role
from faultproof.shop.mistakes import DELAYED, Breakage
from faultproof.shop.options import ShopOptions
from faultproof.shop.processes import Processes
from faultproof.shop.run import Outcome
from faultproof.shop.stores import SqliteStore
from faultproof.shop.timeline import Timeline
from faultproof.shop.verdict import Verdict, judge
from tests.fakes import until
from tests.shop.test_runs import COUNTERS

pytestmark = pytest.mark.anyio

OPTIONS = ShopOptions(store=SqliteStore("shop.db"), kill_every=0.5)
SEEN: list[tuple[Role, bool]] = [("api", True), ("sequencer", True), ("consumer", True), ("orchestrator", True)]


@asynccontextmanager
async def killed(
    kills: Sequence[tuple[Role, bool]], directory: Path, timeline: Timeline | None = None
) -> AsyncIterator[Processes]:
    """Processes of which the keeper has told these kills: role, and whether it was busy."""
    errors = directory / "processes.log"
    errors.touch()
    keeper = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    assert keeper.stdin is not None
    processes = Processes(keeper, errors, timeline or Timeline())
    for role, busy in kills:
        message = Killed(role=role, slot=0, pid=1, state="wrote" if busy else "idle", busy=busy)
        keeper.stdin.write(msgspec.json.encode(message) + b"\n")
    await until(lambda: processes.kills.total() == len(kills))
    processes.failure.cancel()
    yield processes
    keeper.stdin.close()
    await keeper.wait()


async def verdict(
    directory: Path,
    kills: Sequence[tuple[Role, bool]] = tuple(SEEN),
    *,
    options: ShopOptions = OPTIONS,
    violated: str = "",
    gave_up: str | None = None,
    fulfilled: int = 70,
    compensated: int = 30,
    lost: int = 9,
    delays: int = 0,
) -> Verdict:
    checks = [Check(name, "claim", 1, int(name == violated), []) for name in COUNTERS]
    audit = Audited(100, checks, fulfilled, compensated, 180, lost)
    async with killed(kills, directory) as processes:
        processes.delays = delays
        return judge(options, Outcome(audit, gave_up, processes, Progress(100), "shop.db", "full", 0, 1.0, 2.0))


async def test_run_whose_every_role_was_killed_while_busy_held(tmp_path: Path) -> None:
    found = await verdict(tmp_path)
    assert (found.status, found.held, found.vacuous) == (0, True, None)
    document = json.loads(msgspec.json.encode(found))
    for name in ("accepted", "fulfilled", "compensated", *COUNTERS, "kills", "kills_while_busy", "seconds", "held"):
        assert name in document
    assert (document["accepted"], document["kills"], document["kills_while_busy"]) == (100, 4, 4)
    assert (document["seconds"], document["held"], document["kill_every"]) == (2.0, True, 0.5)


@pytest.mark.parametrize("counter", COUNTERS)
async def test_any_counter_violates_even_when_vacuous(tmp_path: Path, counter: str) -> None:
    found = await verdict(tmp_path, [], violated=counter)
    assert (found.status, found.held, getattr(found, counter)) == (1, False, 1)


async def test_run_that_did_not_finish_is_violated(tmp_path: Path) -> None:
    assert (await verdict(tmp_path, gave_up="customers got no answer")).status == 1


async def test_kill_of_an_idle_process_counts_for_nothing(tmp_path: Path) -> None:
    found = await verdict(tmp_path, [(role, False) for role, _ in SEEN])
    assert (found.status, found.held, found.kills, found.kills_while_busy) == (3, True, 4, 0)
    assert found.vacuous == "no process was killed while it was busy: take more orders, or kill more often"


@pytest.mark.parametrize("role", [role for role, _ in SEEN])
async def test_role_that_was_never_killed_makes_it_vacuous(tmp_path: Path, role: Role) -> None:
    found = await verdict(tmp_path, [kill for kill in SEEN if kill[0] != role])
    assert (found.status, found.held) == (3, True)
    assert found.vacuous == f"no {role} was killed: take more orders, or kill more often"


async def test_aimed_kills_need_meet_the_one_role_that_can_make_the_mistake(tmp_path: Path) -> None:
    aimed = dataclasses.replace(OPTIONS, aim="dual-write")
    assert (await verdict(tmp_path, [("api", True)], options=aimed)).status == 0
    assert (await verdict(tmp_path, [("consumer", True), ("orchestrator", True)], options=aimed)).status == 3


async def test_run_that_no_kill_was_asked_for_is_not_vacuous(tmp_path: Path) -> None:
    found = await verdict(tmp_path, [], options=dataclasses.replace(OPTIONS, kill_every=0.0))
    assert (found.status, found.vacuous, found.kill_every) == (0, None, 0.0)


async def test_a_tenth_of_the_orders_must_be_fulfilled_and_a_tenth_undone(tmp_path: Path) -> None:
    assert (await verdict(tmp_path, fulfilled=90, compensated=10)).status == 0
    found = await verdict(tmp_path, fulfilled=91, compensated=9)
    assert (found.status, found.held, found.fulfilled, found.compensated) == (3, True, 91, 9)
    assert found.vacuous == "only 9 orders had to be undone: take more orders"
    assert (await verdict(tmp_path, fulfilled=10, compensated=90)).status == 0
    found = await verdict(tmp_path, fulfilled=9, compensated=91)
    assert (found.status, found.vacuous) == (
        3,
        "only 9 orders could be fulfilled: look into the database for what kept the others",
    )


async def test_a_twentieth_of_the_answers_must_be_lost(tmp_path: Path) -> None:
    assert (await verdict(tmp_path, lost=9)).status == 0
    found = await verdict(tmp_path, lost=8)
    assert (found.status, found.held, found.answers, found.answers_lost) == (3, True, 180, 8)
    assert found.vacuous == "only 8 answers of the provider were lost: take more orders"


@pytest.mark.parametrize("mistake", sorted(DELAYED))
async def test_mistakes_that_delays_bring_to_light_need_delays_and_no_kills(tmp_path: Path, mistake: Breakage) -> None:
    aimed = dataclasses.replace(OPTIONS, aim=mistake)
    assert (await verdict(tmp_path, [], options=aimed, delays=1)).status == 0
    found = await verdict(tmp_path, [], options=aimed)
    assert (found.status, found.vacuous) == (3, "no order was held up: take more orders")

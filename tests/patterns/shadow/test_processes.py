"""A candidate in processes of its own does there what it likes, and its process is ended when it is to end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Closed, InvalidInput, Overloaded
from faultproof.patterns.shadow.processes import CandidateFailed
from tests.children import Python
from tests.fakes import env_of, until, within
from tests.patterns.shadow import candidates

pytestmark = pytest.mark.anyio

QUICK: dict[str, Any] = {"pause": 0.001, "env": env_of()}


@asynccontextmanager
async def started(function: Callable[..., Any] | str, **given: Any) -> AsyncIterator[fp.ShadowProcesses]:
    async with fp.ShadowProcesses(function, **{**QUICK, **given}) as processes:
        assert await within(processes.start()), processes.error
        yield processes


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children_of(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("request_", [{"a": [1, 2.5, None, "ü", True]}, "x" * 200_000, []])
async def test_requests_and_answers_travel_as_they_are(request_: Any) -> None:
    async with started(candidates.echoes) as processes:
        assert [await processes(request_) for _ in range(3)] == [request_] * 3
    async with started("tests.patterns.shadow.candidates:echoes_later") as processes:
        assert await processes(request_) == {"later": request_}


async def test_the_process_stands_back_is_marked_and_has_the_environment_that_it_is_given() -> None:
    environ = {"PATH": os.environ["PATH"], "SECRET": "no"}
    async with started(candidates.tells, environ=environ) as processes:
        told = await processes(None)
        assert told == {"nice": 19, "is_shadow": True, "secret": "no", "pid": processes.pids[0]}
        assert told["pid"] != os.getpid()
        if os.path.exists("/proc/self/oom_score_adj"):
            assert Path(f"/proc/{told['pid']}/oom_score_adj").read_text().strip() == "1000"


@pytest.mark.parametrize(
    ("function", "kind", "lives"),
    [
        (candidates.raises, "ZeroDivisionError", True),
        (candidates.exits, "SystemExit", True),
        (candidates.leaks, "MemoryError", True),
        (candidates.answers_too_much, "TooLarge", True),
        (candidates.answers_what_cannot_travel, "TypeError", True),
        (candidates.crashes, "process died", False),
    ],
)
async def test_how_it_fails_is_told_and_it_or_another_serves_on(
    function: Callable[..., Any], kind: str, lives: bool
) -> None:
    async with started(function) as processes:
        first = processes.pids
        for _ in range(2):
            with pytest.raises(CandidateFailed) as failed:
                await processes(1)
            assert failed.value.kind == kind
            assert "secret" not in str(failed.value)
            assert await within(processes.start())
        assert (processes.pids == first) is lives
        assert not any(is_alive(pid) for pid in first if pid not in processes.pids)


async def test_what_it_prints_is_no_answer_and_it_waits_for_no_input() -> None:
    async with started(candidates.prints) as processes:
        assert await processes("a") == "a"
        with pytest.raises(CandidateFailed) as failed:
            await processes("reads")
        assert failed.value.kind == "EOFError"


async def test_while_none_is_free_calls_are_refused() -> None:
    async with started(candidates.burns) as processes:
        burning = asyncio.create_task(processes(None))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await processes(1)
        burning.cancel()


async def test_a_call_that_is_cancelled_ends_the_process_with_all_that_it_has_started(tmp_path: Path) -> None:
    sign = tmp_path / "started"
    async with started(candidates.starts_others, timeout=600.0) as processes:
        (pid,) = processes.pids
        call = asyncio.create_task(processes(str(sign)))
        await until(lambda: sign.exists() and sign.read_text())
        children = children_of(pid)
        assert children
        call.cancel()
        await until(lambda: not is_alive(pid) and not any(is_alive(child) for child in children))
        assert await within(processes.start())
        assert processes.pids != [pid]


async def test_one_that_is_killed_by_others_is_noticed_and_replaced() -> None:
    async with started(candidates.echoes) as processes:
        (pid,) = processes.pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not processes.pids)
        assert await within(processes.start())
        assert await processes(1) == 1


async def test_one_that_is_being_started_is_ended_by_closing() -> None:
    others = set(children_of(os.getpid()))
    async with fp.ShadowProcesses(candidates.echoes, **QUICK) as processes:
        with pytest.raises(Overloaded):
            await processes(1)
        (pid,) = await until(lambda: set(children_of(os.getpid())) - others)
    assert not is_alive(pid)


async def test_one_that_takes_too_long_is_killed_and_another_is_started() -> None:
    async with started(candidates.burns, timeout=0.2) as processes:
        (pid,) = processes.pids
        with pytest.raises(CandidateFailed) as failed:
            await within(processes(None))
        assert failed.value.kind == "timeout"
        await until(lambda: not is_alive(pid))
        assert await within(processes.start())
        assert await processes(5) == 5


ABANDONS = """
import asyncio, os, signal, sys
import faultproof as fp

async def main():
    processes = fp.ShadowProcesses("tests.patterns.shadow.candidates:burns", timeout=0.5)
    assert await processes.start()
    asyncio.ensure_future(processes(None))
    await asyncio.sleep(0.05)
    print(processes.pids[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_one_that_hangs_ends_although_nobody_is_there_any_more_to_kill_it() -> None:
    with Python(ABANDONS) as parent:
        pid = int(await asyncio.to_thread(parent.hear))
    try:
        await until(lambda: not is_alive(pid))
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


async def test_what_cannot_be_started_is_told_and_tried_again_with_pauses() -> None:
    async with fp.ShadowProcesses("tests.patterns.shadow.nowhere:f", start=1.0, pause=0.1, env=env_of()) as processes:
        assert not await within(processes.start())
        assert "ModuleNotFoundError: No module named 'tests.patterns.shadow.nowhere'" in str(processes.error)
        with pytest.raises(Overloaded):
            await processes(1)
    with pytest.raises(Closed):
        await processes(1)


@pytest.mark.parametrize("target", ["nowhere", "a:b:c", "a b:c", ":f", lambda request: request, candidates.value])
def test_what_another_process_could_not_find_is_refused(target: Any) -> None:
    with pytest.raises(InvalidInput):
        fp.ShadowProcesses(target)


async def test_a_shadow_mirrors_to_processes_and_turning_it_off_ends_what_burns() -> None:
    flag = fp.FeatureFlag("on", True)
    async with started(candidates.burns) as processes:
        (pid,) = processes.pids
        shadow = fp.Shadow[Any, Any](
            processes,
            share=1.0,
            flag=flag,
            is_safe=lambda request: True,
            policy=fp.ShadowPolicy(concurrency=1),
            env=env_of(),
        )
        for n in (100, 200):
            shadow.offer(n, n)
        await shadow.drain()
        assert shadow.report().same == 2
        shadow.offer(None, None)
        await until(lambda: shadow.report().running)
        flag.set(False)
        await until(lambda: not is_alive(pid))
        assert shadow.report().dropped == {"off": 1}
        await shadow.close()

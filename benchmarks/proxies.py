"""What stands between wrk and a service in the sidecar's benchmark, and the service: all of them processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from faultproof.errors import CannotOpen

READY_TIMEOUT_S = 20.0
WORKERS = 2
_LATENCY = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_FAILED = re.compile(r"^\s+(Socket errors|Non-2xx).*$", re.MULTILINE)
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def free_port() -> int:
    """Below the ephemeral range."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise CannotOpen("no port is free")


@asynccontextmanager
async def process(*command: object, port: int) -> AsyncIterator[int]:
    """A process that listens on the port, and is gone afterwards; its id."""
    with tempfile.TemporaryFile() as said:
        started = await asyncio.create_subprocess_exec(
            *(str(word) for word in command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=said,
        )
        try:
            await _listening(port, started, said)
            yield started.pid
        finally:
            with suppress(ProcessLookupError):
                started.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await started.wait()
            except TimeoutError:
                started.kill()
                await started.wait()


async def _listening(port: int, started: asyncio.subprocess.Process, said: Any) -> None:
    async with asyncio.timeout(READY_TIMEOUT_S):
        while started.returncode is None:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
    said.seek(0)
    raise CannotOpen(f"it ended before it listened: {said.read().decode(errors='replace')[-300:]}")


def envoy() -> Path:
    """The program."""
    from faultproof.engines.envoy.program import envoy_program

    return envoy_program()


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[int]:
    """Answers 200 with a kilobyte, as quickly as anything does: an Envoy without anything behind it. Its port."""
    port = free_port()
    answer = {"status": 200, "body": {"inline_string": "x" * 1_024}}
    document = _document(port, {"match": {"prefix": "/"}, "direct_response": answer}, [])
    async with process(*_envoy(folder, "service", document, workers=1), port=port):
        yield port


@asynccontextmanager
async def bare_envoy(folder: Path, upstream: int) -> AsyncIterator[tuple[int, int]]:
    """An Envoy that hands on, and has no policy. Its port and process."""
    port = free_port()
    cluster = {
        "name": "upstream",
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [_endpoint(upstream)]}]},
    }
    document = _document(port, {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}, [cluster])
    async with process(*_envoy(folder, "bare", document, workers=WORKERS), port=port) as pid:
        yield port, pid


@asynccontextmanager
async def haproxy(folder: Path, upstream: int) -> AsyncIterator[tuple[int, int]]:
    """haproxy that hands on, and keeps connections. Its port and process."""
    port = free_port()
    path = folder / "haproxy.cfg"
    path.write_text(
        f"global\n  nbthread {WORKERS}\n  maxconn 2000\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 10s\n  http-reuse always\n"
        f"frontend calls\n  bind 127.0.0.1:{port}\n  default_backend service\n"
        f"backend service\n  server one 127.0.0.1:{upstream}\n"
    )
    async with process("haproxy", "-db", "-f", path, port=port) as pid:
        yield port, pid


@asynccontextmanager
async def sidecar(folder: Path, upstream: int) -> AsyncIterator[tuple[int, int]]:
    """`faultproof sidecar` with everything that a policy has here, health checks and the access log too."""
    port = free_port()
    path = folder / "policy.toml"
    path.write_text(f"""
        name = "bench"
        [policy]
        deadline = 2.0
        attempt_timeout = 0.5
        breaker = false
        retry = {{ attempts = 3, base = 0.025 }}
        budget = {{ ratio = 0.1 }}
        outliers = {{ in_a_row = 5, share = 0.5 }}
        health = {{ interval = 1.0, timeout = 0.5 }}
        bulkhead = {{ concurrency = 64, queue = 128 }}
        [[endpoints]]
        name = "one"
        url = "http://127.0.0.1:{upstream}"
        [sidecar]
        address = "127.0.0.1:{port}"
        admin = "127.0.0.1:{free_port()}"
        health_path = "/health"
        workers = {WORKERS}
    """)
    command = [Path(sys.executable).with_name("faultproof"), "sidecar", "--policy", path]
    async with process(*command, port=port) as pid:
        yield port, pid


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children, with the pages of programs and libraries that they have mapped."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_resident_kb(each) for each in (str(pid), *children)) / 1_024


def _resident_kb(pid: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def load(port: int, connections: int, seconds: float, *, quick: bool) -> dict[str, float]:
    """p50 and p99 in milliseconds and requests a second, as wrk says. Raises `CannotOpen` where there is no wrk."""
    if shutil.which("wrk") is None:
        if quick:
            return await _a_few(port, connections)
        raise CannotOpen("latencies of this size are measured with wrk, which is not installed: apt install wrk")
    command = ("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s")
    started = await asyncio.create_subprocess_exec(
        *(*command, "--latency", f"http://127.0.0.1:{port}/item"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await started.communicate()
    return read(out.decode())


def read(said: str) -> dict[str, float]:
    """What wrk prints. Raises `ValueError` if a request has failed, or nothing is there to be read."""
    if failed := _FAILED.search(said):
        raise ValueError(f"requests failed: {failed[0].strip()}")
    found = {f"p{share}": float(value) * _UNITS_MS[unit] for share, value, unit in _LATENCY.findall(said)}
    rate = _RATE.search(said)
    if rate is None or len(found) != 2:
        raise ValueError(f"wrk has not said what is needed: {said[-300:]}")
    return {**found, "rate": float(rate[1])}


async def _a_few(port: int, connections: int) -> dict[str, float]:
    """To see that everything works; the figures mean nothing."""
    import time

    took = []

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(5):
            began = time.perf_counter()
            writer.write(b"GET /item HTTP/1.1\r\nhost: here\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head, head
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head.lower())[0]))
            took.append(1e3 * (time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(call() for _ in range(connections)))
    took.sort()
    return {"p50": took[len(took) // 2], "p99": took[-1], "rate": 1e3 * len(took) / sum(took)}


def _envoy(folder: Path, name: str, document: dict[str, Any], *, workers: int) -> Sequence[object]:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    os.chmod(path, 0o600)
    return (envoy(), "--config-path", path, "--concurrency", workers, "--log-level", "error", "--disable-hot-restart")


def _document(port: int, route: dict[str, Any], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
    }
    listener = {
        "name": "calls",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _endpoint(port: int) -> dict[str, Any]:
    return {"endpoint": {"address": _address(port)}}

"""Envoy between the shop and its provider, where a run asks for it: `faultproof sidecar`, with a policy file like any other."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from faultproof.errors import CannotOpen
from faultproof.shop.processes import listen

POLICY = "policy.toml"
_READY_S = 20.0
_END_S = 15.0
_LOOK_S = 0.05


@asynccontextmanager
async def sidecar(directory: Path, doors: Sequence[int], *, wanted: bool) -> AsyncIterator[list[int]]:
    """The ports to call the provider at: its own, or that of a sidecar in front of them. Raises `CannotOpen`."""
    if not wanted:
        yield list(doors)
        return
    port, admin = _free(2)
    policy = directory / POLICY
    policy.write_text(_policy(doors, port, admin), encoding="utf-8")
    errors = directory / "sidecar.log"
    with errors.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faultproof", "sidecar", "--policy", str(policy)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for the command, which ends the others in good order
        )
    try:
        await _ready(process, admin, errors)
        yield [port]
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=_END_S)
        if process.returncode is None:
            process.kill()
            await process.wait()


def _policy(doors: Sequence[int], port: int, admin: int) -> str:
    """Deadline, ejection and bounds are Envoy's. It repeats nothing, because the saga does."""
    lines = [
        'name = "provider"',
        "[policy]",
        "deadline = 1.0",
        "retry = false",
        "breaker = false",
        "outliers = { in_a_row = 5, eject_for = 2.0 }",
        "bulkhead = { concurrency = 64, queue = 256 }",
        "[sidecar]",
        f'address = "127.0.0.1:{port}"',
        f'admin = "127.0.0.1:{admin}"',
        'log = "none"',
        "linger = 0.0",
        "workers = 1",
    ]
    for number, door in enumerate(doors):
        lines += ["[[endpoints]]", f'name = "door-{number}"', f'url = "http://127.0.0.1:{door}"']
    return "\n".join(lines) + "\n"


async def _ready(process: asyncio.subprocess.Process, admin: int, errors: Path) -> None:
    try:
        async with asyncio.timeout(_READY_S):
            while not await _says_ready(admin):
                if process.returncode is not None:
                    raise CannotOpen(f"the sidecar ended: {errors.read_text(errors='replace').strip()[-500:]}")
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        said = errors.read_text(errors="replace").strip()[-500:]
        raise CannotOpen(f"the sidecar was not ready in {_READY_S:.0f} s: {said}") from error


async def _says_ready(admin: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", admin)
    except OSError:
        return False
    try:
        writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def _free(count: int) -> list[int]:
    """Ports that nobody listens on: what binds them next is the sidecar."""
    listeners = listen(count)
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports

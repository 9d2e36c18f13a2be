"""Sidecars with a real Envoy, before services that misbehave as they are told."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx

from faultproof.clock import Env
from faultproof.engines.envoy.mapping import asked
from faultproof.engines.envoy.program import envoy_program, reserved
from faultproof.engines.envoy.proxy import EnvoyProxy
from faultproof.patterns.sidecar import SidecarFile, Supervisor, SupervisorPolicy, sidecar_from_toml
from tests.fakes import env_of, until, within

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NO = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]


async def well(request: Asked) -> bytes | None:
    return OK


class Service:
    """An HTTP service that answers as `does` says; None cuts the connection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.url = ""
        self.asked: list[Asked] = []
        self.at_once = self.at_once_most = 0
        self.does: Callable[[Asked], Awaitable[bytes | None]] = well
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As long as the connection is there, or until the service ends."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Whoever hangs is told to stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                await reader.readexactly(int(headers.get("content-length", "0")))
                request = Asked(*first.split()[:2], headers)
                self.asked.append(request)
                self.at_once += 1
                self.at_once_most = max(self.at_once_most, self.at_once)
                try:
                    reply = await self.does(request)
                finally:
                    self.at_once -= 1
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*names: str) -> AsyncIterator[list[Service]]:
    """Services on ports of their own."""
    services, servers = [], []
    for name in names:
        service = Service(name)
        server = await asyncio.start_server(service.serve, "127.0.0.1", free_port())
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        services.append(service)
        servers.append(server)
    try:
        yield services
    finally:
        for server, service in zip(servers, services, strict=True):
            server.close()
            await service.end()


class Running:
    """A sidecar that serves."""

    def __init__(
        self, supervisor: Supervisor[SidecarFile], proxy: EnvoyProxy, file: SidecarFile, said: list[str]
    ) -> None:
        self.supervisor = supervisor
        self.proxy = proxy
        self.url = f"http://{file.sidecar.address}"
        self.admin = f"http://{file.sidecar.admin}"
        self.said = said
        self.room = Path()
        self.http = httpx.AsyncClient(base_url=self.url, timeout=10.0, limits=httpx.Limits(max_connections=None))

    async def put(self, file: SidecarFile) -> None:
        """Put another in force, and wait until it is or is not."""
        before = len(self.said)
        await self.proxy.check(file)
        self.supervisor.put(file)
        await until(lambda: any("new policy" in each for each in self.said[before:]))

    async def serves(self) -> None:
        """Wait until it is ready."""
        await until(lambda: self.supervisor.standing.phase == "serving")


def free_port() -> int:
    """Below the ephemeral range, where no connection of somebody else's comes from."""
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


def policy_file(services: list[str], text: str = "", *, sidecar: str = "", ports: tuple[int, int] | None = None) -> str:
    """A policy file with these endpoints, and free ports unless some are given."""
    address, admin = ports or (free_port(), free_port())
    endpoints = "".join(f'[[endpoints]]\nname = "e{n}"\nurl = "{url}"\n' for n, url in enumerate(services))
    where = f'[sidecar]\naddress = "127.0.0.1:{address}"\nadmin = "127.0.0.1:{admin}"\nlog = "none"\nlinger = 0.05\n'
    return f"{text}\n{endpoints}\n{where}{sidecar}\n"


def read(text: str) -> SidecarFile:
    """As the command line does."""
    file, written = sidecar_from_toml(text)
    asked(file, written)
    return file


@asynccontextmanager
async def running(text: str, *, env: Env | None = None) -> AsyncIterator[Running]:
    """A sidecar, supervised, that is gone afterwards."""
    file, said = read(text), list[str]()
    with TemporaryDirectory(prefix="faultproof-test-") as room:
        proxy = EnvoyProxy(envoy_program(), Path(room), said=said.append)
        policy = SupervisorPolicy(linger=file.sidecar.linger, drain=file.sidecar.drain)
        supervisor = Supervisor(env or env_of(), proxy, file, policy, said=said.append)
        held = reserved(file)
        task = asyncio.create_task(supervisor.run())
        one = Running(supervisor, proxy, file, said)
        one.room = Path(room)
        try:
            await until(lambda: supervisor.standing.phase == "serving" or task.done())
            assert not task.done(), said
            yield one
        finally:
            await one.http.aclose()
            supervisor.stop()
            supervisor.stop()
            await within(task)
            await within(proxy.gone())
            for each in held:
                each.close()

"""Envoy as the proxy of a supervisor: started, asked, given other policies while it runs, and ended."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from faultproof.clock import Clock, SystemClock
from faultproof.engines.envoy.admin import Admin
from faultproof.engines.envoy.document import Document, documents
from faultproof.engines.envoy.program import check_by_envoy, trusted_by_default, words
from faultproof.engines.envoy.spelling import LISTENING_CERTIFICATE, OWN_CERTIFICATE, TABLE, TRUSTED, TRUSTED_CALLERS
from faultproof.engines.envoy.tls import files_of, secret_file
from faultproof.errors import Failed, InvalidInput
from faultproof.patterns.sidecar.options import SidecarFile
from faultproof.patterns.sidecar.supervisor import Look

PUT_TIMEOUT_S = 5.0
LOOK_S = 0.02
_COUNTERS = {
    **{secret_file(n): f"sds.{n}" for n in (OWN_CERTIFICATE, TRUSTED, LISTENING_CERTIFICATE, TRUSTED_CALLERS)},
    "cluster.json": "cluster_manager.cds",
    "routes.json": f"http.calls.rds.{TABLE}",
}
"""In the order in which they are replaced: what a document names is there before it."""


class EnvoyProxy:
    """One Envoy at a time. `room`: an empty directory that only we can enter. `said`: hears each line of Envoy's own log."""

    def __init__(
        self, program: Path, room: Path, *, said: Callable[[str], object] = print, clock: Clock | None = None
    ) -> None:
        self._program = program
        self._room = room
        self._said = said
        self._clock = clock or SystemClock()
        self._admin = Admin(str(room / "admin.sock"))
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._in_force: dict[str, bytes] = {}
        self._last: deque[str] = deque(maxlen=5)

    @property
    def pid(self) -> int | None:
        """Envoy's, if there is one."""
        return self._process.pid if self._process is not None and self.is_there() else None

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return words("\n".join(self._last).encode())

    async def check(self, file: SidecarFile) -> None:
        """Whether Envoy takes it. Raises `InvalidInput`."""
        made = documents(file, room=str(self._room), trusted=trusted_by_default())
        await check_by_envoy(self._program, made.whole)

    def is_there(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def look(self) -> Look:
        state = await self._admin.state()
        active = "http.calls.downstream_rq_active"
        return Look(is_ready=state == "LIVE", calls=(await self._admin.numbers(active))[active])

    async def start(self, config: SidecarFile, ended: Callable[[], object]) -> None:
        made = documents(config, room=str(self._room), trusted=trusted_by_default())
        self._in_force = _encoded(made.moving, self._room)
        self._write("fixed.json", json.dumps(made.fixed).encode())
        for name, content in self._in_force.items():
            self._write(name, content)
        (self._room / "admin.sock").unlink(missing_ok=True)  # of one that was killed
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", Path(__file__).with_name("launch.py"), str(os.getpid()), self._program),
                *("--config-path", self._room / "fixed.json", "--concurrency", str(config.sidecar.workers)),
                *("--log-level", "warning", "--log-format", "%v", "--disable-hot-restart"),
                *("--drain-strategy", "immediate"),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the supervisor's to carry out
            )
        except OSError as error:
            raise Failed(f"envoy cannot be started: {error}") from error
        self._watching = asyncio.create_task(self._watch(self._process, ended), name="faultproof-envoy")

    async def put(self, config: SidecarFile) -> None:
        made = documents(config, room=str(self._room), trusted=trusted_by_default())
        wanted = _encoded(made.moving, self._room)
        before, self._in_force = self._in_force, wanted
        changed = [name for name in _COUNTERS if name in wanted and wanted[name] != before.get(name)]
        try:
            for name in changed:
                if name in before:
                    await self._replace(name, wanted[name])
                else:  # nobody reads it yet
                    self._write(name, wanted[name])
        except (InvalidInput, Failed):
            self._in_force = before
            for name in changed:
                if name in before:
                    self._write(name, before[name])
            raise

    async def shun(self) -> None:
        await self._admin.tell("/healthcheck/fail")

    async def close(self) -> None:
        await self._admin.tell("/drain_listeners?inboundonly")

    async def end(self, *, at_once: bool) -> None:
        if self._process is not None and self.is_there():
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)

    async def gone(self) -> None:
        """Returns when there is no process any more, and its log has been read."""
        if self._watching is not None:
            await asyncio.shield(self._watching)

    def reopen_logs(self) -> None:
        """Somebody has moved the access log away."""
        if self._process is not None and self.is_there():
            self._process.send_signal(signal.SIGUSR1)

    async def _watch(self, process: asyncio.subprocess.Process, ended: Callable[[], object]) -> None:
        assert process.stderr is not None
        left = b""
        while chunk := await process.stderr.read(65_536):
            *lines, left = (left + chunk).split(b"\n")
            for line in lines:
                self._hear(line)
            left = left[:65_536]
        self._hear(left)
        await process.wait()
        ended()

    def _hear(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if text:
            self._last.append(text)
            self._said(text)

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all: Envoy looks when a file is moved to where it looks."""
        made = self._room / f".{name}"
        made.touch(mode=0o600)
        made.write_bytes(content)
        made.replace(self._room / name)

    async def _replace(self, name: str, content: bytes) -> None:
        """Replace one document, and wait until Envoy has taken or refused it."""
        taken, refused = f"{_COUNTERS[name]}.update_success", f"{_COUNTERS[name]}.update_rejected"
        before = await self._admin.numbers(taken, refused)
        self._write(name, content)
        by = self._clock.monotonic() + PUT_TIMEOUT_S
        while self._clock.monotonic() < by:
            now = await self._admin.numbers(taken, refused)
            if now[refused] > before[refused]:
                raise InvalidInput(f"envoy does not take it: {self.last_words}")
            if now[taken] > before[taken]:
                return await self._warm(by)
            await self._clock.sleep(LOOK_S)
        raise Failed(f"envoy did not take {name} within {PUT_TIMEOUT_S:g} s")

    async def _warm(self, by: float) -> None:
        """A new cluster asks its endpoints first; the last one serves until then, also after we have stopped waiting."""
        warming = "cluster_manager.warming_clusters"
        while (await self._admin.numbers(warming))[warming] and self._clock.monotonic() < by:
            await self._clock.sleep(LOOK_S)


def _encoded(moving: Mapping[str, Document], room: Path) -> dict[str, bytes]:
    """As they are written. Envoy reads a certificate again when its document is another one, whatever has happened to the
    file; so each is named there by a link that has the digest of what is in it."""
    found = {}
    for name, document in moving.items():
        text = json.dumps(document)
        for path in files_of(document):
            link = room / hashlib.sha256(path.encode() + b"\0" + Path(path).read_bytes()).hexdigest()
            if not link.is_symlink():
                link.symlink_to(path)
            text = text.replace(json.dumps(path), json.dumps(str(link)))
        found[name] = text.encode()
    return found

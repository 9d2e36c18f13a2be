"""A sidecar's life: reads its policy file, starts Envoy and supervises it."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from faultproof.clock import system
from faultproof.engines.envoy.mapping import Notes, asked
from faultproof.engines.envoy.program import check_files, envoy_program, reserved
from faultproof.engines.envoy.proxy import EnvoyProxy
from faultproof.errors import CannotOpen, Failed, FaultproofError, InvalidInput
from faultproof.patterns.sidecar.machine import SupervisorPolicy
from faultproof.patterns.sidecar.options import SidecarFile, check_replaces, sidecar_from_toml, with_files_from
from faultproof.patterns.sidecar.reloading import Reloads
from faultproof.patterns.sidecar.supervisor import Supervisor

_FILE_BYTES_MAX = 1_048_576
_BAD_INPUT = 2


class Sidecar:
    """A policy file, the Envoy it is for, and what has been said."""

    def __init__(self, program: Path, policy: Path, listen: str | None) -> None:
        self.program = program
        self.policy = policy
        self._listen = listen

    def read(self) -> tuple[SidecarFile, Notes]:
        """The file, checked as far as that goes without Envoy. Raises `InvalidInput` or `CannotOpen`."""
        file, written = sidecar_from_toml(_text(self.policy))
        if self._listen is not None:
            file = replace(file, sidecar=replace(file.sidecar, address=self._listen))
        file = with_files_from(file, self.policy.absolute().parent)
        notes = asked(file, written)
        check_files(file)
        return file, notes

    async def run(self) -> None:
        """Until told to end. Raises what was wrong before the first call could be carried."""
        file, notes = self.read()
        env = system()
        with ExitStack() as stack:
            room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faultproof-sidecar-")))
            proxy = EnvoyProxy(self.program, room, said=lambda line: _say(f"envoy: {line}"))
            await proxy.check(file)
            for held in reserved(file):
                stack.callback(held.close)
            limits = SupervisorPolicy(linger=file.sidecar.linger, drain=file.sidecar.drain)
            supervisor = Supervisor(env, proxy, file, limits, said=_say)

            async def load() -> SidecarFile:
                new, _ = self.read()
                check_replaces(file, new)
                await proxy.check(new)
                return new

            reloads = Reloads(env, look=lambda: self._signature(file), load=load, put=supervisor.put, said=_say)
            _on_signals(supervisor.stop, reloads.ask, proxy.reopen_logs)
            _say(f"{file.name} on {file.sidecar.address}, {', '.join(each.url for each in file.endpoints)} behind it")
            if notes.left_out:
                _say(f"not in force here (--check says more): {', '.join(notes.left_out)}")
            reloading = asyncio.create_task(reloads.run())
            try:
                standing = await supervisor.run()
                await proxy.gone()
            finally:
                reloading.cancel()
        if standing.has_failed:
            raise Failed(f"envoy did not start: {_plain(proxy.last_words)}")
        _say("ended")

    def _signature(self, file: SidecarFile) -> object:
        tls, options = file.tls, file.sidecar
        files = (str(self.policy), tls.ca, tls.cert, tls.key, options.cert, options.key, options.client_ca)
        return [_state(path) for path in files if path is not None]


def _on_signals(stop: Callable[[], None], reload: Callable[[], None], reopen: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number, does in (
        (signal.SIGTERM, stop),
        (signal.SIGINT, stop),
        (signal.SIGHUP, reload),
        (signal.SIGUSR1, reopen),
    ):
        loop.add_signal_handler(number, does)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX + 1).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no text in UTF-8") from error
    except OSError as error:
        raise CannotOpen(f"{path} cannot be read: {error.strerror}") from error


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _say(sentence: str) -> None:
    """On stderr: stdout is the access log's."""
    print(f"sidecar: {_plain(sentence)}", file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    """Envoy's words, or a file's, on one line, without what could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))[:1_000]


def main(policy: str, listen: str | None = None) -> int:
    """The exit status."""
    try:
        asyncio.run(Sidecar(envoy_program(), Path(policy), listen).run())
    except FaultproofError as error:
        print(_plain(str(error)), file=sys.stderr)
        return _BAD_INPUT
    return 0

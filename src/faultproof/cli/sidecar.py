"""`faultproof sidecar`: the policy of a client in front of a service in any language."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faultproof.cli.output import one_line, print_json
from faultproof.errors import CannotOpen, Failed, InvalidInput

if TYPE_CHECKING:
    from faultproof.engines.envoy.mapping import Notes
    from faultproof.patterns.sidecar.options import SidecarFile

EPILOG = """\
A policy file, the same that a client is given; `sidecar` and `tls` may be left out:

    name = "payments"

    [policy]
    deadline = 2.0
    attempt_timeout = 0.5
    retry = { attempts = 3 }
    breaker = false

    [[endpoints]]
    name = "a"
    url = "http://10.0.0.1:8000"

    [sidecar]
    address = "127.0.0.1:8080"
    admin = "127.0.0.1:9901"

Try:

[bold]faultproof sidecar --policy policy.toml --check[/]  whether it can be in force, and how it differs from a client's

[bold]faultproof sidecar --policy policy.toml --show[/]  Envoy's configuration, for an Envoy of your own

[bold]curl 127.0.0.1:9901/ready[/]  LIVE, or 503 while it drains; /metrics is for Prometheus

[bold]kill -HUP PID[/]  read the file again (it is, when it changes); -TERM drains and ends; -USR1 opens the log anew

Exit status: 0 told to end; 2 bad input, or Envoy did not start.
"""
_FILE_BYTES_MAX = 1_048_576


def sidecar(
    policy: Annotated[Path, typer.Option("--policy", help="The policy file (TOML).")],
    listen: Annotated[
        str | None, typer.Option("--listen", help="Listen here, whatever the file says: 127.0.0.1:8080.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the file can be in force.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only print Envoy's configuration, as JSON.")] = False,
) -> None:
    """Put a policy in front of a service: Envoy, its configuration made from the file, started and supervised.

    Deadlines, retries within a budget, hedges, outlier ejection, health checks, bounds and TLS act on every call that goes
    through it, with no change to the application. What Envoy cannot do is refused by name.
    """
    from faultproof.engines.envoy.program import envoy_program

    if check and show:
        raise InvalidInput("--check and --show are two things: give one of them")
    program = envoy_program()
    runner = _Sidecar(program, policy, listen)
    asyncio.run(_judge(runner, show=show) if check or show else runner.run())


async def _judge(runner: _Sidecar, *, show: bool) -> None:
    from faultproof.engines.envoy.document import documents
    from faultproof.engines.envoy.program import check_by_envoy, trusted_by_default

    file, notes = runner.read()
    whole = documents(file, room="/run/faultproof-sidecar", trusted=trusted_by_default()).whole
    await check_by_envoy(runner.program, whole)
    if show:
        print_json(whole)
        return
    print(f"{runner.policy} can be in force, on {file.sidecar.address}, for {len(file.endpoints)} endpoints.")
    for title, lines in (
        ("Not in force here:", notes.left_out),
        ("In force, and a little different:", notes.different),
    ):
        if lines:
            print(f"\n{title}")
            for name, line in lines.items():
                print(f"  {name}: {line}")


class _Sidecar:
    """A policy file, the Envoy it is for, and what has been said."""

    def __init__(self, program: Path, policy: Path, listen: str | None) -> None:
        self.program = program
        self.policy = policy
        self._listen = listen

    def read(self) -> tuple[SidecarFile, Notes]:
        """The file, checked as far as that goes without Envoy. Raises `InvalidInput` or `CannotOpen`."""
        from faultproof.engines.envoy.mapping import asked
        from faultproof.engines.envoy.program import check_files
        from faultproof.patterns.sidecar.options import sidecar_from_toml, with_files_from

        file, written = sidecar_from_toml(_text(self.policy))
        if self._listen is not None:
            file = replace(file, sidecar=replace(file.sidecar, address=self._listen))
        file = with_files_from(file, self.policy.absolute().parent)
        notes = asked(file, written)
        check_files(file)
        return file, notes

    async def run(self) -> None:
        """Until told to end. Raises what was wrong before the first call could be carried."""
        from faultproof.clock import system
        from faultproof.engines.envoy.program import reserved
        from faultproof.engines.envoy.proxy import EnvoyProxy
        from faultproof.patterns.sidecar.machine import SupervisorPolicy
        from faultproof.patterns.sidecar.options import check_replaces
        from faultproof.patterns.sidecar.reloading import Reloads
        from faultproof.patterns.sidecar.supervisor import Supervisor

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
            raise Failed(f"envoy did not start: {one_line(proxy.last_words)}")
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
    print(f"sidecar: {one_line(sentence)}", file=sys.stderr, flush=True)

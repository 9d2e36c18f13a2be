"""`faultproof sidecar`: the policy of a client in front of a service in any language."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faultproof.cli.output import print_json
from faultproof.errors import InvalidInput

if TYPE_CHECKING:
    from faultproof.engines.envoy.run import Sidecar

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
    from faultproof.engines.envoy import run
    from faultproof.engines.envoy.program import envoy_program

    if check and show:
        raise InvalidInput("--check and --show are two things: give one of them")
    made = run.Sidecar(envoy_program(), policy, listen)
    if check or show:
        asyncio.run(_judge(made, show=show))
        return
    made.read()
    # The same process, without what the command line needs: a sidecar runs for months beside each service.
    sys.stdout.flush()
    lean = Path(run.__file__).with_name("lean.py")
    command = [sys.executable, "-P", str(lean), str(policy), *([listen] if listen else [])]
    os.execv(sys.executable, command)  # noqa: S606  # our own module, and no shell


async def _judge(made: Sidecar, *, show: bool) -> None:
    from faultproof.engines.envoy.document import documents
    from faultproof.engines.envoy.program import check_by_envoy, trusted_by_default

    file, notes = made.read()
    whole = documents(file, room="/run/faultproof-sidecar", trusted=trusted_by_default()).whole
    await check_by_envoy(made.program, whole)
    if show:
        print_json(whole)
        return
    print(f"{made.policy} can be in force, on {file.sidecar.address}, for {len(file.endpoints)} endpoints.")
    for title, lines in (
        ("Not in force here:", notes.left_out),
        ("In force, and a little different:", notes.different),
    ):
        if lines:
            print(f"\n{title}")
            for name, line in lines.items():
                print(f"  {name}: {line}")

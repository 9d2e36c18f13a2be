"""What people see: progress while the shop runs, and a table of all checks at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from faultproof.shop.run import Status
from faultproof.shop.verdict import Verdict

_LIVE_S = 0.25
_LINE_S = 2.0


@asynccontextmanager
async def showing(status: Status, out: Console | None) -> AsyncIterator[None]:
    """Keep people informed meanwhile: in place on a terminal, a line now and then in a pipe, nothing without `out`."""
    if out is None:
        yield
        return
    task = asyncio.create_task(_live(status, out) if out.is_terminal else _lines(status, out))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _live(status: Status, out: Console) -> None:
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(_told(status), no_wrap=True, overflow="ellipsis"), refresh=True)
            await asyncio.sleep(_LIVE_S)


async def _lines(status: Status, out: Console) -> None:
    while True:
        await asyncio.sleep(_LINE_S)
        out.print(_told(status), markup=False)


def _told(status: Status) -> str:
    seconds = status.timeline.now()
    progress, processes = status.progress, status.processes
    if processes is None:
        return f"{seconds:5.1f} s  starting"
    return (
        f"{seconds:5.1f} s  {progress.answered:,}/{progress.total:,} orders  {progress.answered / seconds:.0f}/s  "
        f"{progress.retries:,} retries  {processes.kills.total()} kills ({processes.kills_while_busy} busy)  "
        f"lag {status.lag:,}  {status.sagas:,} under way"
    )


def print_verdict(verdict: Verdict, out: Console) -> None:
    """Every check with what was expected and found, then the verdict in words."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("claim")
    for heading in ("examined", "expected", "found"):
        table.add_column(heading, justify="right")
    for check in verdict.checks:
        found = Text(f"{check.violations:,} wrong", style="bold red" if check.violations else "green")
        table.add_row(check.claim, f"{check.examined:,}", "0 wrong", found)
    out.print(table)
    for check in verdict.checks:
        for where in check.where:
            out.print(f"{check.name}: {where}", style="red", markup=False, soft_wrap=True)
        if check.violations > len(check.where) > 0:
            out.print(f"{check.name}: {check.violations:,} in all", style="red", markup=False)
    for line in words(verdict):
        out.print(line, markup=False, soft_wrap=True)
    style = "bold green" if verdict.status == 0 else "bold red" if not verdict.held else "bold yellow"
    out.print(Text(conclusion(verdict), style=style), soft_wrap=True)


def words(verdict: Verdict) -> list[str]:
    """The run in a few lines."""
    planted = f"; planted bug: {verdict.planted}" if verdict.planted else ""
    counted = [f"{count:,} {what.replace('_', ' ')}" for what, count in verdict.request_path.items()]
    return [
        "",
        f"{verdict.accepted:,} orders answered, {verdict.orders_per_second:.0f}/s; {verdict.seconds:.1f} s in all; "
        f"{verdict.retries:,} retries; seed {verdict.seed}{planted}",
        f"{verdict.fulfilled:,} orders fulfilled, {verdict.compensated:,} undone; of the provider's {verdict.answers:,} "
        f"answers {verdict.answers_lost:,} were lost",
        f"request path: {', '.join(counted)}",
        f"faults: {_faults(verdict)}",
        f"assumed: {verdict.durability}; the operating system and the disk go on. Not tested: power loss, a lost disk, "
        "more than one machine",
        f"database: {verdict.database}{'' if verdict.kept else ' (removed: --keep keeps it)'}",
    ]


def _faults(verdict: Verdict) -> str:
    if not verdict.kill_every:
        return "none; no kill was asked for"
    target = verdict.aim or verdict.planted
    if verdict.delays:
        return f"{verdict.delays:,} orders held up in the window of {target}"
    if not verdict.kills:
        return "none; no kills"
    roles = ", ".join(f"{count} {role}" for role, count in verdict.kills_by_role.items())
    states = ", ".join(f"{count} {state}" for state, count in sorted(verdict.kills_by_state.items()))
    aimed = f"; aimed at the window of {target}" if target else ""
    restarts = f"; {verdict.server_restarts} immediate restarts of the server" if verdict.server_restarts else ""
    return f"{verdict.kills} kills, {verdict.kills_while_busy} of them of busy processes ({roles}; {states}){aimed}{restarts}"


def conclusion(verdict: Verdict) -> str:
    """The verdict in one line."""
    if not verdict.held:
        wrong = [f"{check.violations:,} {check.name}" for check in verdict.checks if check.violations]
        return f"violated: {', '.join([*wrong, *filter(None, [verdict.gave_up])])}"
    if verdict.vacuous:
        return f"held, but vacuous: {verdict.vacuous}"
    if verdict.planted and not verdict.kill_every:
        return f"held: no kill was asked for, and without kills {verdict.planted} does no damage"
    return "held"

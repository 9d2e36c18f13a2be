"""The table of defaults in a pattern's README has every option, with the value that the code has."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import pytest

from faultproof.patterns.bulkhead import Bulkhead, BulkheadPolicy
from faultproof.patterns.escrow import Escrow, EscrowOptions
from faultproof.patterns.fan_out import FanOut, Source
from faultproof.patterns.hedged_request import HedgedRequest
from faultproof.patterns.outbox import ConsumerOptions, Outbox, OutboxOptions
from faultproof.patterns.outbox.dead_letters import DeadLetters
from faultproof.patterns.request_response import (
    Budget,
    ClientSession,
    Deadlines,
    Idempotent,
    IdempotentOptions,
    Policy,
    SessionOptions,
)
from faultproof.patterns.scatter_gather import GatherPolicy, ScatterGather
from faultproof.patterns.shadow import Diff, HttpCandidate, Shadow, ShadowPolicy, ShadowProcesses
from faultproof.patterns.sidecar import SidecarOptions, SupervisorPolicy, TlsFiles
from faultproof.primitives.adaptive import AdaptivePolicy
from faultproof.primitives.batcher import Batcher, BatchLimits
from faultproof.primitives.compartments import TenantPolicy
from faultproof.primitives.flag_file import FlagFile
from faultproof.primitives.flag_table import FlagTable
from faultproof.primitives.flags import Flags
from faultproof.primitives.group_commit import GroupCommit
from faultproof.primitives.hedging import HedgePolicy
from tests.docs.markdown import REPOSITORY, rows, section

OPTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "batch": (BatchLimits, Batcher, GroupCommit, GroupCommit.submit),
    "bulkhead": (
        BulkheadPolicy,
        TenantPolicy,
        AdaptivePolicy,
        Bulkhead,
        Bulkhead.permit,
        Bulkhead.run,
        Bulkhead.threads,
    ),
    "escrow": (
        EscrowOptions,
        Escrow,
        Escrow.restock,
        Escrow.reserve,
        Escrow.confirm,
        Escrow.release,
        Escrow.extend,
        Escrow.items,
        Escrow.expiry,
    ),
    "fan_out": (Source, FanOut),
    "hedged_request": (HedgePolicy, HedgedRequest),
    "outbox": (
        OutboxOptions,
        ConsumerOptions,
        Outbox,
        Outbox.publish,
        Outbox.sequencer,
        Outbox.retention,
        DeadLetters.list,
        DeadLetters.replay_all,
        DeadLetters.discard_all,
    ),
    "request_response": (
        Policy,
        Budget,
        SessionOptions,
        ClientSession,
        ClientSession.call,
        IdempotentOptions,
        Idempotent,
        Deadlines,
    ),
    "scatter_gather": (GatherPolicy, ScatterGather),
    "sidecar": (SidecarOptions, TlsFiles, SupervisorPolicy),
    "shadow": (
        ShadowPolicy,
        Shadow,
        Shadow.offer,
        Shadow.drain,
        Diff,
        ShadowProcesses,
        HttpCandidate,
        Flags,
        FlagFile,
        FlagTable,
        FlagTable.set,
    ),
}
_FROM_OPTIONS = {"options"}
"""Parameters that take one of the dataclasses above, whose rows say the rest."""


@pytest.mark.parametrize("room", OPTIONS)
def test_defaults_are_those_of_the_code(room: str) -> None:
    readme = REPOSITORY / "src/faultproof/patterns" / room / "README.md"
    table = {cells[0].strip("`"): cells[1] for cells in rows(section(readme.read_text(encoding="utf-8"), "Defaults"))}
    assert table == {name: value for made in OPTIONS[room] for name, value in _defaults(made)}


@pytest.mark.parametrize("room", OPTIONS)
def test_each_default_has_a_reason(room: str) -> None:
    readme = REPOSITORY / "src/faultproof/patterns" / room / "README.md"
    table = rows(section(readme.read_text(encoding="utf-8"), "Defaults"))
    assert [cells[0] for cells in table if len(cells) != 4 or not cells[3]] == []


def _defaults(made: Callable[..., Any]) -> list[tuple[str, str]]:
    return [
        (f"{made.__qualname__}.{name}" if is_dataclass(made) else f"{made.__qualname__}({name})", _shown(each.default))
        for name, each in inspect.signature(made).parameters.items()
        if each.default is not each.empty and name not in _FROM_OPTIONS
    ]


def _shown(default: object) -> str:
    if isinstance(default, int | float) and not isinstance(default, bool):
        return f"{int(default):,}" if default == int(default) else f"{default:,}"
    return f"{type(default).__name__}()" if is_dataclass(default) else str(default)

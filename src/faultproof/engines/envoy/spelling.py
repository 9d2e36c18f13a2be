"""How Envoy's JSON spells times, shares and types, and the names that our documents have for each other."""

from __future__ import annotations

import ipaddress
import math
from typing import Any

UPSTREAM = "upstream"
"""The one cluster that calls go to."""
ADMIN = "admin"
TABLE = "policy"
"""The route table."""
OWN_CERTIFICATE, TRUSTED, LISTENING_CERTIFICATE, TRUSTED_CALLERS = "own", "trusted", "listening", "callers"
"""Secrets."""

_PREFIX = "type.googleapis.com/"


def seconds(value: float) -> str:
    """A duration; Envoy's timers have milliseconds, and none is shorter than one."""
    return f"{milliseconds(value) / 1000:g}s" if value < 100 else f"{math.ceil(value)}s"


def milliseconds(value: float) -> int:
    """Rounded up: whoever is promised some time has it."""
    return max(1, math.ceil(round(value * 1000, 6)))


def typed(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """A message that says what it is."""
    return {"@type": kind if kind.startswith(_PREFIX) else _PREFIX + kind, **value}


def named(name: str, kind: str, value: dict[str, Any] | None = None) -> dict[str, Any]:
    """An extension of Envoy's with its configuration."""
    return {"name": name, "typed_config": typed(kind, value or {})}


def socket(host: str, port: int) -> dict[str, Any]:
    """An address."""
    return {"socket_address": {"address": host, "port_value": port}}


def is_ip(host: str) -> bool:
    """Whether it needs no name server."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

"""Addresses of PostgreSQL databases, taken apart and put together again with libpq's own parser."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import quote, urlencode

from faultproof.errors import InvalidInput, MissingExtra


def options_of(url: str) -> dict[str, Any]:
    """What an address says. Raises `InvalidInput`, with nothing of it in the message: it may hold a password."""
    psycopg = _driver()
    try:
        options: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise InvalidInput("that is not a PostgreSQL URL: postgresql://user@host:port/database") from None
    return options


def changed(url: str, **changes: Any) -> str:
    """The same address with other options; None takes one away."""
    options = options_of(url) | changes
    left = {name: str(value) for name, value in options.items() if value is not None}
    return "postgresql:///?" + urlencode(left, quote_via=quote)


def in_schema(url: str, schema: str) -> str:
    """The same database, where this schema is the only one that is looked into."""
    options = options_of(url).get("options") or ""
    return changed(url, options=f"{options} -csearch_path={schema}".strip())


def places(url: str) -> list[tuple[str, int]]:
    """Host and port of each server that the address, or the environment of this process, names."""
    defaults = _driver().pq.Conninfo.get_defaults()
    known = {option.keyword.decode(): option.val.decode() for option in defaults if option.val} | options_of(url)
    hosts = str(known.get("hostaddr") or known.get("host") or "/").split(",")
    ports = [int(port or 5432) for port in str(known.get("port") or "").split(",")]
    return [(host, ports[number % len(ports)]) for number, host in enumerate(hosts)]


def strangers(url: str) -> list[str]:
    """What it names that is not this machine: hosts, and a service file, which may name any."""
    named = options_of(url)
    found = [f"the service {named['service']}"] if named.get("service") else []
    return found + [host for host, _ in places(url) if not _is_loopback(host)]


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith(("/", "@")):  # the latter two are Unix sockets
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: whoever answers for it today need not do so tomorrow


def _driver() -> Any:
    """psycopg, which an extra brings."""
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra("PostgreSQL needs its driver: pip install faultproof[postgres]") from error
    return psycopg

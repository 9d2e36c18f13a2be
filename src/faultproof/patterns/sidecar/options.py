"""What a sidecar is told: where it listens, and the same endpoints and policy that a client has."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.patterns.request_response.toml import Upstream, decoded

T = TypeVar("T")

PORT_MAX = 65_535
HEADER_MARKS = "-_.!#$%&'*+^`|~"


@dataclass(frozen=True, kw_only=True)
class SidecarOptions:
    """The table `[sidecar]`: what has no meaning for a client inside the application. All times in seconds."""

    address: str = "127.0.0.1:8080"
    """Where it listens."""
    public: bool = False
    """Whether `address` and `admin` may be others than loopback."""
    admin: str = "127.0.0.1:9901"
    """Where `/ready` and `/metrics` are, and nothing else."""
    cert: str | None = None
    """Files: a certificate to listen with …"""
    key: str | None = None
    """… its key …"""
    client_ca: str | None = None
    """… and who must have signed those of callers; None: callers need none."""
    health_path: str | None = None
    """What is asked of endpoints, where `[policy.health]` says how often: they are well if they answer 200."""
    key_header: str | None = None
    """With `balance = "ring"`: the header whose value is the key."""
    keep: float = 4.0
    """A connection to an endpoint that nothing came over for so long is closed."""
    connections: int = 10_000
    """From callers, at once. More are closed as they come."""
    workers: int = 2
    """Threads that carry calls."""
    linger: float = 0.5
    """Told to end, it goes on accepting connections for so long, and says on each that it is the last call …"""
    drain: float = 10.0
    """… and then waits so long for calls that are under way."""
    log: str = "stdout"
    """Where the access log goes, a JSON document for each call: "stdout", a file, or "none"."""

    def __post_init__(self) -> None:
        bounds.seconds("keep", self.keep, least=0.001)
        bounds.seconds("linger", self.linger, least=0)
        bounds.seconds("drain", self.drain, least=0)
        bounds.count("connections", self.connections)
        bounds.count("workers", self.workers, most=256)
        for option, address in (("address", self.address), ("admin", self.admin)):
            host, _ = place(option, address)
            if not self.public and not ipaddress.ip_address(host).is_loopback:
                raise InvalidInput(
                    f"`sidecar.{option}` is {address}, which other machines can reach: say `public = true` if they may"
                )
        if self.address == self.admin:
            raise InvalidInput(f"`sidecar.address` and `sidecar.admin` are both {self.address}: give each its own")
        if (self.cert is None) != (self.key is None):
            raise InvalidInput("`sidecar.cert` and `sidecar.key` belong together: give both, or neither")
        if self.client_ca is not None and self.cert is None:
            raise InvalidInput("`sidecar.client_ca` asks callers for certificates: it needs a `cert` and a `key`, too")
        if self.health_path is not None and not _is_path(self.health_path):
            raise InvalidInput(
                f"`sidecar.health_path` must be a path like /health, got {bounds.short(self.health_path)}"
            )
        if self.key_header is not None and not _is_header(self.key_header):
            raise InvalidInput(f"`sidecar.key_header` must be a header's name, got {bounds.short(self.key_header)}")
        if not self.log.strip():
            raise InvalidInput('`sidecar.log` must be "stdout", "none" or a file, and is empty')


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """The table `[tls]`: how endpoints with `https://` are known, and what we show them."""

    ca: str | None = None
    """Who must have signed their certificates; None: whom the machine trusts."""
    cert: str | None = None
    """A certificate of our own …"""
    key: str | None = None
    """… and its key."""
    server_name: str | None = None
    """What their certificates must be for; None: each endpoint's own host name."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidInput("`tls.cert` and `tls.key` belong together: give both, or neither")
        if self.server_name is not None and not _is_host(self.server_name):
            raise InvalidInput(f"`tls.server_name` must be a host name, got {bounds.short(self.server_name)}")


@dataclass(frozen=True, kw_only=True)
class SidecarFile(Upstream):
    """A whole policy file."""

    sidecar: SidecarOptions = field(default_factory=SidecarOptions)
    tls: TlsFiles = field(default_factory=TlsFiles)


def sidecar_from_toml(text: str) -> tuple[SidecarFile, frozenset[str]]:
    """A policy file, and what is written in it: "policy.hedge", "policy.hedge.at_first". Raises `InvalidInput`.

    What is written must be in force, or it is refused; what is not, has a default.
    """
    file = decoded(text, SidecarFile)
    return file, frozenset(_written(tomllib.loads(text), ""))


MOVING = frozenset({"health_path", "key_header", "keep"})
"""What of `SidecarOptions` another file may change while the sidecar runs, beside policy, endpoints and certificates."""


def check_replaces(before: SidecarFile, after: SidecarFile) -> None:
    """Whether it can be put in force without a restart. Raises `InvalidInput` that names what cannot."""
    changed = ["name"] if before.name != after.name else []
    changed += [
        f"sidecar.{each.name}"
        for each in fields(SidecarOptions)
        if each.name not in MOVING and getattr(before.sidecar, each.name) != getattr(after.sidecar, each.name)
    ]
    if changed:
        raise InvalidInput(
            f"`{changed[0]}` has changed, which takes a restart of the sidecar: leave it as it was until then"
        )


def with_files_from(file: SidecarFile, folder: Path) -> SidecarFile:
    """The same, with the names of files taken from that folder: where the policy file is."""
    names = ("ca", "cert", "key", "client_ca")

    def absolute(part: T) -> T:
        given = {name: value for name in names if (value := getattr(part, name, None)) is not None}
        return replace(part, **{name: str(folder / value) for name, value in given.items()})  # type: ignore[type-var]

    log = file.sidecar.log
    sidecar = file.sidecar if log in ("stdout", "none") else replace(file.sidecar, log=str(folder / log))
    return replace(file, tls=absolute(file.tls), sidecar=absolute(sidecar))


def place(option: str, address: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:8080" or "[::1]:8080". Raises `InvalidInput` that names the option."""
    host, colon, port = address.rpartition(":")
    try:
        number = int(port) if port.isascii() and port.isdigit() else 0
        ip = ipaddress.ip_address(host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host)
    except ValueError:
        number = 0
    if not colon or not 1 <= number <= PORT_MAX or (ip.version == 6) != host.startswith("["):
        raise InvalidInput(
            f"`sidecar.{option}` must be an address and a port like 127.0.0.1:8080, got {bounds.short(address)}"
        )
    return str(ip), number


def _written(table: Mapping[str, object], where: str) -> list[str]:
    found = []
    for key, value in table.items():
        name = f"{where}.{key}" if where else key
        if value is not False or where != "policy":
            found.append(name)
        if isinstance(value, Mapping):
            found += _written(value, name)
    return found


def _is_path(text: str) -> bool:
    return text.startswith("/") and text.isascii() and text.isprintable() and not {" ", "#"} & set(text)


def _is_header(text: str) -> bool:
    return text.isascii() and bool(text) and all(c.isalnum() or c in HEADER_MARKS for c in text)


def _is_host(text: str) -> bool:
    return text.isascii() and 0 < len(text) <= 253 and all(c.isalnum() or c in "-._" for c in text)

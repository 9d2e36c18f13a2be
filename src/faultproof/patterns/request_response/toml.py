"""Policies and endpoints from a TOML file: the same for a client and for a sidecar."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.patterns.request_response.policy import Policy
from faultproof.primitives.endpoints import Endpoint

T = TypeVar("T")

TEXT_BYTES_MAX = 1_048_576
SIDECAR_TABLES = ("sidecar", "tls")
"""What a client passes over in a file that it shares with a sidecar: where that listens, and certificates, which are up to a
client's HTTP library."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """An endpoint, as it is written down."""

    name: str
    """Short and plain, for signals and hashing."""
    url: str
    """Such as https://10.0.0.1:8443."""
    weight: int = 1
    """Its share of the calls, beside the others'."""

    def __post_init__(self) -> None:
        self.made()

    def made(self) -> Endpoint:
        """A new one."""
        return Endpoint(self.name, self.url, weight=self.weight)


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """What is called, and how."""

    endpoints: tuple[Address, ...]
    policy: Policy = field(default_factory=Policy)
    name: str = "client"
    """As signals call it."""

    def __post_init__(self) -> None:
        bounds.name("a client", self.name)
        if not self.endpoints:
            raise InvalidInput('there are no endpoints: write `[[endpoints]]` with `name = "a"` and `url = "http://…"`')


def upstream_from_toml(text: str) -> Upstream:
    """Endpoints and policy. Raises `InvalidInput` for whatever is unknown, missing, of the wrong kind, or contradicts itself.

    ::

        name = "payments"

        [policy]
        deadline = 2.0
        attempt_timeout = 0.5
        retry = { attempts = 3, base = 0.05 }

        [[endpoints]]
        name = "a"
        url = "https://10.0.0.1:8443"
    """
    return decoded(text, Upstream, passed_over=SIDECAR_TABLES)


def decoded(text: str, kind: type[T], *, passed_over: Collection[str] = ()) -> T:
    """A TOML document as a dataclass of dataclasses: a table for each, a key for each field. Raises `InvalidInput`.

    `false` leaves out a table that may be left out: `breaker = false`.
    """
    if len(text.encode(errors="surrogatepass")) > TEXT_BYTES_MAX:
        raise InvalidInput(f"a policy file has at most {TEXT_BYTES_MAX} bytes")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"the policy file is no TOML: {error}") from error
    for table in passed_over:
        document.pop(table, None)
    try:
        return msgspec.convert(_read(document, kind, ""), kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the policy file cannot be used: {error}") from error


def _read(given: object, hint: Any, where: str) -> object:
    """As it is to be converted: false for a table that may be left out is None. A key that nobody would read is refused:
    it would be a policy that is not in force."""
    parts = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        table = next((one for one in parts if is_dataclass(one)), None)
        return None if given is False and table and type(None) in parts else _read(given, table, where)
    if isinstance(given, list) and parts:
        return [_read(value, parts[0], where) for value in given]
    if not isinstance(given, Mapping):
        return given
    if not is_dataclass(hint):
        return {
            key: _read(value, parts[1] if len(parts) == 2 else None, f"{where}.{key}") for key, value in given.items()
        }
    known = sorted(field.name for field in fields(hint))
    for key in given:
        if key not in known:
            place = f"[{where}] has" if where else "the policy file has"
            raise InvalidInput(f"{place} an unknown key {bounds.short(key)}: there are {', '.join(known)}")
    hints = get_type_hints(hint)
    return {key: _read(value, hints[key], f"{where}.{key}" if where else key) for key, value in given.items()}

"""Typed events under stable names: what is stored is a name and JSON, never a class path."""

from __future__ import annotations

import dataclasses
import datetime
import math
import types
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput, PayloadTooLarge, UnknownEventType
from faultproof.ports.log import Entry, Record

E = TypeVar("E")

KEY_BYTES_MAX = 512
HEADERS_BYTES_MAX = 8_192
TYPE_BYTES_MAX = 200

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Event(Generic[E]):
    """An event as a consumer gets it."""

    body: E
    id: str
    """The same in every redelivery, for receivers that deduplicate by id."""
    type: str
    key: str | None
    partition: int
    offset: int
    """Dense within its partition: n is followed by n+1."""
    epoch: str
    """Changes when the log was begun anew (after a restore): offsets of two epochs do not compare."""
    at: datetime.datetime
    """When it was published, by the database's clock, in UTC; if it was delayed, when it became due."""
    headers: Mapping[str, str]
    attempt: int
    """1 for the first delivery that this group knows of; a delivery cut off by a crash is not counted."""


class EventTypes:
    """The events an outbox carries: stable name -> msgspec Struct, dataclass or `dict`.

    The name is what old rows carry, so it outlives the class: rename the class and keep the name.
    """

    def __init__(self, types: Mapping[str, type], *, payload_bytes_max: int) -> None:
        self._limit = payload_bytes_max
        self._names: dict[type, str] = {}
        self._kinds: dict[str, type] = {}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._searched: set[str] = set()
        self._encode = msgspec.json.Encoder(order="deterministic").encode
        for name, kind in types.items():
            self._register(name, kind)

    def _register(self, name: str, kind: type) -> None:
        if not _storable(name) or not 1 <= len(name.encode()) <= TYPE_BYTES_MAX:
            raise InvalidInput(f"an event type needs a name of 1 to {TYPE_BYTES_MAX} bytes, got {name!r}")
        known = _is(kind, type) and (issubclass(kind, (msgspec.Struct, dict)) or dataclasses.is_dataclass(kind))
        if not known:
            raise InvalidInput(f"the event type {name!r} must be a msgspec Struct, a dataclass or dict, not {kind!r}")
        if kind is not dict and kind in self._names:
            raise InvalidInput(f"{kind.__qualname__} is registered twice, as {self._names[kind]!r} and {name!r}")
        self._names.setdefault(kind, name)
        self._kinds[name] = kind
        try:
            self._decoders[name] = msgspec.json.Decoder(kind)
            mentioned = _mentioned(kind)
        except TypeError as error:
            raise InvalidInput(f"the event type {name!r} has a field that JSON cannot carry: {error}") from error
        if msgspec.inspect.CustomType in mentioned:
            raise InvalidInput(f"the event type {name!r} has a field that JSON cannot carry: a class of its own")
        if not mentioned.isdisjoint(_SEARCHED):
            self._searched.add(name)

    def name_of(self, event: object, name: str | None) -> str:
        """The registered name of an event; a dict, which has no class of its own, needs it from the caller."""
        if name is None:
            name = None if type(event) is dict else self._names.get(type(event))
            if name is None:
                hint = "pass `type=`" if type(event) is dict else "add it to the outbox's `events`"
                raise UnknownEventType(f"{type(event).__qualname__} is not a registered event: {hint}")
        if not isinstance(name, str):
            raise InvalidInput(f"`type` must be the name that an event is registered under, got {bounds.short(name)}")
        if name not in self._decoders:
            raise UnknownEventType(f"no event is registered as {name!r}: add it to the outbox's `events`")
        if type(event) is not self._kinds[name]:
            right = self._kinds[name].__qualname__
            raise InvalidInput(f"as {name!r} a {right} is registered, not a {type(event).__qualname__}: publish that")
        return name

    def encode(self, event: object, name: str) -> str:
        """The event as JSON. Refuses what it would not bring back: a moment of no time zone, a number that is none."""
        if name in self._searched:
            _search(event, name)
        try:
            payload = self._encode(event)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise InvalidInput(f"the event {name!r} cannot be encoded as JSON: {error}") from error
        try:  # a class does not check its fields; what is no event for the reader would stop its key there
            self._decoders[name].decode(payload)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidInput(
                f"the event {name!r} could not be read again: {error}; give its fields what they declare"
            ) from error
        if len(payload) > self._limit:
            raise PayloadTooLarge(
                f"the event {name!r} has {len(payload)} bytes, the limit is {self._limit}: store the content elsewhere and "
                "publish a reference to it",
                size_bytes=len(payload),
                limit_bytes=self._limit,
            )
        return payload.decode()

    def decode(self, record: Record, *, epoch: str, attempt: int) -> Event[Any]:
        """The event that a record holds. Raises `UnknownEventType` or `InvalidInput`."""
        decoder = self._decoders.get(record.type)
        if decoder is None:
            raise UnknownEventType(f"this process has no event registered as {record.type!r}: add it to `events`")
        try:
            body = decoder.decode(record.payload)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"the stored event {record.id} does not fit {record.type!r}: {error}") from error
        return Event(
            body=body,
            id=record.id,
            type=record.type,
            key=record.key,
            partition=record.partition,
            offset=record.offset,
            epoch=epoch,
            at=_EPOCH + datetime.timedelta(microseconds=record.at_us),
            headers=msgspec.json.decode(record.headers) if record.headers else {},
            attempt=attempt,
        )


def entry(
    *,
    id: str,
    type: str,
    payload: str,
    key: str | None,
    headers: Mapping[str, str] | None,
    delay: float,
    partitions: int,
) -> Entry:
    """A validated row for the intake. A key stays in its partition for ever; an event without one goes anywhere."""
    if key is not None and not 1 <= _text_bytes(key) <= KEY_BYTES_MAX:
        raise InvalidInput(
            f"a key must be a text of 1 to {KEY_BYTES_MAX} bytes (or None for no order), got {bounds.short(key)}"
        )
    if not _is(headers, Mapping, types.NoneType):
        raise InvalidInput(f"headers must map texts to texts, got {bounds.short(headers)}")
    for text in ("" if key is None else key, *(headers or {}), *(headers or {}).values()):
        if not _storable(text):
            raise InvalidInput(f"keys and headers must be valid text without NUL characters, got {bounds.short(text)}")
    bounds.seconds("delay", delay, least=0)
    encoded = msgspec.json.encode(dict(headers)).decode() if headers else None
    if encoded is not None and len(encoded) > HEADERS_BYTES_MAX:
        raise PayloadTooLarge(
            f"the headers have {len(encoded)} bytes, the limit is {HEADERS_BYTES_MAX}",
            size_bytes=len(encoded),
            limit_bytes=HEADERS_BYTES_MAX,
        )
    partition = zlib.crc32((key or id).encode()) % partitions
    return Entry(partition, id, key, type, payload, encoded, int(delay * 1_000_000))


def _is(value: object, *kinds: type) -> bool:
    """For what callers without a type checker may pass all the same."""
    return isinstance(value, kinds)


def _text_bytes(value: object) -> int:
    return len(value.encode("utf-8", "replace")) if isinstance(value, str) else -1


def _storable(text: object) -> bool:
    try:
        return isinstance(text, str) and "\0" not in text.encode().decode()
    except UnicodeEncodeError:  # a lone surrogate
        return False


_SEARCHED = (
    msgspec.inspect.AnyType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.TimeType,
    msgspec.inspect.FloatType,
)
"""Where something may hide that JSON does not bring back. Events without them are encoded without a search."""


@lru_cache(maxsize=1_024)
def _mentioned(kind: type) -> frozenset[type]:
    """What the fields of a class are made of, as msgspec sees it."""
    found: dict[int, object] = {}
    left: list[object] = [msgspec.inspect.type_info(kind)]
    while left:
        node = left.pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        if isinstance(node, (msgspec.inspect.Type, msgspec.inspect.Field)):
            left += [getattr(node, name) for name in node.__struct_fields__]
        elif isinstance(node, tuple):
            left += node
    return frozenset(type(node) for node in found.values())


def _search(event: object, name: str) -> None:
    """Naive times: nobody could say later which moment they meant. NaN and infinities: JSON makes them null."""
    try:
        plain = msgspec.to_builtins(event, builtin_types=(datetime.datetime, datetime.time))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the event {name!r} cannot be encoded as JSON: {error}") from error
    left = [plain]
    while left:
        value = left.pop()
        if isinstance(value, (datetime.datetime, datetime.time)) and value.tzinfo is None:
            raise InvalidInput(f"the event {name!r} has a datetime without a time zone ({value}): use an aware one")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(f"the event {name!r} has a number that JSON cannot carry: {value}")
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, (list, tuple)):
            left.extend(value)

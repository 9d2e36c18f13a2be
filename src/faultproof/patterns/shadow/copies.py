"""A copy of a request or an answer, which its owner may change meanwhile, in bounded time and memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

NODE_BYTES = 16
DEPTH_MAX = 64
_FIXED = frozenset({float, bool, type(None)})


class TooLarge(Exception):
    """It has more than it may have; how much more is not found out."""


def copied(value: Any, most: int) -> Any:
    """Containers anew, everything else as it is. Stops where it has counted more than `most` bytes, with `TooLarge`.

    Objects of other classes are counted, if they are dataclasses or msgspec's structs, and kept by reference: who changes
    them meanwhile changes what is compared.
    """
    return _copy(value, [most], 0)


def _copy(value: Any, left: list[int], depth: int) -> Any:
    kind = type(value)
    left[0] -= NODE_BYTES
    if kind is str or kind is bytes:
        left[0] -= len(value)
    elif kind is int:
        left[0] -= value.bit_length() >> 3
    if left[0] < 0 or depth > DEPTH_MAX:
        raise TooLarge
    if kind is dict:
        return _names(value, left, depth + 1)
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return kind(_each(value, left, depth + 1))
    if kind is bytearray or kind is memoryview:
        return bytes(_counted(value, len(value), left))
    if kind not in _FIXED and kind is not str and kind is not bytes and kind is not int:
        _count(value, left, depth)
    return value


def _names(value: dict[Any, Any], left: list[int], depth: int) -> dict[Any, Any]:
    """Most of what is copied are names and plain values: they are counted here, because a call for each costs most of all."""
    made, room = {}, left[0]
    for key, each in value.items():
        kind = type(each)
        if kind is str:
            room -= len(each) + NODE_BYTES
        elif kind is int:
            room -= (each.bit_length() >> 3) + NODE_BYTES
        elif kind in _FIXED:
            room -= NODE_BYTES
        else:
            left[0] = room
            each, room = _copy(each, left, depth), left[0]
        if type(key) is str:
            room -= len(key) + NODE_BYTES
        else:
            left[0] = room
            key, room = _copy(key, left, depth), left[0]
        if room < 0:
            raise TooLarge
        made[key] = each
    left[0] = room
    return made


def _each(values: Iterable[Any], left: list[int], depth: int) -> list[Any]:
    made, room = [], left[0]
    for each in values:
        kind = type(each)
        if kind is str:
            room -= len(each) + NODE_BYTES
        elif kind is int:
            room -= (each.bit_length() >> 3) + NODE_BYTES
        elif kind in _FIXED:
            room -= NODE_BYTES
        else:
            left[0] = room
            each, room = _copy(each, left, depth), left[0]
        if room < 0:
            raise TooLarge
        made.append(each)
    left[0] = room
    return made


def _counted(value: Any, size: int, left: list[int]) -> Any:
    left[0] -= size
    if left[0] < 0:
        raise TooLarge
    return value


def _count(value: Any, left: list[int], depth: int) -> None:
    """What is kept by reference weighs what is in it."""
    if isinstance(value, type):
        return
    names = getattr(value, "__struct_fields__", ())
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
    for name in names:
        _copy(getattr(value, name, None), left, depth + 1)
    if isinstance(value, str | bytes):
        _counted(value, len(value), left)
    elif isinstance(value, tuple | list | set | frozenset):
        for each in value:
            _copy(each, left, depth + 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            _copy(key, left, depth + 1)
            _copy(each, left, depth + 1)

"""A copy of a request or an answer, which its owner may change meanwhile, in bounded time and memory."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

NODE_BYTES = 16
DEPTH_MAX = 64


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
        return {_copy(key, left, depth + 1): _copy(each, left, depth + 1) for key, each in value.items()}
    if kind is list:
        return [_copy(each, left, depth + 1) for each in value]
    if kind is tuple:
        return tuple([_copy(each, left, depth + 1) for each in value])
    if kind is set or kind is frozenset:
        return kind([_copy(each, left, depth + 1) for each in value])
    if kind is bytearray or kind is memoryview:
        return bytes(_counted(value, len(value), left))
    _count(value, left, depth)
    return value


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

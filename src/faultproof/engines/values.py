"""Values in the form that every engine takes them: sets as JSON, and no text that a database would cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from faultproof.errors import InvalidInput

_encode = msgspec.json.Encoder().encode


def encode_set(values: Sequence[Any]) -> str:
    """The rows of a sequence parameter as one JSON array."""
    encoded = _encode(values)
    if b"\\u0000" in encoded:
        refuse_nul(values)
    return encoded.decode()


def refuse_nul(value: object) -> None:
    """Raise if a NUL character is anywhere inside: SQLite's json_each cuts the text there, PostgreSQL refuses it."""
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidInput("a text contains a NUL character, which databases cut or refuse: encode it first")
    elif isinstance(value, (list, tuple)):
        for item in value:
            refuse_nul(item)

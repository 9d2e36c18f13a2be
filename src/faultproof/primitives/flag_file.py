"""Flags from a file, TOML or JSON, that somebody edits, deploys or mounts."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from faultproof import bounds
from faultproof.errors import CannotOpen, InvalidInput
from faultproof.ports.database import News

FILE_BYTES_MAX = 1_048_576


class FlagFile:
    """The flags in a local file: `pricing.shadow = true`, or `shadow = true` in a table `[pricing]`.

    It is read at each look, because times and sizes of files do not tell of every change. A file that was renamed into place
    counts at once; one that is written in place when two looks have found the same, and never when it is empty: a half of it
    would be a file that says less. `shared`: names that are declared nowhere are no mistake.
    """

    def __init__(self, path: str | os.PathLike[str], *, look: float = 0.5, shared: bool = False) -> None:
        bounds.seconds("look", look)
        self._path = Path(path)
        kind = self._path.suffix
        if kind not in (".toml", ".json"):
            raise InvalidInput(f"a file of flags ends in .toml or .json, got {bounds.short(str(self._path))}")
        self._decode = _toml if kind == ".toml" else _json
        self.look = look
        self.is_shared = shared
        self._file: tuple[int, int] | None = None
        self._known: bytes | None = None
        self._pending: bytes | None = None

    def news(self) -> News | None:
        return None

    async def read(self) -> Mapping[str, object] | None:
        try:
            file, content = self._content()
        except OSError as error:
            self._known = None  # when it is back, what it says is to be looked at anew
            raise CannotOpen(f"the flags in {self._path} cannot be read: {error.strerror or error}") from error
        if content == self._known:
            self._pending = None
            return None
        if file == self._file and content != self._pending:
            self._pending = content  # somebody may be writing
            return None
        self._file, self._known, self._pending = file, content, None
        return self._flags(content)

    def _content(self) -> tuple[tuple[int, int], bytes]:
        with open(self._path, "rb") as file:
            status = os.fstat(file.fileno())
            return (status.st_dev, status.st_ino), file.read(FILE_BYTES_MAX + 1)

    def _flags(self, content: bytes) -> dict[str, object]:
        if len(content) > FILE_BYTES_MAX:
            raise InvalidInput(f"the flags in {self._path} are more than {FILE_BYTES_MAX:,} bytes")
        if not content.strip():
            raise InvalidInput(f"the flags in {self._path} are empty: delete what is said in it, not all of it")
        try:
            said = self._decode(content)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the flags in {self._path} cannot be understood: {error}") from error
        if not isinstance(said, dict):
            raise InvalidInput(f"the flags in {self._path} are no table of names")
        return dict(_flat(said, ""))


def _toml(content: bytes) -> Any:
    return tomllib.loads(content.decode())


def _json(content: bytes) -> Any:
    return msgspec.json.decode(content)


def _flat(said: dict[str, Any], above: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in said.items():
        found += _flat(value, f"{above}{name}.") if isinstance(value, dict) else [(above + name, value)]
    return found

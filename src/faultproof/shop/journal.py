"""The load generator's own journal: what it sent and what it was answered, on disk before it goes on.

The audit believes the tables and this file, and nothing that a process of the shop has counted.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from faultproof.clock import Env
from faultproof.errors import CannotOpen, DiskFull, StorageFailed
from faultproof.primitives.batcher import Batcher
from faultproof.shop.baskets import Basket, Line


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """An order is about to be sent for the first time."""

    key: str
    lines: list[Line]


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """An order was answered."""

    key: str
    status: int
    order: str | None
    """The order's id, if the status is 201."""


_decode = msgspec.json.Decoder(Sent | Answered).decode


class Journal:
    """Appends to the file.

    Promise: once `answered` has returned, that line and all before it are synced. Many lines share a sync: what arrived
    during the last one is the next batch.
    """

    def __init__(self, path: Path, env: Env) -> None:
        self._path = path
        try:
            self._file: BinaryIO = path.open("xb")
        except OSError as error:
            raise CannotOpen(f"the journal {path} cannot be made ({error.strerror}): name another directory") from error
        self._unsynced: list[bytes] = []
        self._batcher: Batcher[Answered, None] = Batcher(self._sync, env=env, name="journal")

    def sent(self, key: str, basket: Basket) -> None:
        """Note an order before it is sent; written with the next answer, at the latest its own."""
        self._unsynced.append(msgspec.json.encode(Sent(key, list(basket))))

    async def answered(self, answer: Answered) -> None:
        """Note an answer, and wait until it is on disk."""
        await self._batcher.submit(answer)

    async def close(self) -> None:
        """Write what is left."""
        await self._batcher.close()
        await self._sync([])
        self._file.close()

    async def _sync(self, answers: Sequence[Answered]) -> list[None]:
        lines, self._unsynced = self._unsynced, []
        lines.extend(map(msgspec.json.encode, answers))
        await asyncio.to_thread(self._write, b"".join(line + b"\n" for line in lines))
        return [None] * len(answers)

    def _write(self, text: bytes) -> None:
        try:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"the disk of the journal {self._path} is full: free some space") from error
            raise StorageFailed(f"the journal {self._path} cannot be written: {error.strerror}") from error


def read_journal(path: Path) -> list[Sent | Answered]:
    """What the journal says. A last line that was cut off was never waited for, so it does not count."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [_decode(line) for line in whole.split(b"\n") if line]

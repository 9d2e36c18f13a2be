"""PostgreSQL's wire protocol, as much of it as a proxy must understand to know a COMMIT when it sees one.

Version 3 (PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats"): behind the start-up each message is
a letter, a length that counts itself, and a body.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

KEPT_MAX = 65_536
"""Bytes of a body that are kept; of a longer one (a large value, COPY) the rest is passed over."""

_COMMIT = re.compile(rb"\s*(COMMIT|END)\b", re.IGNORECASE)
_BEGIN = re.compile(rb"\s*(BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_READS_ONLY = re.compile(rb"READ\s+ONLY", re.IGNORECASE)


class Message(NamedTuple):
    """One message: its letter, and its body or the beginning of it."""

    kind: str
    body: bytes


class Frames:
    """One direction of a connection, taken apart; holds at most `KEPT_MAX` bytes and a little."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole by now. Consume all of them before feeding again."""
        self._bytes += data
        while True:
            if self._skip:
                passed = min(self._skip, len(self._bytes))
                del self._bytes[:passed]
                self._skip -= passed
            if self._skip or len(self._bytes) < 5:
                return
            (length,) = struct.unpack_from("!I", self._bytes, 1)
            body = max(0, length - 4)
            kept = min(body, KEPT_MAX)
            if len(self._bytes) < 5 + kept:
                return
            message = Message(chr(self._bytes[0]), bytes(self._bytes[5 : 5 + kept]))
            del self._bytes[: 5 + kept]
            self._skip = body - kept
            yield message


class Speaker:
    """What a client says: which of its messages asks to commit a transaction that may write."""

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}  # bounded: by what the client keeps prepared; only BEGINs and COMMITs
        self._portals: dict[bytes, bytes] = {}  # bounded: likewise
        self._writes = True

    def commits(self, message: Message) -> bool:
        """Whether this message commits. Transactions that said READ ONLY do not count: nothing is lost with their answer."""
        match message.kind:
            case "Q":
                return self._runs(message.body)
            case "P":
                name, text = message.body.split(b"\0")[:2]
                self._remember(self._texts, name, text)
            case "B":
                portal, name = message.body.split(b"\0", 2)[:2]
                self._remember(self._portals, portal, self._texts.get(name, b""))
            case "E":
                return self._runs(self._portals.get(message.body.split(b"\0")[0], b""))
        return False

    def _runs(self, text: bytes) -> bool:
        if _BEGIN.match(text):
            self._writes = not _READS_ONLY.search(text)
        return self._writes and _COMMIT.match(text) is not None

    @staticmethod
    def _remember(known: dict[bytes, bytes], name: bytes, text: bytes) -> None:
        if _COMMIT.match(text) or _BEGIN.match(text):
            known[name] = text
        else:
            known.pop(name, None)


def has_committed(message: Message) -> bool:
    """Whether the server says so."""
    return message.kind == "C" and message.body == b"COMMIT\0"


def is_ready(message: Message) -> bool:
    """Whether the server has answered all that it was asked."""
    return message.kind == "Z"


def in_transaction(message: Message) -> bool:
    """Whether a server that is ready has a transaction open."""
    return message.body in (b"T", b"E")

"""A run's history: a file of JSON lines, each appended by one write, by any process of the run.

==========================================  ======================================================================
`{"run": …}`                               the first line: proof, planted bug, engine, order
`{"process": "api-1.0", "note": [kind …]}`  something was told to the outside
`{"process": …, "point": 7, "at": "…"}`    a numbered point was passed
`{"process": …, "died": "…", "again": …}`  its main function raised; `again`: it was told to try again
`{"process": …, "strikes": "kill:api-1:7"}`  it is about to strike itself
`{"world": "…"}`                           what the prover did
`{"outside": {…}}`                         the state of the services outside, at the end
`{"query": "…", "rows": […]}`              what the judgement read from the database, at the end
==========================================  ======================================================================

`s` is the machine's monotonic clock, in seconds. So the file alone is enough to judge the run once more (`load_evidence`).
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from faultproof.errors import InvalidInput
from faultproof.prove.live.orders import Point

LINE_MAX = 1_000_000
"""Bytes of one event."""
SIZE_MAX = 64_000_000
"""Bytes of a history; a run that writes more is ended."""
HISTORY_NAME = "history.jsonl"
"""Of the file, in the directory of its run."""
URL_VARIABLE = "FAULTPROOF_URL"
PATH_VARIABLE = "FAULTPROOF_HISTORY"
PROCESS_VARIABLE = "FAULTPROOF_PROCESS"
INCARNATION_VARIABLE = "FAULTPROOF_INCARNATION"


class History:
    """Appends events to the file, in the name of one process."""

    def __init__(self, path: Path, process: str | None = None) -> None:
        self._who = {} if process is None else {"process": process}
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, **event: Any) -> None:
        """Append one. Raises `InvalidInput` for what JSON cannot carry, or for too much."""
        try:
            line = msgspec.json.encode({"s": round(time.monotonic(), 6), **self._who, **event}, enc_hook=_cell) + b"\n"
        except (TypeError, msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise InvalidInput(f"a note must be what JSON can carry: {error}") from error
        if len(line) > LINE_MAX:
            raise InvalidInput(f"an event of {len(line):,} bytes is too much: at most {LINE_MAX:,}")
        os.write(self._file, line)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def note(kind: str, *facts: Any) -> None:
    """For a service of your own that the prover started (`--worker`): tell the outside something that cannot be taken back.

    Does nothing where no prover has started it, so that it may stay in your code.
    """
    path = os.environ.get(PATH_VARIABLE)
    if path is None:
        return
    who = f"{os.environ.get(PROCESS_VARIABLE, '')}.{os.environ.get(INCARNATION_VARIABLE, '0')}"
    history = History(Path(path), who)
    try:
        history.add(note=[kind, *facts])
    finally:
        history.close()


@dataclass
class Told:
    """What a history says, up to where it has been read."""

    notes: list[tuple[Any, ...]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    """Of the first incarnations: later ones count anew."""
    passed: dict[str, int] = field(default_factory=dict)
    """How many points each incarnation has passed."""
    deaths: list[tuple[str, str, bool]] = field(default_factory=list)
    """Who, of what, and whether it had been told to try again."""
    strikes: list[str] = field(default_factory=list)
    """Orders that processes carried out on themselves."""
    run: dict[str, Any] = field(default_factory=dict)
    outside: dict[str, Any] = field(default_factory=dict)
    queries: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def hear(self, event: Mapping[str, Any]) -> None:
        """One more event."""
        who = event.get("process", "")
        if "note" in event:
            self.notes.append(tuple(event["note"]))
        elif "point" in event:
            self.passed[who] = event["point"]
            name, _, incarnation = who.rpartition(".")
            if incarnation == "0":
                self.points.append(Point(name, event["point"], event["at"]))
        elif "strikes" in event:
            self.strikes.append(event["strikes"])
        elif "died" in event:
            self.deaths.append((who, event["died"], event["again"]))
        elif "query" in event:
            self.queries[event["query"]] = [tuple(_value(cell) for cell in row) for row in event["rows"]]
        elif "outside" in event:
            self.outside = event["outside"]
        elif "run" in event:
            self.run = event["run"]


class Reader:
    """Reads a history while others append to it."""

    def __init__(self, path: Path) -> None:
        self.told = Told()
        self.size = 0
        self._path = path
        self._rest = b""
        self._file = open(path, "rb")  # noqa: SIM115  # closed by `close`

    def read_on(self) -> Told:
        """What has come since; a line that is not whole yet waits. Raises `InvalidInput` for what is no history."""
        new = self._file.read(SIZE_MAX)
        self.size += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        try:
            for line in lines:
                self.told.hear(msgspec.json.decode(line, type=dict[str, Any]))
        except (ValueError, TypeError, KeyError, msgspec.MsgspecError, RecursionError) as error:
            raise InvalidInput(f"{str(self._path)!r} is not a history of a live run: {error}") from error
        return self.told

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class SavedEvidence:
    """Evidence from the file alone: a query is answered as it was when the run was judged."""

    def __init__(self, told: Told, path: Path) -> None:
        self.notes: Sequence[tuple[Any, ...]] = told.notes
        self.outside: Mapping[str, Any] = told.outside
        self.run: Mapping[str, Any] = told.run
        """Proof, planted bug, engine and order."""
        self._queries = told.queries
        self._path = path

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows that were seen. Raises `InvalidInput` for a query that was not made then: the proof has changed."""
        try:
            return self._queries[sql]
        except KeyError:
            raise InvalidInput(
                f"{str(self._path)!r} has no answer to a query of this proof: it was judged by another release of it"
            ) from None


def load_evidence(path: Path) -> SavedEvidence:
    """What a saved run left behind. Raises `InvalidInput` for what is no history, or one that is too large."""
    try:
        if path.stat().st_size > SIZE_MAX:
            raise InvalidInput(f"{str(path)!r} is too large: at most {SIZE_MAX:,} bytes")
        reader = Reader(path)
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror}") from error
    try:
        told = reader.read_on()
    finally:
        reader.close()
    if not told.run:
        raise InvalidInput(f"{str(path)!r} is not a history of a live run: it does not begin with one")
    return SavedEvidence(told, path)


def encodable(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows as JSON can carry them; `hear` makes of them what they were."""
    return [[_cell(cell) for cell in row] for row in rows]


def _cell(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if value is None or isinstance(value, (bool, int, float, str, list, dict)):
        return value
    raise TypeError(f"{type(value).__name__} is none of JSON's")


def _value(cell: Any) -> Any:
    if isinstance(cell, dict) and len(cell) == 1:
        if "base64" in cell:
            return base64.b64decode(cell["base64"])
        if "decimal" in cell:
            return Decimal(cell["decimal"])
    return cell

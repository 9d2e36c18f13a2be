"""Histories: what was called, when it was answered, and with what; one JSON object a line.

::

    {"type": "invoke", "process": "api-1", "op": "write", "value": 3, "key": "x"}
    {"type": "ok", "process": "api-1", "op": "write", "value": 3, "key": "x"}

An operation begins with `invoke` and ends with `ok` (it happened), `fail` (it had no effect, for certain) or `info`
(nobody knows). One that never ends counts as `info`: its process may have died, and the effect may still come, at any
time after the call, or never. The order of the lines is the order of events; `time` (seconds) is for people.

A process has one operation at a time. The form is Jepsen's (K. Kingsbury), as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec

from faultproof.errors import InvalidInput
from faultproof.prove.checkers.values import frozen, shown

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Key: TypeAlias = str | int | None
Tell: TypeAlias = Callable[[int], object]
"""Hears now and then how far a reader or a search has come."""
_TELL_EVERY = 10_000


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line. A misspelt field is refused: ignored, it could turn a verdict."""

    type: Literal["invoke", "ok", "fail", "info"]
    process: Name | int
    op: Name
    """What was called: "write"."""
    value: Any = None
    """Of `invoke` the argument, of `ok` the answer; otherwise nobody reads it."""
    key: Name | int | None = None
    """Which of several independent objects it is about."""
    time: float | None = None


class Call(NamedTuple):
    """What a model sees of an operation: nothing that could tell two equal ones apart."""

    function: str
    argument: Hashable = None
    result: Hashable = None
    """None if there was no answer, too."""
    answered: bool = True
    """False: nobody knows what it returned, and a model must take any result for possible."""

    def __str__(self) -> str:
        argument = "" if self.argument is None else f" {shown(self.argument)}"
        if not self.answered:
            return f"{self.function}{argument} → ?"
        plain = self.argument is not None and self.result in (None, self.argument)
        return f"{self.function}{argument}" + ("" if plain else f" → {shown(self.result)}")


@dataclass(frozen=True, slots=True)
class Operation:
    """A call with its answer, if there was one that says that it happened."""

    process: str
    key: Key
    call: Call
    called: int
    """The line of the call; lines are in order of time."""
    returned: int | None = None
    """The line of the answer; None if it may take effect at any time, or never."""


@dataclass(frozen=True, kw_only=True)
class History:
    """What a file says."""

    operations: tuple[Operation, ...]
    """In order of their calls; without those that failed, which had no effect."""
    failed: int = 0
    notes: tuple[str, ...] = ()
    """What a reader must know about the file: a last line that is cut off."""


@dataclass(frozen=True, kw_only=True)
class FileLimits:
    """What is read at most. More is refused, in a sentence that names the limit."""

    file_bytes: int = 100_000_000
    line_bytes: int = 65_536
    operations: int = 200_000


class Line(NamedTuple):
    """A line of a file, by its number from 1."""

    number: int
    text: bytes
    is_whole: bool
    """It ends with a newline. The last line of a process that was killed may not."""


def read_history(path: Path, limits: FileLimits | None = None, tell: Tell = lambda _: None) -> History:
    """The history in a JSONL file. A last line that a kill has cut off is left out, and noted. `tell` hears of lines.

    :raises InvalidInput: for what is no history, names the line; and for more than the limits allow.
    """
    limits = limits or FileLimits()
    notes: list[str] = []
    return paired(_events(lines_of(path, limits, tell), path, notes), limits=limits, notes=notes)


def _events(lines: Iterable[Line], path: Path, notes: list[str]) -> Iterator[tuple[int, Entry]]:
    decode = msgspec.json.Decoder(Entry).decode
    for line in lines:
        if not line.text.strip():
            continue
        try:
            yield line.number, decode(line.text)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            if not line.is_whole:
                notes.append(f"line {line.number} is cut off, as a kill leaves it, and left out")
                return
            raise InvalidInput(f"{str(path)!r}, line {line.number}, is no event of a history: {error}") from error


def lines_of(path: Path, limits: FileLimits, tell: Tell) -> Iterator[Line]:
    """The lines of a file, one at a time. Raises `InvalidInput` for what cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            size, number = os.fstat(file.fileno()).st_size, 0  # of a pipe nothing is known before it is read
            read_bytes = 0
            while size <= limits.file_bytes and (text := file.readline(limits.line_bytes + 1)):
                number += 1
                read_bytes += len(text)
                if len(text) > limits.line_bytes:
                    raise InvalidInput(
                        f"{str(path)!r}, line {number}, is longer than {limits.line_bytes:,} bytes: no event of a history is"
                    )
                if read_bytes > limits.file_bytes:
                    break
                if number % _TELL_EVERY == 0:
                    tell(number)
                yield Line(number, text, text.endswith(b"\n"))
            if max(size, read_bytes) > limits.file_bytes:
                raise InvalidInput(f"{str(path)!r} is larger than {limits.file_bytes:,} bytes: judge it in parts")
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"the history {str(path)!r} cannot be read: {why}") from error


def paired(
    events: Iterable[tuple[int, Entry]], *, limits: FileLimits | None = None, notes: Iterable[str] = ()
) -> History:
    """Calls with their answers, from events in order of time, each with a number that grows.

    :raises InvalidInput: for an answer without a call, and for a call of a process that has not been answered yet.
    """
    most = (limits or FileLimits()).operations
    open_calls: dict[str | int, tuple[int, Entry]] = {}
    done: list[Operation] = []
    failed = 0
    for number, event in events:
        if event.type == "invoke":
            if event.process in open_calls:
                raise InvalidInput(
                    f"line {number}: process {event.process!r} calls while its call of line {open_calls[event.process][0]} "
                    "is not answered; after a death it needs another name, or an `info` first"
                )
            open_calls[event.process] = number, event
            if len(done) + len(open_calls) + failed > most:
                raise InvalidInput(f"there are more than {most:,} operations: judge them in parts")
            continue
        called, invoked = _call_of(open_calls, number, event)
        if event.type == "fail":
            failed += 1
        else:
            done.append(_operation(called, invoked, number if event.type == "ok" else None, event.value))
    done.extend(_operation(called, invoked) for called, invoked in open_calls.values())
    done.sort(key=lambda each: each.called)
    return History(operations=tuple(done), failed=failed, notes=tuple(notes))


def _call_of(open_calls: dict[str | int, tuple[int, Entry]], number: int, event: Entry) -> tuple[int, Entry]:
    found = open_calls.pop(event.process, None)
    if found is None:
        raise InvalidInput(
            f"line {number}: process {event.process!r} is answered ({event.type}) and has called nothing"
        )
    called, invoked = found
    if event.op != invoked.op or event.key not in (None, invoked.key):
        raise InvalidInput(
            f"line {number}: process {event.process!r} is answered another call than that of line {called}"
        )
    return found


def _operation(called: int, invoked: Entry, returned: int | None = None, result: object = None) -> Operation:
    answered = returned is not None
    call = Call(invoked.op, frozen(invoked.value), frozen(result) if answered else None, answered)
    return Operation(str(invoked.process), invoked.key, call, called, returned)

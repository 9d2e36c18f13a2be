"""Histories as Jepsen prints them into its log: one event a line, of one register.

::

    INFO  jepsen.util - 2\t:invoke\t:cas\t[3 0]
    INFO  jepsen.util - 2\t:fail\t:cas\t[3 0]
    INFO  jepsen.util - 7\t:info\t:write\t:timed-out

What other programs and the nemesis wrote into the log is passed over. `:fail` with a `:cas` and its own value says that
the register held something else, which is an observation; every other `:fail` says that nothing happened. (So read the
tests of Porcupine, from which the verdicts on etcd's well-known histories come.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from faultproof.errors import InvalidInput
from faultproof.prove.checkers.history import Entry, FileLimits, History, Line, Tell, lines_of, paired

_EVENT = re.compile(
    r"\bjepsen\.(?:util|core)\b\W*?\s(?P<process>\d+)\s+:(?P<type>invoke|ok|fail|info)\s+:(?P<op>[\w-]+)\s+(?P<value>.*)"
)
_NUMBER = re.compile(r"-?\d{1,18}")
_LIST = re.compile(r"\[([^\[\]]*)\]")
_WORD = re.compile(r':[\w./-]+|"[^"\\]*"')


def read_jepsen_log(path: Path, limits: FileLimits | None = None, tell: Tell = lambda _: None) -> History:
    """The history in such a log. A last line without its end is left out, and noted.

    :raises InvalidInput: for an event that makes no sense, by its line; and for a log without any event.
    """
    limits = limits or FileLimits()
    notes: list[str] = []
    return paired(_events(lines_of(path, limits, tell), path, notes), limits=limits, notes=notes)


def _events(lines: Iterable[Line], path: Path, notes: list[str]) -> Iterator[tuple[int, Entry]]:
    others, own = 0, 0
    invoked: dict[str, object] = {}
    for line in lines:
        if not line.is_whole:
            notes.append(f"line {line.number} has no end, as a kill leaves it, and is left out")
            break
        found = _EVENT.search(line.text.decode("utf-8", "replace").rstrip())
        if found is None:
            others += 1
            continue
        own += 1
        process, type, op = found["process"], found["type"], found["op"]
        value = _value(found["value"], line.number)
        if type == "invoke":
            invoked[process] = value
        elif type == "fail" and op == "cas" and value == invoked.get(process):
            type, value = "ok", False
        yield line.number, Entry(type=type, process=process, op=op, value=value)  # type: ignore[arg-type]
    if others and not own:
        raise InvalidInput(f"{str(path)!r} is no log of Jepsen's: none of its lines is an event")


def _value(text: str, number: int) -> object:
    if text == "nil":
        return None
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return int(text)
    if found := _LIST.fullmatch(text):
        return [_value(each, number) for each in found[1].replace(",", " ").split()]
    if _WORD.fullmatch(text):
        return text.strip('"')
    raise InvalidInput(f"line {number}: {text[:60]!r} is no value of a register")

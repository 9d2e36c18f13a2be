"""Logs of Jepsen's: events among other lines, with the words it uses for what nobody knows."""

from pathlib import Path
from random import Random

import pytest

from faultproof.errors import InvalidInput
from faultproof.prove.checkers.history import Entry, History
from faultproof.prove.checkers.jepsen import read_jepsen_log
from faultproof.prove.checkers.linearizability import judge
from faultproof.prove.checkers.models import CasRegister
from faultproof.prove.checkers.search import search
from tests.prove.checkers.histories import KINDS, PATIENT, random_events, random_history

STALE = """\
INFO  jepsen.core - Worker 0 starting
INFO  jepsen.util - 0\t:invoke\t:write\t1
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
INFO  jepsen.util - 0\t:ok\t:write\t1
INFO  jepsen.util - 1\t:invoke\t:cas\t[0 3]
INFO  jepsen.util - 2\t:invoke\t:read\tnil
INFO  jepsen.util - 2\t:fail\t:read\t:timed-out
INFO  jepsen.util - 1\t:fail\t:cas\t[0 3]
INFO  jepsen.util - 3\t:invoke\t:cas\t[1 2]
INFO  jepsen.util - 3\t:info\t:cas\t:timed-out
INFO  jepsen.util - 2\t:invoke\t:read\tnil
INFO  jepsen.util - 2\t:ok\t:read\t2
INFO  jepsen.util - 2\t:invoke\t:read\tnil
INFO  jepsen.util - 2\t:ok\t:read\t1
"""


def read(tmp_path: Path, text: str) -> History:
    path = tmp_path / "jepsen.log"
    path.write_text(text, encoding="utf-8")
    return read_jepsen_log(path)


def printed(event: Entry) -> str:
    """As Jepsen prints it, `nil`, vectors and time-outs included."""
    type, value = event.type, event.value
    if event.op == "cas" and event.type == "ok":
        type, value = ("ok" if value is not False else "fail"), ARGUMENTS[event.process]
    elif event.type in ("info", "fail"):
        value = ":timed-out"
    if event.type == "invoke":
        ARGUMENTS[event.process] = value
    shown = "nil" if value is None else f"[{value[0]} {value[1]}]" if isinstance(value, list) else str(value)
    return (
        f"INFO  jepsen.util - {str(event.process).replace('p', '1').replace('q', '2')}\t:{type}\t:{event.op}\t{shown}\n"
    )


ARGUMENTS: dict[object, object] = {}


def test_log_is_read_with_what_it_says_about_failures(tmp_path: Path) -> None:
    history = read(tmp_path, STALE)
    assert history.failed == 1
    assert [str(each.call) for each in history.operations] == [
        "write 1",
        "cas [0,3] → false",
        "cas [1,2] → ?",
        "read → 2",
        "read → 1",
    ]
    part = judge(history, CasRegister(), PATIENT).objects[0].part
    assert part is not None
    assert [str(each.call) for each in part.operations] == ["read → 2", "read → 1"]


def test_refused_cas_is_an_observation_and_one_that_timed_out_is_none(tmp_path: Path) -> None:
    log = "jepsen.util - 0 :invoke :cas [nil 3]\njepsen.util - 0 :fail :cas {}\n"
    for value, calls in (("[nil 3]", ["cas [null,3] → false"]), (":timed-out", [])):
        history = read(tmp_path, log.format(value))
        assert [str(each.call) for each in history.operations] == calls
        assert judge(history, CasRegister()).verdict.value == ("not linearizable" if calls else "unknown")


def test_verdicts_are_those_of_the_same_history_in_our_form(tmp_path: Path) -> None:
    kind = KINDS["cas-register"]._replace(lies=(None, 1, 2))  # reads lie; a cas that did would print a value
    verdicts = set()
    for seed in range(100):
        events = list(random_events(kind, Random(seed), 8))
        if any(each.op == "cas" and each.type == "ok" and not isinstance(each.value, bool) for each in events):
            continue
        history = read(tmp_path, "".join(map(printed, events)))
        found = search(history.operations, kind.model)
        assert found.verdict is search(random_history(kind, Random(seed), 8).operations, kind.model).verdict
        verdicts.add(found.verdict.value)
    assert verdicts == {"linearizable", "not linearizable"}


@pytest.mark.parametrize(
    "line",
    [
        "INFO  jepsen.util - 0\t:invoke\t:write\t1",
        "2016-01-02 10:00:00,123 INFO jepsen.util: 0 :invoke :write 1",
        "INFO [2019-03-04 10:00:00,123] jepsen worker 0 - jepsen.util 0\t:invoke\t:write\t1\r",
        'INFO  jepsen.util - 0 :invoke :write "a b"',
        "INFO  jepsen.util - 0 :invoke :write -17",
    ],
)
def test_ways_to_print_an_event(tmp_path: Path, line: str) -> None:
    (operation,) = read(tmp_path, f"{line}\n").operations
    assert (operation.process, operation.call.function, operation.returned) == ("0", "write", None)


def test_log_without_any_event_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no log of Jepsen's: none of its lines is an event"):
        read(tmp_path, "# Some other file\n\nwith text\n")
    assert read(tmp_path, "").operations == ()


@pytest.mark.parametrize("value", ["{:a 1}", "[1 [2 3]]", "1 2", "#<Object>", "9" * 5_000])
def test_value_that_no_register_has_is_named_by_its_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^line 2: .* is no value of a register$"):
        read(tmp_path, f"\njepsen.util - 0 :invoke :write {value}\n")


def test_last_line_without_its_end_is_left_out_and_said(tmp_path: Path) -> None:
    """A read of 12 may have been cut to a read of 1."""
    history = read(tmp_path, STALE.removesuffix("\n"))
    assert history.notes == ("line 14 has no end, as a kill leaves it, and is left out",)
    assert judge(history, CasRegister()).verdict.value == "linearizable"

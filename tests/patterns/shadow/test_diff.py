"""Differences are found place by place, and kept without what was in them."""

import dataclasses
import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

import faultproof as fp
from faultproof.errors import InvalidInput
from faultproof.patterns.shadow.copies import TooLarge, copied
from faultproof.patterns.shadow.findings import Ended, Findings, is_noise
from faultproof.patterns.shadow.policy import ShadowPolicy

SALT = b"salt"


def places(diff: fp.Diff, one: Any, other: Any) -> list[tuple[str, str]]:
    return [(each.path, each.kind) for each in diff.compare(one, other)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": True}, [("$.a", "type")]),
        ({"a": 1}, {"a": "1"}, [("$.a", "type")]),
        ({"a": None}, {}, [("$.a", "missing")]),
        ({}, {"a": None}, [("$.a", "added")]),
        ([1, 2, 3], [1, 5, 3], [("$[*]", "value")]),
        ([1, 2], [1, 2, 3], [("$", "length")]),
        ({"lines": [{"price": 1}]}, {"lines": [{"price": 2}]}, [("$.lines[*].price", "value")]),
        ({"bob@example.com": 1, "c-1234": 2}, {"bob@example.com": 2, "c-1234": 3}, [("$.*", "value")] * 2),
        (float("nan"), float("nan"), []),
        ({"x": {3, 1, 2}}, {"x": {2, 3, 1}}, []),
        (Decimal("1.10"), Decimal("1.1"), [("$", "value")]),
        (datetime.date(2026, 1, 1), datetime.date(2026, 1, 1), []),
    ],
)
def test_places_and_kinds(one: Any, other: Any, expected: list[tuple[str, str]]) -> None:
    assert places(fp.Diff(), one, other) == expected


def test_objects_are_compared_by_their_fields() -> None:
    @dataclasses.dataclass
    class Price:
        total: int
        at: float

    class Row(msgspec.Struct):
        total: int
        at: float

    assert places(fp.Diff(), Price(1, 2.0), {"total": 1, "at": 2.0}) == []
    assert places(fp.Diff(ignore=["$.at"]), Price(1, 2.0), Row(2, 3.0)) == [("$.total", "value")]


def test_what_is_said_to_mean_nothing_is_no_difference() -> None:
    one = {"at": 1, "lines": [{"id": 1, "n": 1.0}], "tags": ["a", "b"], "users": {"bob": {"age": 1}}}
    other = {"at": 2, "lines": [{"id": 2, "n": 1.0001}], "tags": ["b", "a"], "users": {"bob": {"age": 2}}}
    assert len(places(fp.Diff(), one, other)) == 6
    diff = fp.Diff(ignore=["$.at", "$.lines[*].id"], unordered=["$.tags"], maps=["$.users"], tolerance=0.001)
    assert places(diff, one, other) == [("$.users.*.age", "value")]
    assert places(fp.Diff(ignore=["$"]), one, other) == []
    assert places(fp.Diff(ignore=["$.*"]), one, other) == []


@pytest.mark.parametrize("path", ["at", "$at", "$.a..b", "$.a[0]", "$.", ""])
def test_a_path_that_could_never_fit_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="has paths such as"):
        fp.Diff(ignore=[path])
    with pytest.raises(InvalidInput, match="is a list of paths"):
        fp.Diff(ignore="$.at")


def test_nothing_of_a_value_is_kept_unless_its_path_is_shown() -> None:
    one = {"card": "4111111111111111", "pin": 1234, "user": {"bob@example.com": "x"}, "total": 10, "list": ["secret"]}
    other = {"card": "4222222222222222", "pin": 1235, "user": {"bob@example.com": "y"}, "total": 20, "list": []}
    diff = fp.Diff(show=["$.total"])
    findings = Findings(ShadowPolicy(), diff, SALT)
    findings.ended(Ended(one, None, 0.1), Ended(other, None, 0.1))
    assert findings.compare(Ended(one, None, 0.1), Ended(other, None, 0.1), None)
    report = findings.report(offered=1, waiting=0, running=0, left=0)
    kept = {each.path: each.samples[0] for each in report.paths}
    assert kept["$.total"] == ("value", "10", "20")
    assert kept["$.card"].primary.startswith("string of 16 #")
    assert kept["$.list"].candidate.startswith("array of 0 #")
    for secret in ("4111", "4222", "1234", "bob", "secret", "example"):
        assert secret not in repr(report)


def test_a_hash_of_what_was_redacted_says_nothing_in_another_process() -> None:
    (difference,) = fp.Diff().compare({"pin": 1234}, {"pin": 1235})
    one, again, other = (fp.Diff().redacted(difference, salt) for salt in (SALT, SALT, b"another"))
    assert one == again
    assert one.primary != one.candidate
    assert one.primary != other.primary


def test_places_samples_and_differences_are_bounded() -> None:
    findings = Findings(ShadowPolicy(paths=5, samples=2), fp.Diff(), SALT)
    for n in range(20):
        one = {f"key_{'abcdefghij'[each]}": n for each in range(10)}
        findings.compare(Ended(one, None, 0.1), Ended({}, None, 0.1), None)
    report = findings.report(offered=20, waiting=0, running=0, left=0)
    assert len(report.paths) == 6
    assert {len(each.samples) for each in report.paths} == {2}
    assert (report.differing, report.different) == (20, 20)
    assert len(fp.Diff().compare(list(range(5_000)), list(range(1, 5_001)))) == 100


@pytest.mark.parametrize(
    ("differences", "compared", "noise", "controlled", "expected"),
    [
        (1, 1_000, 0, 100, False),  # the control never did that
        (100, 100, 10, 10, True),  # always, and always by itself
        (500, 1_000, 48, 100, True),  # half the time, like by itself
        (1_000, 1_000, 50, 100, False),  # always, and by itself half the time
        (60, 1_000, 1, 100, True),
        (300, 1_000, 1, 100, False),
    ],
)
def test_noise_is_what_differs_as_often_by_itself(
    differences: int, compared: int, noise: int, controlled: int, expected: bool
) -> None:
    assert is_noise(differences, compared, noise, controlled) is expected


@pytest.mark.parametrize(
    "value",
    ["x" * 1_001, b"x" * 1_001, [0] * 64, {n: n for n in range(40)}, [["x" * 100] * 10], 1 << 10_000, bytearray(1_001)],
)
def test_a_copy_stops_where_it_is_too_large(value: Any) -> None:
    with pytest.raises(TooLarge):
        copied(value, 1_000)


def test_what_is_endless_is_too_large() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TooLarge):
        copied(endless, 16_000_000)


def test_a_copy_is_equal_and_shares_nothing_that_changes() -> None:
    value = {"a": [1, (2, [3])], "b": {"c": {4}}, "d": "x", 5: None}
    copy = copied(value, 10_000)
    assert copy == value
    value["a"][1][1].append(9)  # type: ignore[index]
    assert copy["a"] == [1, (2, [3])]

"""Sagas in the specification's YAML, against services on real sockets."""

import builtins
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import faultproof as fp
from faultproof.errors import InvalidInput, MissingExtra
from faultproof.ports.database import Database
from tests.conformance.engines import Engine
from tests.patterns.saga.provider import serving
from tests.patterns.saga.shop import running

pytestmark = pytest.mark.anyio

SPECIFICATION = """
saga_definition:
  name: "order_fulfillment"
  steps:
    - service: "payment"
      action: "charge_card"
      compensation: "refund_card"
    - service: "inventory"
      action: "reserve_items"
      compensation: "release_items"
    - service: "shipping"
      action: "create_shipment"
      compensation: "cancel_shipment"
"""
SERVICES = ("payment", "inventory", "shipping")
STUMBLES = (
    *("!!bool x", "!!int x", "!!float x", "!!timestamp x", "!!binary x", "!!set [a]", "!!x y", "2024-99-99", "\ud800"),
    *("2001-12-14 21:59:43.10 +99:99", "9" * 5_000, "!!python/name:os.system", "[]", "{}", "\0"),
)
"""What PyYAML's safe loader raises all kinds of errors at, and what is no name."""
QUICKLY = SPECIFICATION.replace('_card"\n    -', '_card"\n      retry: {attempts: 3, base: 0, cap: 0}\n    -')


async def test_the_specification_s_definition_calls_its_services_in_order(engine: Engine, db: Database) -> None:
    async with serving() as provider, fp.Services(dict.fromkeys(SERVICES, provider.url)) as services:
        provider.on["/api/charge_card"] = lambda number: (201, "", b'{"charge": "ch-1"}')
        saga = fp.saga_from_yaml(db, SPECIFICATION, services)
        await saga.install()
        async with running(saga):
            await saga.start("o-1", {"item": "milk"})
            outcome = await saga.wait("o-1")
    assert isinstance(outcome, fp.Completed)
    assert provider.paths() == ["/api/charge_card", "/api/reserve_items", "/api/create_shipment"]
    assert provider.asked[1].body == {
        "saga": "order_fulfillment",
        "id": "o-1",
        "step": "reserve_items",
        "input": {"item": "milk"},
        "results": {"charge_card": {"charge": "ch-1"}},
    }
    assert provider.asked[1].headers["idempotency-key"] == "order_fulfillment/o-1/reserve_items"


async def test_a_refusal_calls_the_compensations_with_their_results(engine: Engine, db: Database) -> None:
    async with serving() as provider, fp.Services(dict.fromkeys(SERVICES, provider.url)) as services:
        provider.on["/api/charge_card"] = lambda number: (200, "", b'{"charge": "ch-1"}')
        provider.on["/api/create_shipment"] = lambda number: (422, "", b"nobody ships there")
        saga = fp.saga_from_yaml(db, SPECIFICATION, services)
        await saga.install()
        async with running(saga):
            await saga.start("o-1", {})
            outcome = await saga.wait("o-1")
    assert isinstance(outcome, fp.Compensated)
    assert "answered 422: nobody ships there" in outcome.reason
    assert provider.paths()[3:] == ["/api/release_items", "/api/refund_card"]
    assert provider.asked[-1].body["result"] == {"charge": "ch-1"}
    assert provider.asked[-1].body["undone_key"] == "order_fulfillment/o-1/charge_card"
    assert provider.asked[-1].headers["idempotency-key"] == "order_fulfillment/o-1/charge_card/undo"


@pytest.mark.parametrize(
    ("answer", "calls", "is_undone"),
    [
        ((503, "", b""), 3, True),
        ((302, "Location: http://127.0.0.1:1/\r\n", b""), 3, True),
        ((200, "", b"<html>"), 3, True),
        ((200, "", b"[1]"), 3, True),
        ((200, "", b'{"a": "' + b"x" * 300_000 + b'"}'), 3, True),
        (None, 3, True),
        ((400, "", b"no"), 1, False),
        ((429, "Retry-After: 0\r\n", b"later"), 3, False),
        ((409, "", b"still at it"), 3, False),
    ],
    ids=["503", "redirect", "html", "list", "too much", "cut", "400", "429", "409"],
)
async def test_what_answers_mean(
    engine: Engine, db: Database, answer: tuple[int, str, bytes] | None, calls: int, is_undone: bool
) -> None:
    async with serving() as provider, fp.Services(dict.fromkeys(SERVICES, provider.url)) as services:
        provider.on["/api/charge_card"] = lambda number: answer
        saga = fp.saga_from_yaml(db, QUICKLY, services)
        await saga.install()
        async with running(saga):
            await saga.start("o-1", {})
            assert isinstance(await saga.wait("o-1"), fp.Compensated)
    assert provider.paths() == ["/api/charge_card"] * calls + ["/api/refund_card"] * is_undone
    assert len({each.headers["idempotency-key"] for each in provider.asked[:calls]}) == 1
    if is_undone:
        assert provider.asked[-1].body["result"] is None


async def test_an_answer_that_is_lost_once_is_asked_for_again_with_the_same_key(engine: Engine, db: Database) -> None:
    async with serving() as provider, fp.Services(dict.fromkeys(SERVICES, provider.url)) as services:
        provider.on["/api/charge_card"] = lambda number: None if number == 1 else (200, "", b"")
        saga = fp.saga_from_yaml(db, QUICKLY, services)
        await saga.install()
        async with running(saga):
            await saga.start("o-1", {})
            assert isinstance(await saga.wait("o-1"), fp.Completed)
    assert provider.paths().count("/api/charge_card") == 2


async def test_groups_pivots_and_nothing_to_undo_can_be_said(db: Database) -> None:
    text = """
saga_definition:
  name: grouped
  version: 3
  steps:
    - {service: a, action: one, compensation: none, timeout: 2.5, retry: {attempts: 9}}
    - group:
        - {service: a, action: two, compensation: back}
        - {service: a, action: two, name: three, compensation: back}
    - {service: a, action: four, pivot: true}
    - {service: a, action: five}
"""
    async with fp.Services({"a": "http://localhost:1"}) as services:
        saga = fp.saga_from_yaml(db, text, services)
    assert saga.definition.shape.lines() == [
        "1. one (remote, nothing to undo)",
        "2. two (remote)",
        "2. three (remote)",
        "3. four (remote, pivot, nothing to undo)",
        "4. five (remote, nothing to undo)",
    ]
    assert saga.definition.version == 3
    assert saga.definition.steps["one"].timeout == 2.5
    assert saga.definition.steps["one"].retry.attempts == 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be used"),
        ("x: [", "cannot be used"),
        ("saga_definition: {name: x, steps: [], colour: red}", "unknown field `colour`"),
        ("saga_definition: {steps: []}", "missing required field `name`"),
        ("saga_definition: {name: x}", "missing required field `steps`"),
        ("saga_definition: {name: x, steps: []}", "1 to 100 steps"),
        ("saga_definition: {name: x, steps: [{service: a}]}", "missing required field `action`"),
        ("saga_definition: {name: x, steps: [{service: a, action: b, undo: c}]}", "unknown field `undo`"),
        ("saga_definition: {name: x, steps: [{service: a, action: b}]}", "'b' has no undo"),
        ("saga_definition: {name: x, steps: [{service: z, action: b, compensation: c}]}", "'z' has no URL"),
        ("saga_definition: {name: x, steps: [{service: a, action: ../b, compensation: c}]}", "letters, digits"),
        ("saga_definition: {name: x, steps: [{service: a, action: b, compensation: c, timeout: 0}]}", "`timeout`"),
        ("saga_definition: {name: x, steps: [{service: a, action: b, compensation: c, timeout: x}]}", "step 1"),
        ("saga_definition: {name: x, steps: [{group: 7}]}", "a group is a list"),
        ("saga_definition: {name: x, steps: [{group: [7]}]}", "is a mapping"),
        ("saga_definition: {name: x, steps: [7]}", "cannot be used"),
        ("a: &a [x]\nb: *a", "no anchors"),
        ("saga_definition: !!python/object/apply:os.system [ls]", "cannot be used"),
        *((f"saga_definition: {{name: {value}, steps: []}}", "cannot be used") for value in STUMBLES),
        ("x: " + "[" * 10_000, "cannot be used"),
        ("#" * 262_145, "up to 262144 bytes"),
        *((value, "is a text") for value in (7, None, b"saga_definition: {}", ["x"])),
    ],
)
async def test_a_definition_that_cannot_be_used_is_refused(db: Database, text: Any, words: str) -> None:
    async with fp.Services({"a": "http://localhost:1"}) as services:
        with pytest.raises(InvalidInput, match=words):
            fp.saga_from_yaml(db, text, services)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # nothing is stored
async def test_whatever_is_written_into_a_definition_it_is_used_or_refused_with_a_sentence(db: Database) -> None:
    async with fp.Services(dict.fromkeys(SERVICES, "http://localhost:1")) as services:

        @settings(max_examples=60, deadline=None)
        @given(
            place=st.integers(0, len(QUICKLY)),
            length=st.integers(0, 12),
            written=st.text(max_size=12)
            | st.sampled_from([*STUMBLES, "[", "{", "? ", ": ", "- ", "!", "|", ">", "\t"]),
        )
        def rewrite(place: int, length: int, written: str) -> None:
            with suppress(InvalidInput):
                fp.saga_from_yaml(db, QUICKLY[:place] + written + QUICKLY[place + length :], services)

        rewrite()


@pytest.mark.parametrize("url", ["", "localhost", "ftp://a", "http://", "http://a:x", "http://a?b=c", "http://a\n", 7])
def test_a_service_s_url_that_is_none_is_refused(url: Any) -> None:
    with pytest.raises(InvalidInput, match="the URL of service 'a'"):
        fp.Services({"a": url})


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "httpx":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "httpx", raising=False)
    with pytest.raises(MissingExtra, match=r"faultproof\[saga\]"):
        fp.Services({})

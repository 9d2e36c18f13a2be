"""Endpoints: who of a group may get a call, what happens when nobody may, and how busy each is. Time is the test's."""

import math
from typing import Any

import pytest

from faultproof.errors import InvalidInput
from faultproof.primitives.endpoints import DECAY_S, ENDPOINTS_MAX, Endpoint, Endpoints
from faultproof.signals import ENDPOINTS_USABLE, Signals
from tests.fakes import Recorder, env_of

NOW = 1_000.0


def group_of(*names: str) -> tuple[Endpoints, list[Endpoint], Recorder]:
    recorder = Recorder()
    endpoints = [Endpoint(name) for name in names]
    return Endpoints(env_of(signals=Signals(sinks=[recorder])), endpoints, name="tills"), endpoints, recorder


def call(endpoint: Endpoint, took_s: float, now: float, *, is_ok: bool = True) -> None:
    endpoint.begin()
    endpoint.end(took_s, is_ok, now)


# --- who may get a call -----------------------------------------------------------------------------------------------


def test_what_drains_is_ejected_or_unhealthy_is_left_out_until_it_is_not() -> None:
    group, (a, b, c), recorder = group_of("a", "b", "c")
    assert group.usable(NOW) == [a, b, c]
    b.is_draining = True
    assert group.usable(NOW) == [a, c]
    c.is_healthy = False
    assert group.usable(NOW) == [a]
    c.is_healthy = True
    b.is_draining = False
    assert group.usable(NOW) == [a, b, c]
    a.eject(NOW + 5.0)
    b.eject(NOW + 3.0)
    b.eject(NOW + 1.0)  # somebody else thinks so, too
    assert group.usable(NOW) == [c]
    assert group.usable(NOW + 2.999) == [c]
    assert group.usable(NOW + 3.0) == [b, c]
    assert group.usable(NOW + 4.999) == [b, c]
    assert group.usable(NOW + 5.0) == [a, b, c]
    assert recorder.values(ENDPOINTS_USABLE, group="tills") == [2, 1, 3, 1, 2, 3]


def test_the_list_is_another_one_only_when_it_has_changed() -> None:
    group, (a, b), _ = group_of("a", "b")
    first = group.usable(NOW)
    assert group.usable(NOW + 9.0) is first
    a.is_healthy = True
    assert group.usable(NOW + 9.0) is first
    b.is_healthy = False
    assert group.usable(NOW + 9.0) is not first
    assert first == [a, b]  # whoever holds it still has what it was


def test_when_nobody_is_usable_all_that_do_not_drain_are_picked_among() -> None:
    group, (a, b, c), recorder = group_of("a", "b", "c")
    a.eject(NOW + 5.0)
    b.is_healthy = False
    assert not group.is_panicking(NOW)
    c.is_draining = True
    assert group.usable(NOW) == [a, b]
    assert group.is_panicking(NOW)
    assert group.usable(NOW + 5.0) == [a]
    assert not group.is_panicking(NOW + 5.0)
    assert recorder.values(ENDPOINTS_USABLE) == [1, 0, 1]


def test_a_panic_of_one_endpoint_is_told_though_the_calls_go_where_they_went() -> None:
    group, (a,), recorder = group_of("a")
    before = group.usable(NOW)
    a.is_healthy = False
    assert group.usable(NOW) == before == [a]
    a.is_healthy = True
    group.usable(NOW)
    assert recorder.values(ENDPOINTS_USABLE) == [0, 1]


def test_what_drains_gets_nothing_even_if_it_is_all_there_is() -> None:
    group, (a, b), _ = group_of("a", "b")
    a.is_draining = b.is_draining = True
    assert group.usable(NOW) == []


# --- how busy ---------------------------------------------------------------------------------------------------------


def test_calls_in_flight_are_counted_for_each_and_for_all() -> None:
    group, (a, b), _ = group_of("a", "b")
    for endpoint in (a, a, b):
        endpoint.begin()
    assert (a.in_flight, b.in_flight, group.in_flight) == (2, 1, 3)
    a.end(0.1, True, NOW)
    b.end(0.1, False, NOW)
    assert (a.in_flight, b.in_flight, group.in_flight) == (1, 0, 1)


def test_a_call_that_takes_longer_counts_at_once_and_is_forgotten_slowly() -> None:
    _, (a,), _ = group_of("a")
    call(a, 0.010, NOW)
    call(a, 1.0, NOW + 0.1)
    assert a.latency == 1.0
    call(a, 0.010, NOW + 0.2)
    assert 0.97 < a.latency < 1.0
    for tenths in range(2, 400):
        call(a, 0.010, NOW + tenths / 10)
    assert a.latency == pytest.approx(0.010, rel=0.1)


def test_a_latency_that_nothing_confirms_is_forgotten_or_its_endpoint_would_never_be_asked_again() -> None:
    _, (a, b), _ = group_of("a", "b")
    call(a, 1.0, NOW)
    call(b, 0.020, NOW)
    assert a.load(NOW) > 40 * b.load(NOW)
    later = NOW + 5 * DECAY_S
    call(b, 0.020, later)
    assert a.load(later) < b.load(later)
    assert a.latency_at(NOW + DECAY_S) == pytest.approx(1 / math.e)


def test_failures_never_make_an_endpoint_look_faster() -> None:
    _, (a,), _ = group_of("a")
    call(a, 0.5, NOW)
    before = a.load(NOW)
    for tenths in range(600):
        call(a, 0.001, NOW + tenths / 10, is_ok=False)
    assert a.load(NOW + 59.9) == before
    call(a, 2.0, NOW + 60, is_ok=False)  # it was cut off, and took longer than that
    assert a.latency == 2.0


@pytest.mark.parametrize("unit", [1, 25])
def test_load_grows_with_calls_in_flight_for_each_of_the_weight_beside_the_others(unit: int) -> None:
    light, heavy = Endpoint("light", weight=unit), Endpoint("heavy", weight=3 * unit)
    Endpoints(env_of(), [light, heavy], name="g")
    for endpoint in (light, heavy):
        call(endpoint, 0.1, NOW)
    assert (
        light.load(NOW) == heavy.load(NOW) == pytest.approx(0.1, rel=0.01)
    )  # whoever is drawn is as good as the other
    light.begin()
    assert light.load(NOW) == pytest.approx(0.3, rel=0.01)
    for _ in range(3):
        heavy.begin()
    assert light.load(NOW) == pytest.approx(heavy.load(NOW))


def test_what_comes_back_counts_as_no_faster_than_those_that_stayed_until_it_has_shown_it() -> None:
    group, (a, b, c), _ = group_of("a", "b", "c")
    for endpoint, took_s in ((a, 0.1), (b, 0.3), (c, 9.0)):
        call(endpoint, took_s, NOW)
    c.eject(NOW + 600.0)
    group.usable(NOW)
    back = NOW + 600.0
    for endpoint, took_s in ((a, 0.1), (b, 0.3)):
        call(endpoint, took_s, back)
    group.usable(back)
    assert c.latency_at(back) == pytest.approx(0.2, rel=0.01)
    b.is_draining = True
    group.usable(back)
    call(b, 5.0, back)
    b.is_draining = False
    group.usable(back)
    assert b.latency_at(back) == 5.0  # it is known to be slower


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": ""}, "an endpoint is named"),
        ({"name": "http://a"}, "an endpoint is named"),
        *(({"name": "a", "weight": weight}, "`weight` must be") for weight in (0, -1, 101, 1.5, True)),
        *(
            ({"name": "a", "url": url}, "`url` must be")
            for url in (
                "a",
                "a:80",
                "//a/b",
                "http://",
                "http:///a",
                "http://a:99999",
                "http://a:0",
                "http://a b/",
                "http://[::1",
            )
        ),
    ],
    ids=str,
)
def test_an_endpoint_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Endpoint(**given)


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.example:8443/v1?x=1", "http://[::1]:80", "grpc://10.0.0.1:50051", ""]
)
def test_an_address_is_kept_as_it_is(url: str) -> None:
    assert Endpoint("a", url).url == url


def test_a_group_that_cannot_be_is_refused() -> None:
    env = env_of()
    with pytest.raises(InvalidInput, match="`endpoints` must be"):
        Endpoints(env, [], name="g")
    with pytest.raises(InvalidInput, match="`endpoints` must be"):
        Endpoints(env, [Endpoint("a")] * (ENDPOINTS_MAX + 1), name="g")
    with pytest.raises(InvalidInput, match="'a' is there twice"):
        Endpoints(env, [Endpoint("b"), Endpoint("a"), Endpoint("a")], name="g")
    with pytest.raises(InvalidInput, match="is named with"):
        Endpoints(env, [Endpoint("a")], name="g g")
    a = Endpoint("a")
    Endpoints(env, [a], name="g")
    with pytest.raises(InvalidInput, match="in a group already"):
        Endpoints(env, [a], name="g")

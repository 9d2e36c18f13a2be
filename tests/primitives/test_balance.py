"""Balancers: who gets the calls, what is left out, and how even it is."""

import random
from collections import Counter
from collections.abc import Callable
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultproof.errors import InvalidInput
from faultproof.primitives.balance import Balancer, LeastLoaded, RoundRobin
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.primitives.ring import HashRing
from tests.fakes import FixedRng, env_of

NOW = 1_000.0

Make = Callable[[Endpoints], Balancer]


def group_of(*weights: int, prefix: str = "e") -> tuple[Endpoints, list[Endpoint]]:
    endpoints = [Endpoint(f"{prefix}-{number}", weight=weight) for number, weight in enumerate(weights)]
    return Endpoints(env_of(), endpoints, name="tills"), endpoints


def least_loaded(endpoints: Endpoints, seed: int = 1) -> LeastLoaded:
    return LeastLoaded(env_of(rng=random.Random(seed)), endpoints)


def round_robin(endpoints: Endpoints) -> RoundRobin:
    return RoundRobin(env_of(rng=FixedRng(0.0)), endpoints)


def picks(balancer: Balancer, count: int) -> list[str]:
    found = []
    for number in range(count):
        endpoint = balancer.pick(NOW, (), f"key {number}")
        assert endpoint is not None
        found.append(endpoint.name)
    return found


ALL = pytest.mark.parametrize(
    "make", [least_loaded, round_robin, HashRing], ids=["least loaded", "round robin", "ring"]
)


# --- all of them ------------------------------------------------------------------------------------------------------


@ALL
def test_what_was_tried_is_not_picked_again_and_when_all_were_nothing_is(make: Make) -> None:
    group, endpoints = group_of(1, 1, 2, 1)
    balancer = make(group)
    for number in range(200):
        tried: list[Endpoint] = []
        for _ in endpoints:
            picked = balancer.pick(NOW, tried, f"key {number}")
            assert picked is not None
            assert picked not in tried
            tried += [picked, picked]  # as often as one likes
        assert balancer.pick(NOW, tried, f"key {number}") is None


@ALL
def test_draining_ejected_and_unhealthy_endpoints_get_nothing_new(make: Make) -> None:
    group, (a, b, c, d, e) = group_of(1, 1, 1, 1, 1)
    balancer = make(group)
    assert set(picks(balancer, 200)) == {f"e-{number}" for number in range(5)}
    a.is_draining = True
    b.is_healthy = False
    c.eject(NOW + 1.0)
    assert set(picks(balancer, 200)) == {d.name, e.name}
    d.is_draining = True
    assert set(picks(balancer, 50)) == {e.name}
    assert balancer.pick(NOW, [e], "k") is None


@ALL
def test_in_panic_all_but_the_draining_are_picked_among(make: Make) -> None:
    group, (a, b, c) = group_of(1, 1, 1)
    balancer = make(group)
    for endpoint in (a, b):
        endpoint.is_healthy = False
    c.is_draining = True
    assert set(picks(balancer, 100)) == {a.name, b.name}
    a.is_draining = b.is_draining = True
    assert balancer.pick(NOW, (), "k") is None


@ALL
def test_each_gets_its_weight_of_the_calls(make: Make) -> None:
    group, endpoints = group_of(10, 20, 30, 40)
    shares = Counter(picks(make(group), 10_000))
    for endpoint in endpoints:
        assert shares[endpoint.name] / 10_000 == pytest.approx(endpoint.weight / 100, rel=0.35), shares


# --- the less busy of two ---------------------------------------------------------------------------------------------


def test_of_two_the_one_with_fewer_calls_in_flight_is_picked() -> None:
    group, (a, b) = group_of(1, 1)
    balancer = least_loaded(group)
    a.begin()
    assert set(picks(balancer, 50)) == {b.name}
    b.begin()
    b.begin()
    assert set(picks(balancer, 50)) == {a.name}


def test_of_two_the_faster_is_picked_until_it_has_more_to_do() -> None:
    group, (a, b) = group_of(1, 1)
    for endpoint, took_s in ((a, 0.010), (b, 0.035)):
        endpoint.begin()
        endpoint.end(took_s, True, NOW)
    balancer, order = least_loaded(group), []
    for _ in range(9):
        picked = balancer.pick(NOW)
        assert picked is not None
        picked.begin()
        order.append(picked.name)
    assert order == ["e-0", "e-0", "e-0", "e-1", "e-0", "e-0", "e-0", "e-1", "e-0"]


def test_two_choices_keep_the_busiest_close_to_the_mean_where_one_does_not() -> None:
    """100 calls for each of 100 endpoints, none of which ends: by chance alone some would have more than 120."""
    group, endpoints = group_of(*[1] * 100)
    balancer = least_loaded(group)
    for _ in range(10_000):
        picked = balancer.pick(NOW)
        assert picked is not None
        picked.begin()
    assert max(endpoint.in_flight for endpoint in endpoints) <= 105
    assert min(endpoint.in_flight for endpoint in endpoints) >= 90


@pytest.mark.parametrize("count", [2, 3, 7, 50])
def test_all_pairs_are_drawn_equally_often(count: int) -> None:
    """The busiest loses to all others, the next to all but one, and so on: as often as pairs are drawn."""
    group, endpoints = group_of(*[1] * count)
    for number, endpoint in enumerate(endpoints):
        for _ in range(number):
            endpoint.begin()
    drawn = Counter(picks(least_loaded(group), 20_000))
    for number, endpoint in enumerate(endpoints):
        expected = 20_000 * (count - 1 - number) / (count * (count - 1) / 2)
        assert drawn[endpoint.name] == pytest.approx(expected, abs=5 * expected**0.5), endpoint


def test_a_number_is_drawn_for_many_picks() -> None:
    class Counting(random.Random):
        drawn = 0

        def random(self) -> float:
            self.drawn += 1
            return super().random()

    group, _ = group_of(*[1] * 10)
    rng = Counting(5)
    picks(LeastLoaded(env_of(rng=rng), group), 600)
    assert 50 <= rng.drawn <= 120


@pytest.mark.parametrize("number", [0.0, 0.5, 0.999_999_999_999])
def test_any_number_that_is_drawn_gives_a_pick(number: float) -> None:
    group, _ = group_of(*[1] * 7)
    assert len(picks(LeastLoaded(env_of(rng=FixedRng(number)), group), 50)) == 50


# --- in turn ----------------------------------------------------------------------------------------------------------


def test_turns_are_spread_and_not_in_runs() -> None:
    group, _ = group_of(5, 1, 1)
    assert "".join(name[-1] for name in picks(round_robin(group), 14)) == "00102000010200"


def test_processes_begin_with_different_ones() -> None:
    firsts = set()
    for number in range(4):
        group, _ = group_of(1, 1, 1, 1)
        firsts.add(picks(RoundRobin(env_of(rng=FixedRng(number / 4)), group), 1)[0])
    assert len(firsts) == 4


def test_who_was_away_does_not_catch_up() -> None:
    group, (a, _, _) = group_of(1, 1, 1)
    balancer = round_robin(group)
    a.is_healthy = False
    picks(balancer, 300)
    a.is_healthy = True
    assert Counter(picks(balancer, 30)) == {"e-0": 10, "e-1": 10, "e-2": 10}


# --- by key -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 10, 50])
def test_no_partition_has_twice_the_load_of_another(count: int) -> None:
    """The specification's P1. The worse of two rings, each with 20,000 keys."""
    for ring in range(2):
        group, endpoints = group_of(*[1] * count, prefix=f"ring-{ring}")
        load = Counter(picks(HashRing(group), 20_000))
        assert len(load) == len(endpoints)
        assert max(load.values()) < 2 * min(load.values()), load


def test_a_key_has_its_endpoint_in_every_process_and_whatever_the_order() -> None:
    names = ["a", "b", "c", "d"]
    rings = []
    for order in (names, names[::-1]):
        rings.append(HashRing(Endpoints(env_of(), [Endpoint(name) for name in order], name="g")))
    first, second = (picks(ring, 300) for ring in rings)
    assert first == second
    assert "".join(first[:12]) == "cbaaabacbdca"  # stays the same from release to release: caches depend on it


def test_when_an_endpoint_goes_only_its_keys_move_and_to_all_others() -> None:
    group, (a, *others) = group_of(*[1] * 10)
    ring = HashRing(group)
    before = picks(ring, 5_000)
    a.is_healthy = False
    during = picks(ring, 5_000)
    moved = {now for was, now in zip(before, during, strict=True) if was != now}
    assert all(was == now for was, now in zip(before, during, strict=True) if was != a.name)
    assert moved == {endpoint.name for endpoint in others}
    a.is_healthy = True
    assert picks(ring, 5_000) == before


def test_a_hot_key_spills_over_to_the_next_and_comes_home() -> None:
    group, endpoints = group_of(*[1] * 10)
    ring = HashRing(group, bound=1.25)
    home = ring.pick(NOW, (), "hot")
    held = []
    for _ in range(100):
        picked = ring.pick(NOW, (), "hot")
        assert picked is not None
        picked.begin()
        held.append(picked)
    loads = sorted(endpoint.in_flight for endpoint in endpoints)
    assert loads[-1] <= ceil(1.25 * 100 / 10)
    assert loads.count(0) <= 2
    for endpoint in held:
        endpoint.end(0.1, True, NOW)
    assert ring.pick(NOW, (), "hot") is home


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    bound=st.sampled_from([1.01, 1.25, 2.0]),
    calls=st.lists(st.one_of(st.integers(0, 3), st.just(None)), max_size=80),
)
def test_nobody_has_more_than_the_bound_says(weights: list[int], bound: float, calls: list[int | None]) -> None:
    """A call with one of a few keys begins, or (None) the oldest ends."""
    group, _ = group_of(*weights)
    ring, running = HashRing(group, bound=bound), []
    for key in calls:
        if key is not None:
            picked = ring.pick(NOW, (), f"key {key}")
            assert picked is not None
            picked.begin()
            running.append(picked)
            assert picked.in_flight <= ceil(bound * len(running) * picked.weight / sum(weights))
        elif running:
            running.pop(0).end(0.1, True, NOW)


def test_the_bound_gives_way_before_a_hedge_goes_nowhere() -> None:
    group, (a, b) = group_of(1, 1)
    ring = HashRing(group)
    for _ in range(5):
        b.begin()
    assert ring.pick(NOW, [a], "k") is b


def test_a_ring_without_a_key_or_a_bound_that_can_be_is_refused() -> None:
    group, _ = group_of(1, 1)
    with pytest.raises(InvalidInput, match="needs a key"):
        HashRing(group).pick(NOW)
    for bound in (1.0, 0, -1, float("nan"), float("inf"), "2"):
        with pytest.raises(InvalidInput, match="`bound` must be"):
            HashRing(group, bound=bound)  # type: ignore[arg-type]

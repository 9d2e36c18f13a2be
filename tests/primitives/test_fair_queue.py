"""Who is next: by weight, by priority, and nobody never."""

import random
from collections import Counter

import pytest

from faultproof.primitives.fair_queue import FairQueue, Queued, Tenant


def tenant(name: str, *, weight: float = 1.0, most: int = 1_000) -> Tenant:
    made = Tenant(name, weight=weight, own=None, queue=1_000)
    made.most = most
    return made


def calls(queue: FairQueue, of: Tenant, number: int, *, priority: int = 0) -> list[Queued]:
    made = [Queued(of, priority) for _ in range(number)]
    for each in made:
        queue.add(each)
    return made


def take(queue: FairQueue) -> Queued:
    call = queue.next()
    assert call is not None
    queue.take(call)
    return call


def test_turns_are_shared_by_weight_within_one_turn_of_each() -> None:
    queue, three, one = FairQueue(patience=1_000), tenant("three", weight=3.0), tenant("one")
    calls(queue, three, 300)
    calls(queue, one, 300)
    got = Counter[str]()
    for _ in range(400):
        got[take(queue).tenant.name] += 1
        assert abs(got["three"] / 3 - got["one"]) <= 1 / 3 + 1
    assert got == {"three": 300, "one": 100}


def test_a_tenant_that_comes_late_neither_catches_up_nor_waits_for_what_others_had() -> None:
    queue, first, late = FairQueue(patience=1_000), tenant("first"), tenant("late")
    calls(queue, first, 100)
    for _ in range(50):
        take(queue)
    calls(queue, late, 50)
    assert Counter(take(queue).tenant.name for _ in range(20)) == {"first": 10, "late": 10}


def test_a_tenant_with_few_calls_at_a_time_gets_no_more_than_its_weight() -> None:
    """It comes back with each call only when the last one has had its turn."""
    queue, busy, light = FairQueue(patience=1_000), tenant("busy"), tenant("light", weight=0.1)
    calls(queue, busy, 220)
    calls(queue, light, 1)
    got = Counter[str]()
    for _ in range(220):
        call = take(queue)
        got[call.tenant.name] += 1
        if call.tenant is light:
            calls(queue, light, 1)
    assert got == {"busy": 200, "light": 20}


def test_what_is_given_up_while_it_waits_costs_its_tenant_nothing() -> None:
    queue, fickle, other = FairQueue(patience=1_000), tenant("fickle"), tenant("other")
    calls(queue, other, 100)
    for given_up in calls(queue, fickle, 90):
        queue.remove(given_up)
    calls(queue, fickle, 10)
    assert Counter(take(queue).tenant.name for _ in range(20)) == {"fickle": 10, "other": 10}


def test_what_was_owed_is_forgotten_when_nobody_waits() -> None:
    queue, busy, light = FairQueue(patience=1_000), tenant("busy"), tenant("light", weight=0.01)
    calls(queue, light, 1)
    take(queue)
    calls(queue, busy, 20)
    calls(queue, light, 1)
    assert "light" in [take(queue).tenant.name for _ in range(2)]


def test_turns_of_a_higher_priority_are_no_start_for_those_who_come_meanwhile() -> None:
    queue = FairQueue(patience=1_000)
    calls(queue, old := tenant("old"), 20)
    calls(queue, tenant("high"), 50, priority=1)
    for _ in range(50):
        take(queue)
    calls(queue, tenant("new"), 20)
    assert Counter(take(queue).tenant is old for _ in range(20)) == {True: 10, False: 10}


def test_a_tenant_that_has_all_it_may_have_is_passed_over_and_saves_nothing_up() -> None:
    queue, full, other = FairQueue(patience=8), tenant("full", most=0), tenant("other")
    calls(queue, full, 100)
    calls(queue, other, 100)
    assert {take(queue).tenant.name for _ in range(50)} == {"other"}
    full.most = 1_000
    queue.show(full)
    assert Counter(take(queue).tenant.name for _ in range(40))["full"] <= 20 + 5, "but for turns that go to the oldest"


def test_a_higher_priority_goes_first_and_whoever_has_waited_longest_has_a_turn_all_the_same() -> None:
    patience, queue = 8, FairQueue(patience=8)
    low, high = tenant("low"), tenant("high")
    waiting = calls(queue, low, 3, priority=-1)
    turns = []
    for turn in range(1, 3 * (patience + 1) + 1):
        calls(queue, high, 2, priority=5)  # more than there are turns, for ever
        call = take(queue)
        if call.tenant is low:
            turns.append(turn)
            assert call is waiting[len(turns) - 1]
    assert turns == [9, 18, 27]


def test_however_many_new_tenants_come_nobody_waits_for_longer_than_those_before_it_need() -> None:
    rng, patience = random.Random(5), 3
    queue, old = FairQueue(patience=patience), tenant("old", weight=0.01)
    mine = calls(queue, old, 4)
    turns = 0
    while mine[-1] in queue.calls.values():
        calls(queue, tenant(f"new-{turns}"), rng.randrange(1, 4), priority=rng.randrange(3))
        take(queue)
        turns += 1
    assert 4 < turns <= 4 * (patience + 1)


@pytest.mark.parametrize(
    ("priority", "sheds"),
    [(0, "greedy"), (1, "greedy"), (-1, "itself")],
)
def test_who_would_be_last_is_shed(priority: int, sheds: str) -> None:
    queue, greedy, modest = FairQueue(patience=8), tenant("greedy"), tenant("modest")
    waiting = calls(queue, greedy, 5)
    calls(queue, modest, 1)
    mine = Queued(modest, priority)
    last = queue.last(mine, of_tenant=False)
    assert last is (mine if sheds == "itself" else waiting[-1])


def test_of_its_own_calls_a_tenant_sheds_the_one_of_least_priority() -> None:
    queue, one = FairQueue(patience=8), tenant("one")
    calls(queue, one, 2, priority=1)
    (least, _) = calls(queue, one, 1, priority=-2)[0], calls(queue, one, 1)
    assert queue.last(mine := Queued(one, 0), of_tenant=True) is least
    assert queue.last(mine := Queued(one, -2), of_tenant=True) is mine


def test_in_any_order_of_events_each_call_has_one_turn_or_none() -> None:
    rng = random.Random(11)
    queue = FairQueue(patience=2)
    tenants = [tenant(f"t{number}", weight=rng.choice([0.5, 1.0, 4.0]), most=rng.choice([1, 3])) for number in range(5)]
    waiting, running, ended = set[Queued](), list[Queued](), set[Queued]()
    for _ in range(5_000):
        match rng.randrange(4):
            case 0:
                waiting |= set(calls(queue, rng.choice(tenants), 1, priority=rng.randrange(-1, 2)))
            case 1 if waiting:
                gone = rng.choice(sorted(waiting, key=lambda call: call.arrival))
                queue.remove(gone)
                waiting.remove(gone)
            case 2 if running:
                over = running.pop(rng.randrange(len(running)))
                over.tenant.in_flight -= 1
                queue.show(over.tenant)
                ended.add(over)
            case 3:
                call = queue.next()
                could = [each for each in waiting if each.tenant.in_flight < each.tenant.most]
                assert (call is None) == (not could)
                if call is not None:
                    assert call in could
                    call.tenant.in_flight += 1
                    queue.take(call)
                    waiting.remove(call)
                    running.append(call)
        assert set(queue.calls.values()) == waiting
    assert len(ended) > 300

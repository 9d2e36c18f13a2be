"""The circuit breaker: when it opens, for how long, whom it admits then, and what counts for nothing. Time is the test's."""

import asyncio
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultproof.errors import InvalidInput
from faultproof.primitives.breaker import RECOVERY_MAX_S, Breaker, BreakerPolicy, Outcome
from faultproof.primitives.rolling import RollingCounts
from faultproof.signals import BREAKER_OPENED, BREAKER_STATE, Signals
from tests.fakes import FixedRng, Recorder, env_of, within

OK, FAILED, SAYS_NOTHING = Outcome.OK, Outcome.FAILED, Outcome.SAYS_NOTHING

NOW = 1_000.0
SMALL: dict[str, Any] = {"minimum_calls": 4, "probes": 2, "open_for": 2.0, "open_most": 8.0, "probe_timeout": 5.0}


class Caller:
    """Makes calls of a breaker with a small policy, without jitter unless it is given."""

    def __init__(self, draw: float = 0.5, **policy: Any) -> None:
        self.recorder = Recorder()
        env = env_of(rng=FixedRng(draw), signals=Signals(sinks=[self.recorder]))
        self.policy = BreakerPolicy(**{**SMALL, "jitter": 0.0, **policy})
        self.breaker = Breaker(env, self.policy, name="till")
        self.now = NOW

    def enter(self) -> int:
        """A call that is admitted."""
        token = self.breaker.try_enter(self.now)
        assert token is not None
        return token

    def refused(self) -> bool:
        return self.breaker.try_enter(self.now) is None

    def leave(self, token: int, outcome: Outcome, took_s: float = 0.01) -> None:
        self.breaker.leave(token, outcome, took_s, self.now)

    def call(self, outcome: Outcome, took_s: float = 0.01, times: int = 1) -> None:
        for _ in range(times):
            self.leave(self.enter(), outcome, took_s)

    def open(self) -> None:
        self.call(FAILED, times=self.policy.minimum_calls)
        assert self.state == "open"

    def half_open(self) -> list[int]:
        """The tokens of all probes."""
        self.open()
        self.now += self.policy.open_most
        return [self.enter() for _ in range(self.policy.probes)]

    @property
    def state(self) -> str:
        return self.breaker.state

    def states(self) -> list[float]:
        return self.recorder.values(BREAKER_STATE, breaker="till")


# --- opening ----------------------------------------------------------------------------------------------------------


def test_it_opens_at_the_error_rate_and_refuses_then() -> None:
    caller = Caller(error_rate=0.5, minimum_calls=10)
    caller.call(OK, times=6)
    caller.call(FAILED, times=5)
    assert caller.state == "closed"
    caller.call(FAILED)
    assert caller.state == "open"
    assert caller.refused()
    assert caller.states() == [2]
    assert caller.recorder.values(BREAKER_OPENED, breaker="till") == [1]


def test_it_does_not_judge_by_fewer_calls_than_the_minimum() -> None:
    caller = Caller(minimum_calls=10)
    caller.call(FAILED, times=9)
    assert caller.state == "closed"
    caller.call(OK)  # the tenth: nine of ten
    assert caller.state == "open"


def test_slow_calls_open_it_though_they_succeed() -> None:
    caller = Caller(slow_after=1.0, slow_rate=0.75)
    caller.call(OK, took_s=0.999, times=1)
    caller.call(OK, took_s=1.0, times=2)
    assert caller.state == "closed"
    caller.call(OK, took_s=3.0)
    assert caller.state == "open"


def test_calls_that_say_nothing_do_not_count() -> None:
    caller = Caller()
    caller.call(FAILED, times=3)
    caller.call(SAYS_NOTHING, took_s=99.0, times=100)
    assert caller.state == "closed"
    caller.call(FAILED)
    assert caller.state == "open"


def test_what_is_older_than_the_window_is_forgotten() -> None:
    caller = Caller(window=10.0, buckets=5)
    caller.call(FAILED, times=3)
    caller.now += 10.0
    caller.call(FAILED, times=3)
    assert caller.state == "closed"
    caller.now += 7.9
    caller.call(FAILED)
    assert caller.state == "open"


# --- how long ---------------------------------------------------------------------------------------------------------


def test_it_is_open_for_its_time_and_twice_that_after_each_probing_that_fails_up_to_the_cap() -> None:
    caller = Caller(probes=1)
    caller.open()
    for seconds in (2.0, 4.0, 8.0, 8.0, 8.0):
        assert caller.breaker.retry_after(caller.now) == pytest.approx(seconds)
        caller.now += seconds - 0.001
        assert caller.refused()
        caller.now += 0.001
        assert caller.breaker.retry_after(caller.now) == 0.0
        caller.call(FAILED)
        assert caller.state == "open"
    assert caller.states() == [2, *[1, 2] * 5]
    caller.now += 8.0
    caller.call(OK)
    assert caller.state == "closed"
    caller.open()
    assert caller.breaker.retry_after(caller.now) == pytest.approx(2.0)  # from the beginning


def test_the_jitter_is_taken_off_and_is_uniform() -> None:
    draw = random.Random(3)
    waits = []
    for _ in range(500):
        caller = Caller(draw=draw.random(), jitter=0.25)
        caller.open()
        waits.append(caller.breaker.retry_after(caller.now))
    assert all(1.5 < wait <= 2.0 for wait in waits)
    assert min(waits) < 1.52
    assert max(waits) > 1.98
    assert 1.72 < sum(waits) / 500 < 1.78


def test_an_endpoint_that_is_well_again_is_used_within_a_minute_however_long_it_was_not() -> None:
    """The worst case: probes hang from the moment before it is well, and the policy is as lax as policies may be."""
    caller = Caller(draw=0.0, open_for=1.0, open_most=39.9, probe_timeout=10.0, jitter=1.0)
    caller.half_open()
    for _ in range(10):  # it has been out of order for long
        caller.now += 10.0
        assert caller.refused()
        caller.now += 39.9
        for _ in range(2):
            caller.enter()
    well = caller.now
    while caller.state != "closed":
        caller.now += 0.1
        if (token := caller.breaker.try_enter(caller.now)) is not None:
            caller.leave(token, OK)
    assert 10.0 + 39.9 <= caller.now - well < RECOVERY_MAX_S - 9


# --- half-open --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("probes", [1, 3, 10])
async def test_of_1000_concurrent_calls_at_recovery_exactly_the_probes_pass(probes: int) -> None:
    caller = Caller(probes=probes)
    caller.open()
    caller.now += 2.0
    served, gate = [], asyncio.Event()

    async def call(number: int) -> bool:
        token = caller.breaker.try_enter(caller.now)
        if token is None:
            return False
        served.append(number)
        await gate.wait()
        caller.leave(token, OK)
        return True

    calls = [asyncio.create_task(call(number)) for number in range(1_000)]
    await asyncio.sleep(0)
    assert len(served) == probes
    assert caller.state == "half-open"
    gate.set()
    assert sum(await within(asyncio.gather(*calls))) == probes
    assert caller.state == "closed"
    assert caller.states() == [2, 1, 0]
    caller.call(OK, times=1_000)


def test_the_rates_judge_the_probes() -> None:
    for outcomes, state in [
        ([OK, FAILED, OK, OK], "closed"),
        ([FAILED, OK, FAILED], "open"),  # as soon as it is certain
        ([OK, OK, OK], "half-open"),
    ]:
        caller = Caller(probes=4, error_rate=0.5)
        for token, outcome in zip(caller.half_open(), outcomes, strict=False):
            caller.leave(token, outcome)
        assert caller.state == state, outcomes


def test_slow_probes_open_it_again() -> None:
    caller = Caller(slow_after=1.0, slow_rate=1.0)
    for token in caller.half_open():
        caller.leave(token, OK, took_s=1.5)
    assert caller.state == "open"


def test_a_cancelled_probe_gives_its_permit_to_another_call() -> None:
    caller = Caller()
    first, second = caller.half_open()
    for _ in range(100):
        assert caller.refused()
        caller.leave(first, SAYS_NOTHING)
        first = caller.enter()
    assert caller.refused()
    for token in (first, second):
        caller.leave(token, OK)
    assert caller.state == "closed"


def test_a_permit_is_given_back_once() -> None:
    caller = Caller()
    first, _ = caller.half_open()
    caller.leave(first, SAYS_NOTHING)
    caller.leave(first, SAYS_NOTHING)
    caller.enter()
    assert caller.refused()


def test_probes_that_hang_have_failed_when_their_permits_expire() -> None:
    caller = Caller()
    first, second = caller.half_open()
    caller.now += 4.999
    assert caller.refused()
    assert caller.state == "half-open"
    caller.now += 0.001
    assert caller.refused()
    assert caller.state == "open"
    assert caller.breaker.retry_after(caller.now) == pytest.approx(4.0)
    for token in (first, second):  # at last, and too late
        caller.leave(token, OK)
    assert caller.state == "open"


def test_one_probe_that_hangs_among_many_that_are_well_does_not_keep_it_half_open() -> None:
    caller = Caller(probes=3)
    _, *others = caller.half_open()
    for token in others:
        caller.leave(token, OK)
    assert caller.breaker.retry_after(caller.now) == 2.0
    assert caller.refused()
    caller.now += 4.0
    assert caller.breaker.retry_after(caller.now) == pytest.approx(1.0)
    caller.now += 1.0
    caller.call(OK)
    assert caller.state == "closed"


def test_a_probe_that_answers_when_its_permit_has_expired_has_failed() -> None:
    caller = Caller(probes=1, slow_after=60.0)
    (probe,) = caller.half_open()
    caller.now += 5.0
    caller.leave(probe, OK, took_s=5.0)
    assert caller.state == "open"


def test_a_process_that_was_stopped_for_an_hour_probes_at_once() -> None:
    caller = Caller()
    caller.half_open()
    caller.now += 3_600.0
    tokens = [caller.enter(), caller.enter()]
    assert caller.refused()
    for token in tokens:
        caller.leave(token, OK)
    assert caller.state == "closed"
    assert caller.states() == [2, 1, 2, 1, 0]


# --- what began before ------------------------------------------------------------------------------------------------


def test_a_call_from_before_the_opening_neither_closes_nor_reopens_it() -> None:
    caller = Caller()
    early = [caller.enter() for _ in range(100)]
    caller.open()
    for token in early[:10]:
        caller.leave(token, OK)
    assert caller.breaker.retry_after(caller.now) == 2.0
    caller.now += 2.0
    probes = [caller.enter(), caller.enter()]
    for token in early[10:20]:
        caller.leave(token, OK)
    assert caller.state == "half-open"
    for token in early[20:30]:
        caller.leave(token, FAILED)
    assert caller.state == "half-open"
    for token in early[30:40]:
        caller.leave(token, SAYS_NOTHING)
    assert caller.refused()  # none of them had a permit to give back
    for token in probes:
        caller.leave(token, OK)
    assert caller.state == "closed"
    for token in early[40:]:
        caller.leave(token, FAILED)
    assert caller.state == "closed"


def test_a_probe_of_an_earlier_probing_counts_for_nothing_in_the_next() -> None:
    caller = Caller()
    first, second = caller.half_open()
    caller.leave(first, FAILED)
    assert caller.state == "open"
    caller.now += 8.0
    probes = [caller.enter(), caller.enter()]
    for outcome in (FAILED, OK, SAYS_NOTHING):
        caller.leave(second, outcome)
        assert caller.state == "half-open"
    assert caller.refused()
    for token in probes:
        caller.leave(token, OK)
    assert caller.state == "closed"


def test_what_happened_before_it_was_opened_is_forgotten_when_it_is_closed() -> None:
    caller = Caller()
    for token in caller.half_open():
        caller.leave(token, OK)
    caller.call(FAILED, times=3)
    assert caller.state == "closed"


# --- beside a simple model --------------------------------------------------------------------------------------------


class Model:
    """The same, as one would tell it: everything is kept, and looked through each time."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = "closed"
        self.phase = 0
        self.since = NOW
        self.until = 0.0
        self.probings = 0
        self.ended: list[tuple[Outcome, bool]] = []
        self.running: dict[int, float] = {}  # the number of a call, when it began

    def enter(self, number: int, now: float) -> int | None:
        """The phase that the call was admitted in."""
        self.age(now)
        if self.state == "open" or (self.state == "half-open" and len(self.ended) + len(self.running) == 2):
            return None
        self.running[number] = now
        return self.phase

    def leave(self, number: int, phase: int, outcome: Outcome, took_s: float, now: float) -> None:
        self.age(now)
        if phase == self.phase and self.running.pop(number, None) is not None and outcome is not SAYS_NOTHING:
            self.count(outcome, took_s >= self.policy.slow_after, now)

    def age(self, now: float) -> None:
        if self.state == "half-open":
            for number, began in sorted(self.running.items()):
                if self.state == "half-open" and began + self.policy.probe_timeout <= now:
                    del self.running[number]
                    self.count(FAILED, False, began + self.policy.probe_timeout)
        if self.state == "open" and now >= self.until:
            self.change("half-open")

    def count(self, outcome: Outcome, is_slow: bool, at: float) -> None:
        self.ended.append((outcome, is_slow))
        failed = sum(outcome is FAILED for outcome, _ in self.ended)
        slow = sum(is_slow for _, is_slow in self.ended)
        of = self.policy.probes if self.state == "half-open" else len(self.ended)
        enough = self.state == "half-open" or of >= self.policy.minimum_calls
        if enough and (failed >= self.policy.error_rate * of or slow >= self.policy.slow_rate * of):
            self.probings = self.probings + 1 if self.state == "half-open" else 0
            self.until = at + min(self.policy.open_most, self.policy.open_for * 2**self.probings)
            self.change("open")
        elif self.state == "half-open" and len(self.ended) == of:
            self.change("closed")

    def change(self, state: str) -> None:
        self.state, self.phase = state, self.phase + 1
        self.ended, self.running = [], {}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 2.0, 4.0, 5.0, 60.0])),
        st.tuples(st.just("enter"), st.integers(1, 4)),
        st.tuples(
            st.just("leave"), st.integers(0, 7), st.sampled_from([OK, FAILED, FAILED, SAYS_NOTHING]), st.booleans()
        ),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_it_does_what_a_simple_model_does(events: list[tuple[Any, ...]]) -> None:
    caller = Caller(window=1_000_000.0, slow_after=1.0, slow_rate=0.5)
    model, numbers = Model(caller.policy), iter(range(1_000))
    running: list[tuple[int, int, int]] = []
    for kind, *given_ in events:
        if kind == "wait":
            caller.now += given_[0]
        elif kind == "enter":
            for _ in range(given_[0]):
                number = next(numbers)
                token = caller.breaker.try_enter(caller.now)
                phase = model.enter(number, caller.now)
                assert (token is None) == (phase is None)
                if token is not None and phase is not None:
                    running.append((token, number, phase))
        elif running:
            token, number, phase = running.pop(given_[0] % len(running))
            took_s = 2.0 if given_[2] else 0.1
            caller.leave(token, given_[1], took_s)
            model.leave(number, phase, given_[1], took_s, caller.now)
        model.age(caller.now)
        shown = caller.state, caller.breaker.retry_after(caller.now)
        if model.state == "closed":
            assert shown == ("closed", 0.0)
        elif model.state == "open":
            assert shown[1] == model.until - caller.now


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.floats(0, 6), st.booleans(), st.booleans()), max_size=60))
def test_counts_go_back_by_the_window_or_one_bucket_less(buckets: int, calls: list[tuple[float, bool, bool]]) -> None:
    counts, now, seen = RollingCounts(10.0, buckets), 0.0, []
    for wait, is_failed, is_slow in calls:
        now += wait
        counts.add(is_failed, is_slow, now)
        seen.append((now, is_failed, is_slow))
        at_most = [call for call in seen if call[0] > now - 10.0 - 1e-9]
        at_least = [call for call in seen if call[0] > now - 10.0 + 10.0 / buckets + 1e-9] or seen[-1:]
        assert len(at_least) <= counts.calls <= len(at_most)
        assert sum(call[1] for call in at_least) <= counts.failed <= sum(call[1] for call in at_most)
        assert sum(call[2] for call in at_least) <= counts.slow <= sum(call[2] for call in at_most)


def test_time_that_jumps_far_ahead_costs_no_more_than_forgetting() -> None:
    counts = RollingCounts(1.0, 1_000)
    counts.add(True, True, 0.0)
    counts.add(False, False, 1e12)  # a step for each bucket of the time between would never end
    assert (counts.calls, counts.failed, counts.slow) == (1, 0, 0)


# --- what cannot be ---------------------------------------------------------------------------------------------------

TIMES = ("window", "slow_after", "open_for", "open_most", "probe_timeout")
RATES = ("error_rate", "slow_rate")
COUNTS = ("buckets", "minimum_calls", "probes")


@pytest.mark.parametrize(
    "wrong",
    [
        *({option: value} for option in TIMES for value in (0, -1, math.nan, math.inf, "1", True)),
        *({option: value} for option in RATES for value in (0, 1.01, math.nan, "1", True)),
        *({option: value} for option in COUNTS for value in (0, 1.5, 10**30, True)),
        *({"jitter": value} for value in (-0.1, 1.01, math.nan)),
        {"open_most": 1.0, "open_for": 2.0},
        {"open_most": 40.0, "probe_timeout": 10.0},
        {"open_most": 30.0, "probe_timeout": 15.0},
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"`{next(iter(wrong))}` must be"):
        BreakerPolicy(**wrong)


def test_a_breaker_has_a_name_that_signals_can_carry() -> None:
    with pytest.raises(InvalidInput, match="a breaker is named"):
        Breaker(env_of(), name="http://till")

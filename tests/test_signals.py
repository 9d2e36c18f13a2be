"""Signals: each is emitted with the right value when what it stands for happens, and telemetry never breaks the work."""

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import faultproof as fp
from faultproof.errors import Busy, Failed, OutcomeUnknown, Overloaded, RetriesExhausted
from faultproof.ports.database import Database, Transaction
from faultproof.primitives.breaker import Breaker, BreakerPolicy, Outcome
from faultproof.primitives.endpoints import Endpoint, Endpoints
from faultproof.primitives.health import HealthChecks, HealthPolicy
from faultproof.primitives.leases import Leases
from faultproof.primitives.outliers import OutlierPolicy, Outliers
from faultproof.signals import (
    ALL,
    BREAKER_OPENED,
    BREAKER_STATE,
    BUDGET_SPENT,
    CALLS_SHED,
    DEAD_LETTER,
    ENDPOINT_DOWN,
    ENDPOINT_EJECTED,
    ENDPOINTS_USABLE,
    FLAG_CHANGED,
    FLAGS_STALE,
    HEDGE,
    HEDGE_WON,
    HOLDS_EXPIRED,
    LAG_AGE,
    LAG_EVENTS,
    LOCK_WAIT,
    LOOP_LAG,
    LOOP_RESTART,
    PERMITS_IN_FLIGHT,
    PERMITS_LIMIT,
    PERMITS_SHED,
    QUEUE_AGE,
    QUEUE_DEPTH,
    REQUEST_LATE,
    REQUEST_REPLAYED,
    REQUEST_SUPERSEDED,
    RETRY,
    SAGA_ATTENTION,
    SAGA_STEP,
    SAGA_STUCK,
    SESSION_UNKNOWN,
    SHADOW_DIFFERENT,
    SHADOW_DROPPED,
    SHADOW_FAILED,
    SHARDS_MISSING,
    STEP,
    STUCK,
    Signal,
    Signals,
    log_sink,
    opentelemetry_sink,
)
from tests.fakes import FixedRng, ManualClock, Recorder, env_of, settle, until, within
from tests.files import Connect, connect, db, path
from tests.primitives.loops import Scripted

__all__ = ["connect", "db", "path"]

pytestmark = pytest.mark.anyio

F = TypeVar("F", bound=Callable[..., Any])

SHOWN: dict[str, list[str]] = {signal.name: [] for signal in ALL}


def shows(*signals: Signal) -> Callable[[F], F]:
    """Marks the test that stages the condition of a signal and asserts its value."""

    def mark(test: F) -> F:
        for signal in signals:
            SHOWN[signal.name].append(test.__name__)
        return test

    return mark


@pytest.mark.parametrize("signal", ALL, ids=lambda signal: signal.name)
def test_every_signal_is_shown_by_a_test_of_its_condition(signal: Signal) -> None:
    assert SHOWN[signal.name], f"no test here stages what {signal.name} stands for"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def env(clock: ManualClock, recorder: Recorder) -> fp.Env:
    return env_of(clock=clock, rng=FixedRng(0.999), signals=Signals(sinks=[recorder]))


# --- each in its condition --------------------------------------------------------------------------------------------


class Releasing(ManualClock):
    """Time flows; once this much of it has passed, the other one gives the lock back."""

    def __init__(self, holder: sqlite3.Connection, after_s: float) -> None:
        super().__init__(flows=True)
        self._holder = holder
        self._until = self.now + after_s

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.now >= self._until and self._holder.in_transaction:
            self._holder.rollback()


@shows(LOCK_WAIT)
async def test_lock_wait_is_how_long_another_connection_held_the_lock(
    connect: Connect, recorder: Recorder, path: Path
) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    clock = Releasing(holder, 3.0)
    database = await connect(env_of(clock=clock, rng=FixedRng(1.0), signals=Signals(sinks=[recorder])))
    for work in (lambda: database.install(database.claims.schema), lambda: one_transaction(database)):
        await work()
        assert recorder.values(LOCK_WAIT, engine="sqlite") == [0.0]
        recorder.emitted.clear()
        holder.execute("BEGIN IMMEDIATE")
        clock._until = (began := clock.now) + 3.0
        await work()
        (waited,) = recorder.values(LOCK_WAIT, engine="sqlite")
        assert waited == pytest.approx(clock.now - began)
        assert 3.0 <= waited < 3.1  # its longest pause is 20 ms
        recorder.emitted.clear()
    holder.close()


async def one_transaction(database: Database) -> None:
    async with database.transaction():
        pass


@shows(QUEUE_DEPTH, QUEUE_AGE)
async def test_queue_depth_and_age_are_those_of_the_items_that_wait(
    env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    gate = asyncio.Semaphore(0)

    async def apply(items: Sequence[int]) -> list[int]:
        await gate.acquire()
        return list(items)

    batcher: fp.Batcher[int, int] = fp.Batcher(apply, env=env, name="mail")
    tasks = [asyncio.create_task(batcher.submit(0))]
    await settle()
    for item in (1, 2, 3):
        tasks.append(asyncio.create_task(batcher.submit(item)))
        await settle()
        clock.advance(2.5)
    assert recorder.emitted == []
    gate.release()
    await settle()
    assert recorder.values(QUEUE_DEPTH, queue="mail") == [3]
    assert recorder.values(QUEUE_AGE, queue="mail") == [7.5]
    gate.release()
    await within(asyncio.gather(*tasks))


async def shop_of(connect: Connect, env: fp.Env) -> fp.Outbox:
    outbox = fp.Outbox(await connect(env), events={"noted": dict}, options=fp.OutboxOptions(partitions=2))
    await outbox.install()
    return outbox


async def fail(event: fp.Event[Any], tx: Transaction) -> None:
    raise ValueError("no")


@shows(LAG_EVENTS, LAG_AGE)
async def test_lag_is_what_is_committed_and_not_delivered(
    connect: Connect, env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    outbox = await shop_of(connect, env)
    consumer, sequencer = outbox.consumer("g", fail), outbox.sequencer()
    await consumer.open()
    await sequencer.open()
    await outbox.publish({}, key="a", type="noted")
    clock.advance(30.0)
    await sequencer.step()
    await outbox.publish({}, key="a", type="noted")
    await outbox.publish({}, key="a", type="noted")
    clock.advance(12.0)
    await outbox.lag()
    assert recorder.values(LAG_EVENTS, log="outbox", group="") == [2]
    assert recorder.values(LAG_AGE, log="outbox", group="") == [12.0]
    assert recorder.values(LAG_EVENTS, log="outbox", group="g") == [1]
    assert recorder.values(LAG_AGE, log="outbox", group="g") == [42.0]


@shows(DEAD_LETTER)
async def test_a_dead_letter_is_counted_when_an_event_is_given_up(
    connect: Connect, env: fp.Env, recorder: Recorder
) -> None:
    outbox = await shop_of(connect, env)
    loops = [outbox.sequencer(), outbox.consumer("g", fail, fp.ConsumerOptions(attempts=2, backoff=0.0))]
    await outbox.publish({}, key="a", type="noted")
    for loop in loops:
        await loop.open()
    for loop in loops:
        await loop.step()
    assert recorder.values(DEAD_LETTER) == []
    await loops[1].step()
    assert recorder.values(DEAD_LETTER, log="outbox", group="g") == [1]


@shows(STEP)
async def test_a_step_is_how_long_one_step_of_a_loop_took(env: fp.Env, clock: ManualClock, recorder: Recorder) -> None:
    async def step() -> float:
        clock.advance(1.5)
        return 60.0

    worker = fp.Worker(env, Scripted("slow", step))
    task = asyncio.create_task(worker.run())
    await until(lambda: recorder.emitted)
    worker.stop()
    await within(task)
    assert recorder.values(STEP, loop="slow") == [1.5]


@shows(LOOP_RESTART)
async def test_a_loop_that_dies_is_counted_and_named(env: fp.Env, clock: ManualClock, recorder: Recorder) -> None:
    async def step() -> float:
        raise ValueError("no")

    worker = fp.Worker(env, Scripted("weak", step))
    task = asyncio.create_task(worker.run())
    await settle()
    assert recorder.values(LOOP_RESTART, loop="weak", error="ValueError") == [1]
    clock.advance(1.0)
    await settle()
    assert recorder.values(LOOP_RESTART, loop="weak") == [1, 1]
    worker.stop()
    await within(task)


@shows(RETRY, BUDGET_SPENT)
async def test_retries_are_counted_and_so_are_those_that_the_budget_refused(recorder: Recorder) -> None:
    env = env_of(clock=ManualClock(flows=True), signals=Signals(sinks=[recorder]))
    retry = fp.Retry(env, fp.RetryPolicy(attempts=5), fp.RetryBudget(ratio=0.0, burst=2.0))

    async def busy() -> None:
        raise Busy("locked")

    with pytest.raises(RetriesExhausted):
        await retry.call(busy)
    assert recorder.values(RETRY) == [1, 1]
    assert recorder.values(BUDGET_SPENT) == [1]


async def leases_of(connect: Connect, env: fp.Env, owner: str) -> Leases:
    database = await connect(env)
    await database.install(database.claims.schema)
    await database.transact(database.claims.add("job", ["1", "2", "3"]))
    return Leases(database, "job", owner=owner, ttl=5.0, share=False)


@shows(STUCK)
async def test_stuck_counts_the_claims_that_expired_unfinished_and_were_taken_over(
    connect: Connect, env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    first, second = await leases_of(connect, env, "first"), await leases_of(connect, env, "second")
    await first.tend()
    await second.tend()
    assert recorder.values(STUCK) == []
    clock.advance(5.0)
    await second.tend()
    assert recorder.values(STUCK, kind="job") == [3]


@shows(LOOP_LAG)
async def test_loop_lag_is_by_how_much_a_blocked_loop_overran_its_lease(
    connect: Connect, env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    leases = await leases_of(connect, env, "blocked")
    await leases.tend()
    clock.advance(4.9)
    leases.held()
    assert recorder.values(LOOP_LAG) == []
    clock.advance(2.1)
    await leases.tend()
    assert recorder.values(LOOP_LAG, kind="job") == [pytest.approx(2.0)]


@shows(SAGA_STEP, SAGA_ATTENTION, SAGA_STUCK)
async def test_of_a_saga_each_attempt_is_timed_and_one_that_needs_a_person_is_told_and_counted(
    connect: Connect, env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    async def refused(context: fp.StepContext[int]) -> None:
        clock.advance(2.0)
        raise Failed("no")

    async def fine(context: fp.StepContext[int]) -> None: ...

    first, behind = fp.Step.remote(fine, timeout=9.0), fp.Step.remote(refused, timeout=9.0)
    saga = fp.Saga(await connect(env), "order", input=int, steps=[first, behind], pivot=first)
    await saga.install()
    await saga.start("o-1", 1)
    runner, retention = saga.runner(), saga.retention()
    await retention.step()
    assert recorder.values(SAGA_STUCK, saga="order") == [0]
    await runner.open()
    await runner.step()
    await until(lambda: runner.under_way == 0)
    assert recorder.values(SAGA_STEP, saga="order") == [0.0, pytest.approx(2.0)]
    assert recorder.values(SAGA_ATTENTION, saga="order", step="refused") == [1]
    await retention.step()
    assert recorder.values(SAGA_STUCK, saga="order")[-1] == 1
    await saga.close()


# --- sinks ------------------------------------------------------------------------------------------------------------


async def test_a_sink_that_raises_harms_neither_the_work_nor_the_other_sinks(
    connect: Connect, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(signal: Signal, value: float, attributes: Any) -> None:
        raise RuntimeError("the exporter is gone")

    outbox = await shop_of(connect, env_of(signals=Signals(sinks=[broken, recorder, broken])))
    delivered = []

    async def handler(event: fp.Event[Any], tx: Transaction) -> None:
        delivered.append(event.id)

    id = await outbox.publish({}, key="a", type="noted")
    for loop in (outbox.sequencer(), outbox.consumer("g", handler)):
        await loop.open()
        await loop.step()
    assert delivered == [id]
    assert recorder.values(LOCK_WAIT)
    assert "a signal sink failed on faultproof.lock.wait" in caplog.text


def test_what_wants_a_person_is_logged_as_a_warning_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "faultproof")
    signals = Signals(sinks=[log_sink])
    for signal in ALL:
        signals.emit(signal, 1.5, queue="mail")
    levels = {record.getMessage().split()[0]: record.levelname for record in caplog.records}
    assert levels == {signal.name: "WARNING" if signal.alarming else "DEBUG" for signal in ALL}
    assert "faultproof.queue.age 1.5 s {'queue': 'mail'}" in caplog.messages
    alarming = {signal.name.removeprefix("faultproof.") for signal in ALL if signal.alarming}
    assert alarming == {"budget.spent", "dead_letter", "stuck", "loop.restart", "loop.lag", "saga.attention"} | {
        "breaker.opened",
        "endpoint.ejected",
        "endpoint.down",
        "calls.shed",
        "flags.stale",
        "session.unknown",
    }


def test_opentelemetry_gets_every_signal_with_its_kind_unit_and_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    sink = opentelemetry_sink()
    assert sink is not None
    signals = Signals(sinks=[sink])
    for signal in ALL:
        for value in (2, 3):
            signals.emit(signal, value, kind="job")
    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == "faultproof"
    got = {metric.name: metric for metric in scope.metrics}
    assert set(got) == {signal.name for signal in ALL}
    for signal in ALL:
        metric = got[signal.name]
        point: Any
        (point,) = metric.data.data_points
        assert (metric.unit, metric.description) == (signal.unit, signal.meaning)
        assert dict(point.attributes) == {"kind": "job"}
        if signal.kind == "count":
            assert point.value == 5
        elif signal.kind == "gauge":
            assert point.value == 3
        else:
            assert (point.sum, point.count) == (5, 2)
    provider.shutdown()


WITHOUT_OPENTELEMETRY = """
import sys
sys.modules["opentelemetry"] = None  # an import of it raises ImportError now
import logging
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(levelname)s %(message)s")
import faultproof as fp
from faultproof.signals import STUCK, opentelemetry_sink
assert opentelemetry_sink() is None
fp.Env().signals.emit(STUCK, 2, kind="job")
"""


def test_without_opentelemetry_signals_go_to_logging() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPENTELEMETRY], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "WARNING faultproof.stuck 2 claims {'kind': 'job'}\n"


@shows(HOLDS_EXPIRED)
async def test_holds_whose_time_ran_out_are_counted_when_their_stock_is_returned(
    connect: Connect, env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    escrow = fp.Escrow(await connect(env))
    await escrow.install()
    await escrow.restock("milk", 3, key="d-1")
    for n in range(3):
        await escrow.reserve({"milk": 1}, key=f"o-{n}", ttl=10.0 * (n + 1))
    loop = escrow.expiry()
    assert await loop.step() == 1.0
    assert recorder.values(HOLDS_EXPIRED) == []
    clock.now += 20.0
    assert await loop.step() == 0.0
    assert recorder.values(HOLDS_EXPIRED, escrow="stock") == [2]


@shows(BREAKER_OPENED, BREAKER_STATE)
def test_a_breaker_tells_each_change_of_its_state_and_alarms_when_it_opens(
    env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    breaker = Breaker(env, BreakerPolicy(minimum_calls=1, probes=1), name="till")
    for outcome in (Outcome.FAILED, Outcome.FAILED, Outcome.OK):
        token = breaker.try_enter(clock.now)
        assert token is not None
        breaker.leave(token, outcome, 0.1, clock.now)
        clock.advance(4.0)
    assert recorder.values(BREAKER_STATE, breaker="till") == [2, 1, 2, 1, 0]
    assert recorder.values(BREAKER_OPENED, breaker="till") == [1, 1]


@shows(ENDPOINT_EJECTED, ENDPOINT_DOWN, ENDPOINTS_USABLE)
async def test_an_endpoint_that_is_ejected_or_down_alarms_and_those_that_are_left_are_counted(
    env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    endpoints = Endpoints(env, [Endpoint(name) for name in "abc"], name="tills")
    a, b, _ = endpoints.all
    Outliers(env, endpoints, OutlierPolicy(in_a_row=1, eject_for=30.0)).ended(a, False, clock.now, clock.now)
    endpoints.usable(clock.now)

    async def is_well(endpoint: Endpoint) -> bool:
        return endpoint is not b

    checks = HealthChecks(env, endpoints, is_well, HealthPolicy(fall=1))
    clock.advance(5.0)
    await checks.step()
    await settle()
    endpoints.usable(clock.now)
    assert recorder.values(ENDPOINT_EJECTED, group="tills", endpoint="a") == [1]
    assert recorder.values(ENDPOINT_DOWN, group="tills", endpoint="b") == [1]
    assert recorder.values(ENDPOINTS_USABLE, group="tills") == [2, 1]


@shows(PERMITS_IN_FLIGHT, PERMITS_SHED, PERMITS_LIMIT)
async def test_a_full_bulkhead_says_how_full_it_is_what_it_refuses_and_how_much_it_bears(
    env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    adaptive = fp.AdaptivePolicy(latency=1.0, round=1)
    policy = fp.BulkheadPolicy(concurrency=2, queue=0, wait=5.0, adaptive=adaptive)
    bulkhead = fp.Bulkhead(env, policy, name="tills")
    held = [await bulkhead.permit().__aenter__() for _ in range(2)]
    with pytest.raises(Overloaded):
        await bulkhead.run(settle)
    assert recorder.values(PERMITS_SHED, bulkhead="tills", tenant="") == [1]
    clock.now += 3.0
    for permit in held:
        permit.give_back(None)
    assert recorder.values(PERMITS_LIMIT, bulkhead="tills") == [1]

    waits = fp.Bulkhead(env, fp.BulkheadPolicy(concurrency=1, queue=1), name="queued")
    permit = await waits.permit().__aenter__()
    waiter = asyncio.ensure_future(waits.run(settle))
    await settle()
    assert recorder.values(PERMITS_IN_FLIGHT, bulkhead="queued") == [1]
    permit.give_back(None)
    await waiter


@shows(SHARDS_MISSING)
async def test_shards_that_gave_no_answer_are_counted(env: fp.Env, recorder: Recorder) -> None:
    async def ask(shard: str, number: int) -> str:
        if shard != "a":
            raise ConnectionError("refused")
        return shard

    await fp.ScatterGather(fp.GatherPolicy(at_least=1), env=env).gather(["a", "b", "c"], ask)
    assert recorder.values(SHARDS_MISSING) == [2]


@shows(HEDGE, HEDGE_WON)
async def test_hedges_are_counted_and_those_that_win(env: fp.Env, clock: ManualClock, recorder: Recorder) -> None:
    async def send(endpoint: fp.Endpoint, attempt: int) -> str:
        await clock.sleep(50.0 if attempt == 1 else 5.0)
        return endpoint.name

    endpoints = [fp.Endpoint("a"), fp.Endpoint("b")]
    requests = fp.HedgedRequest(endpoints, fp.HedgePolicy(at_first=10.0), timeout=100.0, env=env)
    call = asyncio.ensure_future(requests.call(send))
    for _ in range(15):
        await settle()
        clock.advance(1.0)
    hedged = await call
    assert recorder.values(HEDGE, endpoint=hedged.endpoint.name) == [1]
    assert recorder.values(HEDGE_WON) == [1]


@shows(FLAG_CHANGED, FLAGS_STALE)
async def test_a_flag_that_has_changed_is_counted_and_what_it_cannot_be_is_told_once(
    env: fp.Env, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "flags.toml"
    path.write_text("on = true")
    async with fp.Flags({"on": False, "share": 0.5}, fp.FlagFile(path), env=env) as flags:
        assert recorder.values(FLAG_CHANGED) == recorder.values(FLAG_CHANGED, flag="on") == [1]
        path.unlink()
        for _ in range(3):
            await flags.look()
        assert recorder.values(FLAGS_STALE) == [1]
        assert next(a["error"] for s, _, a in recorder.emitted if s is FLAGS_STALE).startswith("CannotOpen: ")


@shows(SHADOW_DIFFERENT, SHADOW_DROPPED, SHADOW_FAILED)
async def test_what_a_shadow_s_candidate_does_is_counted_and_what_it_is_not_given(
    env: fp.Env, clock: ManualClock, recorder: Recorder
) -> None:
    async def candidate(request: str) -> str:
        if request == "hangs":
            await clock.sleep(9.0)
        if request == "fails":
            raise ValueError
        return request

    policy = fp.ShadowPolicy(concurrency=1, queue=3, timeout=2.0)
    shadow = fp.Shadow[str, str](candidate, share=1.0, is_safe=lambda r: r != "w", policy=policy, env=env, name="price")
    for request, answer in (("hangs", "a"), ("fails", "a"), ("b", "a"), ("a", "a"), ("c", "a"), ("w", "a")):
        shadow.offer(request, answer)
    await settle()
    clock.advance(2.0)
    await shadow.drain()
    assert recorder.values(SHADOW_FAILED, shadow="price", how="timeout") == [1]
    assert recorder.values(SHADOW_FAILED, shadow="price", how="error") == [1]
    assert recorder.values(SHADOW_DIFFERENT, shadow="price") == [1, 1]
    assert recorder.values(SHADOW_DROPPED, reason="queue is full") == [2]
    assert len(recorder.values(SHADOW_DROPPED)) == 1


@shows(CALLS_SHED)
async def test_a_call_that_a_client_sheds_is_counted(env: fp.Env, recorder: Recorder) -> None:
    client = fp.Client([fp.Endpoint("a")], fp.Policy(calls=1), env=env, name="till")

    async def call(endpoint: fp.Endpoint, attempt: int) -> None:
        with pytest.raises(Overloaded):
            await client.call(call)

    await client.call(call)
    assert recorder.values(CALLS_SHED, client="till") == [1]


@shows(REQUEST_REPLAYED, REQUEST_SUPERSEDED, REQUEST_LATE)
async def test_requests_that_are_not_carried_out_are_counted(connect: Connect, recorder: Recorder) -> None:
    db = await connect(env_of(signals=Signals(sinks=[recorder])))
    app = fp.Idempotent(_answers, db)
    await app.install()
    transport = httpx.ASGITransport(fp.Deadlines(app, env=db.env))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        for key, number, left in (("a", 2, 9_000), ("a", 2, 9_000), ("b", 1, 9_000), ("c", 3, 0)):
            headers = {"idempotency-key": key, "session-id": "s", "session-sequence": str(number)}
            await http.post("/", headers={**headers, "deadline-remaining-ms": str(left)})
    counted = (REQUEST_REPLAYED, REQUEST_SUPERSEDED, REQUEST_LATE)
    assert [recorder.values(signal) for signal in counted] == [[1], [1], [1]]


async def _answers(scope: Any, receive: Any, respond: Any) -> None:
    await respond({"type": "http.response.start", "status": 200, "headers": []})
    await respond({"type": "http.response.body"})


@shows(SESSION_UNKNOWN)
async def test_requests_of_which_nobody_knows_are_counted(env: fp.Env, recorder: Recorder) -> None:
    async def send(sent: fp.Envelope) -> None:
        raise ConnectionResetError

    session = fp.ClientSession[None](env=env, budget=fp.RetryBudget(ratio=0.0, burst=1.0))
    call = asyncio.ensure_future(session.call(send))
    await settle()
    env.clock.advance(10.0)  # type: ignore[attr-defined]
    with pytest.raises(OutcomeUnknown):
        await call
    assert recorder.values(SESSION_UNKNOWN) == [1]

"""`ClientSession`: calls in order, each settled before the next is sent, and what is unknown is asked again."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.errors import (
    DeadlineExceeded,
    Failed,
    InvalidInput,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    RetriesExhausted,
    Superseded,
    TryAgain,
)
from faultproof.patterns.request_response.judging import judge
from faultproof.primitives import attempts
from faultproof.signals import SESSION_UNKNOWN, Signals
from tests.fakes import ManualClock, Recorder, env_of, settle

pytestmark = pytest.mark.anyio


class Response(NamedTuple):
    """As an HTTP library has them."""

    status: int
    headers: dict[str, str]


OK = Response(200, {})
Does = Callable[[], Awaitable[Response]] | Response | Exception


class Server:
    """Does with each attempt what it is told to, and with the rest that it answers."""

    def __init__(self, *does: Does) -> None:
        self.does = list(does)
        self.came: list[fp.Envelope] = []

    async def send(self, sent: fp.Envelope) -> Response:
        self.came.append(sent)
        does = self.does.pop(0) if self.does else OK
        if isinstance(does, Exception):
            raise does
        return does if isinstance(does, Response) else await does()

    @property
    def order(self) -> list[tuple[int, int]]:
        """Number and attempt of what came."""
        return [(sent.number, sent.attempt) for sent in self.came]


def refused(why: str, status: int = 409, **headers: str) -> Response:
    return Response(status, {"request-refused": why, **headers})


async def hangs() -> Response:
    await asyncio.Event().wait()
    return OK


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(flows=True)


@pytest.fixture
def env(clock: ManualClock, recorder: Recorder) -> Env:
    return env_of(clock=clock, signals=Signals(sinks=[recorder]))


@pytest.fixture
def session(env: Env) -> fp.ClientSession[Response]:
    return fp.ClientSession(env=env)


async def test_requests_are_numbered_and_a_key_is_made_of_session_and_number(
    session: fp.ClientSession[Response],
) -> None:
    server = Server()
    for _ in range(2):
        assert await session.call(server.send) is OK
    headers = [sent.headers for sent in server.came]
    assert [each["session-id"] for each in headers] == [session.id] * 2
    assert [each["session-sequence"] for each in headers] == ["1", "2"]
    assert [each["idempotency-key"] for each in headers] == [f"{session.id}-1", f"{session.id}-2"]
    assert [each["deadline-remaining-ms"] for each in headers] == ["30000"] * 2
    assert [each["attempt"] for each in headers] == ["1/10"] * 2


@pytest.mark.parametrize(
    "does",
    [
        ConnectionResetError("cut"),
        OutcomeUnknown("perhaps"),
        TryAgain("nothing was sent"),
        Response(503, {}),
        Response(500, {}),
        Response(408, {}),
        Response(429, {}),
        refused("in-progress"),
        refused("earlier-in-progress"),
        refused("too-late", 504),
    ],
    ids=str,
)
async def test_what_is_no_answer_is_asked_again_with_the_same_key(
    session: fp.ClientSession[Response], does: Does
) -> None:
    server = Server(does, does)
    assert await session.call(server.send) is OK
    assert server.order == [(1, 1), (1, 2), (1, 3)]
    assert len({sent.key for sent in server.came}) == 1
    assert [sent.headers["attempt"] for sent in server.came] == ["1/10", "2/10", "3/10"]
    assert session.unsettled is None


@pytest.mark.parametrize(
    "response",
    [
        Response(201, {}),
        Response(404, {}),
        Response(409, {}),
        refused("too-large", 413),
        refused("bad-header", 400),
        refused("answer-too-large", 500),
    ],
    ids=str,
)
async def test_an_answer_is_an_answer_also_where_it_says_no(
    session: fp.ClientSession[Response], response: Response
) -> None:
    server = Server(response)
    assert await session.call(server.send) is response
    assert (server.order, session.unsettled) == ([(1, 1)], None)


async def test_what_the_server_says_about_when_to_come_back_is_obeyed(
    session: fp.ClientSession[Response], clock: ManualClock
) -> None:
    await session.call(Server(refused("in-progress", **{"retry-after": "7"})).send)
    assert clock.slept == [7.0]


async def test_calls_take_effect_in_their_order_and_never_overlap(session: fp.ClientSession[Response]) -> None:
    running, most = 0, 0

    async def slowly() -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await settle()
        running -= 1
        return OK

    server, finished = Server(*[slowly] * 20), list[int]()

    async def call(number: int) -> None:
        await session.call(server.send)
        finished.append(number)

    await asyncio.gather(*map(call, range(20)))
    assert (most, finished) == (1, list(range(20)))
    assert server.order == [(number, 1) for number in range(1, 21)]


async def test_what_stays_unknown_says_so_and_the_next_call_settles_it_first(
    session: fp.ClientSession[Response], recorder: Recorder
) -> None:
    lost, server = Server(*[ConnectionResetError("cut")] * 10), Server()
    with pytest.raises(
        OutcomeUnknown, match="nobody knows whether number 1 of this session happened, after 10 attempts"
    ):
        await session.call(lost.send)
    assert (session.unsettled, recorder.values(SESSION_UNKNOWN)) == (1, [1])
    assert await session.call(server.send) is OK
    assert lost.order[-1] == (1, 11)
    assert lost.came[-1].key == lost.came[0].key
    assert server.order == [(2, 1)]
    assert session.unsettled is None


async def test_while_it_cannot_be_settled_nothing_else_is_sent(session: fp.ClientSession[Response], env: Env) -> None:
    session = fp.ClientSession(env=env, budget=fp.RetryBudget(burst=1_000))
    lost, server = Server(*[ConnectionResetError("cut")] * 20), Server()
    with pytest.raises(OutcomeUnknown):
        await session.call(lost.send)
    with pytest.raises(TryAgain, match="what became of number 1 of this session: nothing of this one was sent"):
        await session.call(server.send)
    assert (server.came, session.unsettled) == ([], 1)
    assert await session.call(server.send) is OK
    assert server.order == [(2, 1)], "what was not sent has used up no number"


async def test_who_was_told_unknown_can_settle_it_and_gets_the_answer(session: fp.ClientSession[Response]) -> None:
    assert await session.settle() is None
    answer = Response(201, {"location": "/1"})
    lost = Server(*[ConnectionResetError("cut")] * 10, answer)
    with pytest.raises(OutcomeUnknown):
        await session.call(lost.send)
    assert await session.settle() is answer
    assert session.unsettled is None
    assert (await session.settle(), len(lost.came)) == (answer, 11), "and once more without asking"


async def test_the_answer_is_kept_for_who_asks_although_another_call_has_settled_it(
    session: fp.ClientSession[Response],
) -> None:
    answer = Response(201, {"location": "/1"})
    with pytest.raises(OutcomeUnknown):
        await session.call(_lost(answer).send)
    await session.call(Server().send)
    assert await session.settle() is answer


def _lost(answer: Response) -> Server:
    return Server(*[ConnectionResetError("cut")] * 10, answer)


async def test_what_is_given_up_is_not_asked_again(session: fp.ClientSession[Response]) -> None:
    lost, server = _lost(OK), Server()
    with pytest.raises(OutcomeUnknown):
        await session.call(lost.send)
    assert session.give_up() == 1
    assert session.give_up() is None
    await session.call(server.send)
    assert (len(lost.came), server.order) == (10, [(2, 1)])
    assert await session.settle() is None


async def test_a_caller_that_is_cancelled_while_its_request_is_out_leaves_it_to_be_settled(
    session: fp.ClientSession[Response],
) -> None:
    first, second = Server(hangs), Server()
    call = asyncio.ensure_future(session.call(first.send))
    await settle()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert session.unsettled == 1
    assert await session.call(second.send) is OK
    assert (first.order, second.order) == ([(1, 1), (1, 2)], [(2, 1)])


async def test_cancels_at_any_moment_leave_no_turn_taken_and_nothing_unsettled_behind_what_comes_next(env: Env) -> None:
    """Two hundred callers, most of which are cancelled somewhere: waiting, sending, backing off, settling."""
    session = fp.ClientSession(fp.SessionOptions(queue=1_000), env=env, budget=fp.RetryBudget(burst=100_000))
    rng, effects = random.Random(7), list[int]()
    open_numbers = set[int]()

    async def send(sent: fp.Envelope) -> Response:
        assert not open_numbers, "another request of the session is out"
        open_numbers.add(sent.number)
        try:
            for _ in range(int(rng.random() * 4)):
                await asyncio.sleep(0)
            if not effects or effects[-1] < sent.number:
                effects.append(sent.number)
            assert effects[-1] == sent.number
            await asyncio.sleep(0)
            return OK if rng.random() < 0.7 else Response(503, {})
        finally:
            open_numbers.discard(sent.number)

    calls = [asyncio.ensure_future(session.call(send)) for _ in range(200)]
    while not all(call.done() for call in calls):
        victim = calls[int(rng.random() * len(calls))]
        if rng.random() < 0.3:
            victim.cancel()
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in outcomes} == {Response, asyncio.CancelledError}
    assert await session.call(send) is OK
    assert session.unsettled is None
    assert effects == sorted(set(effects))
    assert len(effects) > sum(isinstance(each, Response) for each in outcomes)


async def test_more_calls_than_may_wait_are_shed(env: Env) -> None:
    session, server = fp.ClientSession[Response](fp.SessionOptions(queue=1), env=env), Server(hangs)
    calls = [asyncio.ensure_future(session.call(server.send)) for _ in range(2)]
    await settle()
    with pytest.raises(Overloaded, match="1 calls wait for their turn in this session already: nothing was sent"):
        await session.call(server.send)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert server.order == [(1, 1)]


async def test_a_turn_that_does_not_come_in_time_is_not_waited_for(recorder: Recorder) -> None:
    clock = ManualClock()
    session = fp.ClientSession[Response](
        fp.SessionOptions(timeout=5.0, attempt_timeout=100.0), env=env_of(clock=clock, signals=Signals([recorder]))
    )
    first, second = Server(hangs), Server()
    calls = [asyncio.ensure_future(session.call(server.send)) for server in (first, second)]
    await settle()
    clock.advance(5.0)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[0], OutcomeUnknown)
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert (second.came, session.unsettled, recorder.values(SESSION_UNKNOWN)) == ([], 1, [1])


async def test_an_attempt_that_is_not_answered_is_cut_off_and_made_again() -> None:
    clock = ManualClock()
    session = fp.ClientSession[Response](fp.SessionOptions(attempt_timeout=2.0), env=env_of(clock=clock))
    server = Server(hangs)
    call = asyncio.ensure_future(session.call(server.send))
    await settle()
    clock.advance(2.0)
    await settle()
    clock.advance(1.0)
    assert await call is OK
    assert server.order == [(1, 1), (1, 2)]
    assert int(server.came[1].headers["deadline-remaining-ms"]) == 27_000


async def test_the_caller_s_own_deadline_counts_where_it_is_earlier(
    session: fp.ClientSession[Response], clock: ManualClock
) -> None:
    server = Server()
    with fp.within(1.5, clock):
        await session.call(server.send)
        clock.now += 1.5
        with pytest.raises(DeadlineExceeded):
            await session.call(server.send)
    assert [sent.headers["deadline-remaining-ms"] for sent in server.came] == ["1500"]


async def test_what_certainly_was_not_sent_leaves_nothing_unknown(
    session: fp.ClientSession[Response], recorder: Recorder
) -> None:
    with pytest.raises(RetriesExhausted):
        await session.call(Server(*[TryAgain("the breaker is open")] * 10).send)
    with pytest.raises(Failed, match="no such thing"):
        await session.call(Server(Failed("no such thing")).send)
    assert (session.unsettled, recorder.emitted and recorder.values(SESSION_UNKNOWN)) == (None, [])


async def test_an_attempt_that_was_not_sent_does_not_make_an_earlier_one_known(
    session: fp.ClientSession[Response],
) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await session.call(Server(ConnectionResetError("cut"), *[TryAgain("the breaker is open")] * 9).send)
    assert isinstance(caught.value.__cause__, RetriesExhausted)
    assert session.unsettled == 1


async def test_a_session_that_was_overtaken_does_not_ask_any_more(session: fp.ClientSession[Response]) -> None:
    with pytest.raises(Superseded):
        await session.call(Server(refused("superseded")).send)
    with pytest.raises(OutcomeUnknown):
        await session.call(Server(ConnectionResetError("cut"), refused("superseded")).send)
    assert session.unsettled is None, "it never will be carried out any more, and whether it was nobody can say"
    lost = Server(*[ConnectionResetError("cut")] * 10, refused("superseded"))
    with pytest.raises(OutcomeUnknown):
        await session.call(lost.send)
    assert await session.call(Server().send) is OK
    assert (len(lost.came), session.unsettled) == (11, None)


async def test_a_request_that_says_something_else_when_it_is_repeated_is_a_mistake(
    session: fp.ClientSession[Response],
) -> None:
    with pytest.raises(KeyReused, match="number 1 of this session was sent before with other content"):
        await session.call(Server(Response(503, {}), refused("other-content", 422)).send)
    assert session.unsettled is None
    lost = Server(*[ConnectionResetError("cut")] * 10, refused("other-content", 422))
    with pytest.raises(OutcomeUnknown):
        await session.call(lost.send)
    assert await session.call(Server().send) is OK


async def test_a_key_of_one_s_own_is_sent_instead(session: fp.ClientSession[Response]) -> None:
    server = Server()
    await session.call(server.send, key="order-7")
    assert (server.came[0].key, server.came[0].headers["idempotency-key"]) == ("order-7", "order-7")
    for key in ("", "x" * 201):
        with pytest.raises(InvalidInput):
            await session.call(server.send, key=key)
    assert len(server.came) == 1


async def test_where_somebody_above_repeats_there_is_one_attempt(session: fp.ClientSession[Response]) -> None:
    server = Server(ConnectionResetError("cut"))
    with attempts.numbered(2, 3), pytest.raises(OutcomeUnknown):
        await session.call(server.send)
    assert [sent.headers["attempt"] for sent in server.came] == ["2/3"]
    with attempts.numbered(3, 3):
        assert await session.settle() is OK


async def test_what_is_called_inside_an_attempt_does_not_repeat(session: fp.ClientSession[Response], env: Env) -> None:
    server = Server(*[TryAgain("no")] * 2)

    async def send(sent: fp.Envelope) -> Response:
        return await fp.Retry(env).call(lambda: server.send(sent))

    assert await session.call(send) is OK
    assert server.order == [(1, 1), (1, 2), (1, 3)]


async def test_the_budget_is_spent_and_then_nothing_is_repeated(env: Env) -> None:
    session = fp.ClientSession[Response](env=env, budget=fp.RetryBudget(ratio=0.0, burst=2.0))
    server = Server(*[ConnectionResetError("cut")] * 10)
    with pytest.raises(OutcomeUnknown):
        await session.call(server.send)
    assert len(server.came) == 3


async def test_responses_that_cannot_be_judged_need_a_judge(env: Env) -> None:
    async def send(sent: fp.Envelope) -> str:
        return "fine"

    with pytest.raises(OutcomeUnknown) as caught:
        await fp.ClientSession[str](env=env).call(send)
    assert "give the session `judge`" in str(caught.value.__cause__)
    assert await fp.ClientSession[str](env=env, judge=lambda said: fp.Understood("answer")).call(send) == "fine"


@pytest.mark.parametrize("text", ["soon", "-1", "1.5", "123456", "٣"])
def test_what_is_no_number_of_seconds_is_not_waited_for(text: str) -> None:
    assert judge(Response(503, {"retry-after": text})).retry_after is None


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0.0}, {"attempt_timeout": float("inf")}, {"queue": -1}, {"retry": fp.RetryPolicy()}],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        fp.SessionOptions(**options)  # type: ignore[arg-type]

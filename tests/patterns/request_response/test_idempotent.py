"""`Idempotent`: one effect and one answer for each key, each session in order, and limits on all that comes from outside."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

import faultproof as fp
from faultproof.errors import InvalidInput, LeaseLost, OutcomeUnknown, PayloadTooLarge
from faultproof.patterns.request_response import Answer, Client, Http, HttpxExchange, Policy, Result
from faultproof.ports.database import Database
from faultproof.signals import REQUEST_REPLAYED, REQUEST_SUPERSEDED
from tests.fakes import ManualClock, Recorder, env_of, settle, until, within
from tests.patterns.request_response.conftest import Elapse
from tests.patterns.request_response.till import OPTIONS, Till

pytestmark = pytest.mark.anyio


def of(session: str, number: int) -> dict[str, str]:
    """The headers of a request of a session."""
    return {"idempotency-key": f"{session}-{number}", "session-id": session, "session-sequence": str(number)}


async def add(http: httpx.AsyncClient, adds: int, headers: dict[str, str] | str) -> httpx.Response:
    given = {"idempotency-key": headers} if isinstance(headers, str) else headers
    return await within(http.post("/till", content=b"%d" % adds, headers=given))


@pytest.mark.parametrize("together", [True, False])
async def test_the_same_request_again_gets_the_first_answer_and_has_no_effect(
    till: Till, http: httpx.AsyncClient, recorder: Recorder, together: bool
) -> None:
    till.together = together
    first = await add(http, 7, "k1")
    await add(http, 1, "k2")
    again = await add(http, 7, "k1")
    assert (first.status_code, first.text, "idempotent-replayed" in first.headers) == (201, "7", False)
    assert (again.status_code, again.text, again.headers["idempotent-replayed"]) == (201, "7", "true")
    assert (again.headers["location"], again.headers["content-type"]) == ("/till/1", "application/json")
    assert await till.added() == [7, 1]
    assert till.calls == 2
    assert recorder.values(REQUEST_REPLAYED) == [1]


async def test_of_an_answer_that_is_stored_afterwards_only_chosen_headers_are_kept(
    till: Till, http: httpx.AsyncClient
) -> None:
    till.together = False
    await add(http, 7, "k1")
    again = await add(http, 7, "k1")
    assert again.headers["location"] == "/till/1"
    assert {"set-cookie", "x-other"}.isdisjoint(again.headers)


@pytest.mark.parametrize("together", [True, False])
async def test_fifty_duplicates_at_once_have_one_effect_and_one_answer(
    till: Till, http: httpx.AsyncClient, together: bool
) -> None:
    till.together = together
    answers = await asyncio.gather(*(add(http, 7, of("s", 1)) for _ in range(50)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, "7")}
    assert (till.calls, await till.added()) == (1, [7])


async def test_a_duplicate_does_not_wait_longer_than_it_is_to(db: Database) -> None:
    till = Till(db, fp.IdempotentOptions(wait=0.0))
    await till.install()
    hangs = asyncio.Event()
    till.before = hangs.wait
    async with till.client() as http:
        first = asyncio.ensure_future(add(http, 7, "k1"))
        await until(lambda: till.calls)
        second = await add(http, 7, "k1")
        hangs.set()
        assert (await first).status_code == 201
    assert (second.status_code, second.headers["request-refused"]) == (409, "in-progress")
    assert 0 < int(second.headers["retry-after"]) <= 10
    assert till.calls == 1


async def test_nor_longer_than_its_own_deadline_and_nothing_is_begun_behind_it(
    till: Till, http: httpx.AsyncClient
) -> None:
    hangs = asyncio.Event()
    till.before = hangs.wait
    first = asyncio.ensure_future(add(http, 7, "k1"))
    await until(lambda: till.calls)
    second = await add(http, 7, {"idempotency-key": "k1", "deadline-remaining-ms": "30"})
    hangs.set()
    assert (await first).status_code == 201
    assert (second.status_code, second.headers["request-refused"]) == (409, "in-progress")
    late = await add(http, 1, {"idempotency-key": "k2", "deadline-remaining-ms": "0"})
    assert (late.status_code, late.headers["request-refused"]) == (504, "too-late")
    assert (till.calls, await till.added()) == (1, [7])


async def test_what_has_waited_for_the_database_until_its_deadline_is_not_begun(till: Till) -> None:
    clock = ManualClock()
    app = fp.Deadlines(till.idempotent, env=env_of(clock=clock))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://till") as http:
        holder = till.db.transaction()
        tx = await holder.__aenter__()
        await tx.execute(
            "INSERT INTO faultproof_idempotency (scope, key, fingerprint, token, until_us, at_us) "
            "VALUES ('http', 'k', 'f', 1, 0, 0)"
        )
        # In a context of its own: the transaction that is open here is not its.
        call = contextvars.Context().run(
            asyncio.ensure_future, add(http, 1, {"idempotency-key": "k", "deadline-remaining-ms": "1000"})
        )
        await settle()
        clock.advance(2.0)
        await holder.__aexit__(ValueError, ValueError(), None)
        late = await call
        assert (late.status_code, late.headers["request-refused"], till.calls) == (504, "too-late", 0)
        assert (await add(http, 1, "k")).status_code == 201, "and the key is free"


@pytest.mark.parametrize("change", ["content", "path", "query", "method"])
async def test_a_key_that_is_used_for_something_else_is_refused(
    till: Till, http: httpx.AsyncClient, change: str
) -> None:
    await add(http, 7, "k1")
    refused = await http.request(
        "DELETE" if change == "method" else "POST",
        {"path": "/other", "query": "/till?a=b"}.get(change, "/till"),
        content=b"8" if change == "content" else b"7",
        headers={"idempotency-key": "k1"},
    )
    assert (refused.status_code, refused.headers["request-refused"]) == (422, "other-content")
    assert refused.headers["content-type"] == "application/problem+json"
    assert "was used before with other content" in refused.json()["detail"]
    assert await till.added() == [7]


async def test_a_request_that_comes_behind_a_later_one_of_its_session_never_takes_effect(
    till: Till, http: httpx.AsyncClient, recorder: Recorder
) -> None:
    await add(http, 1, of("s", 1))
    await add(http, 3, of("s", 3))
    late = await add(http, 2, of("s", 2))
    assert (late.status_code, late.headers["request-refused"]) == (409, "superseded")
    assert (await add(http, 1, of("s", 1))).text == "1", "what was answered is answered again"
    assert await till.added() == [1, 3]
    assert recorder.values(REQUEST_SUPERSEDED) == [1]
    assert (await add(http, 2, of("other", 2))).status_code == 201, "other sessions have nothing to do with it"


async def test_a_request_waits_its_turn_while_an_earlier_one_of_its_session_is_at_work(
    till: Till, http: httpx.AsyncClient
) -> None:
    hangs = asyncio.Event()
    till.before = hangs.wait
    first = asyncio.ensure_future(add(http, 1, of("s", 1)))
    await until(lambda: till.calls)
    early = await add(http, 2, of("s", 2))
    hangs.set()
    assert (await first).text == "1"
    assert (early.status_code, early.headers["request-refused"]) == (409, "earlier-in-progress")
    assert 0 < int(early.headers["retry-after"]) <= 10
    assert (await add(http, 2, of("s", 2))).text == "3"
    assert await till.added() == [1, 2]


async def test_a_server_that_wakes_up_when_the_session_has_gone_on_leaves_no_effect(
    till: Till, http: httpx.AsyncClient, elapse: Elapse
) -> None:
    hangs = asyncio.Event()
    till.before = hangs.wait
    first = asyncio.ensure_future(add(http, 1, of("s", 1)))
    await until(lambda: till.calls)
    elapse(60.0)
    till.before = settle
    assert (await add(http, 2, of("s", 2))).text == "2"
    hangs.set()
    assert (await first).status_code in (500, 503)
    assert await till.added() == [2]
    assert (await add(http, 1, of("s", 1))).headers["request-refused"] == "superseded"


async def test_a_request_that_is_given_back_ends_no_other_one_s_turn(
    till: Till, http: httpx.AsyncClient, elapse: Elapse
) -> None:
    hangs, fails = asyncio.Event(), asyncio.Event()

    async def failing() -> None:
        await fails.wait()
        raise ZeroDivisionError

    async def begun(
        adds: int, headers: dict[str, str], does: Callable[[], Awaitable[object]]
    ) -> asyncio.Task[httpx.Response]:
        till.before, calls = does, till.calls
        task = asyncio.ensure_future(add(http, adds, headers))
        await until(lambda: till.calls > calls)
        return task

    left_behind = await begun(1, of("s", 1), failing)
    elapse(60.0)
    others = [await begun(2, of("s", 2), hangs.wait), await begun(4, of("t", 1), hangs.wait)]
    failed = await begun(8, of("u", 1), failing)
    fails.set()
    assert [(await each).status_code for each in (left_behind, failed)] == [500, 500]
    for session, number in (("s", 3), ("t", 2)):
        early = await add(http, 9, of(session, number))
        assert early.headers["request-refused"] == "earlier-in-progress"
    hangs.set()
    assert {(await each).status_code for each in others} == {201}
    assert sorted(await till.added()) == [2, 4]


async def test_an_answer_that_was_forgotten_is_not_made_again_for_a_session(
    till: Till, http: httpx.AsyncClient, elapse: Elapse
) -> None:
    await add(http, 1, of("s", 1))
    await add(http, 5, "k1")
    elapse(60.0)
    assert await till.idempotent.trim(older=30.0) == 2
    assert (await add(http, 1, of("s", 1))).headers["request-refused"] == "superseded"
    assert (await add(http, 5, "k1")).text == "11", "without a session nobody knows"
    elapse(600.0)
    assert await till.idempotent.trim(older=30.0) == 2, "and a session is forgotten ten times as late"


async def test_an_answer_of_500_is_not_stored_and_the_same_request_may_come_again(
    till: Till, http: httpx.AsyncClient
) -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    till.before = fails
    refused = await add(http, 1, of("s", 1))
    till.before = settle
    assert (refused.status_code, refused.text) == (500, "Internal Server Error")
    assert (await add(http, 1, of("s", 1))).text == "1"
    assert await till.added() == [1]


async def test_so_may_one_that_an_application_says_itself(till: Till, http: httpx.AsyncClient) -> None:
    till.together, till.status = False, 503
    refused = await add(http, 1, of("s", 1))
    till.status = 201
    answer = await add(http, 1, of("s", 1))
    assert (refused.status_code, answer.status_code, "idempotent-replayed" in answer.headers) == (503, 201, False)
    assert till.calls == 2


async def test_what_is_rolled_back_is_not_answered_with(till: Till, http: httpx.AsyncClient) -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    till.inside = fails
    assert (await add(http, 1, of("s", 1))).status_code == 500
    till.inside = settle
    answer = await add(http, 1, of("s", 1))
    assert (answer.text, "idempotent-replayed" in answer.headers) == ("1", False)
    assert await till.added() == [1]


async def test_what_was_committed_with_its_answer_counts_whatever_the_handler_does_then(
    till: Till, http: httpx.AsyncClient
) -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    till.after = fails
    first, again = [await add(http, 1, of("s", 1)) for _ in range(2)]
    assert [(each.status_code, each.text) for each in (first, again)] == [(201, "1"), (201, "1")]
    assert (till.calls, await till.added()) == (1, [1])


async def test_a_handler_whose_commit_is_unknown_keeps_the_key_and_the_client_is_told(
    till: Till, http: httpx.AsyncClient
) -> None:
    async def unknown() -> None:
        raise OutcomeUnknown("the commit was sent and nobody answered")

    till.before = unknown
    refused = await add(http, 1, of("s", 1))
    assert (refused.status_code, refused.headers["request-refused"]) == (500, "unknown")


async def test_a_handler_that_takes_too_long_is_cut_off_and_taken_over(db: Database) -> None:
    till = Till(db, fp.IdempotentOptions(ttl=1.0))
    await till.install()
    hangs = asyncio.Event()
    till.before = hangs.wait
    async with till.client() as http:
        cut = await add(http, 1, of("s", 1))
        till.before = settle
        assert (cut.status_code, cut.headers["request-refused"]) == (500, "unknown")
        assert (await add(http, 1, of("s", 1))).text == "1", "it waited until the lease was over"
    assert await till.added() == [1]


async def test_an_answer_that_is_too_large_to_keep_is_the_same_each_time_and_done_once(db: Database) -> None:
    calls = list[int]()

    async def app(scope: object, receive: object, respond: object) -> None:
        calls.append(1)
        await respond({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        for _ in range(3):
            await respond({"type": "http.response.body", "body": b"x" * 500, "more_body": True})  # type: ignore[operator]
        await respond({"type": "http.response.body"})  # type: ignore[operator]

    idempotent = fp.Idempotent(app, lambda: db, OPTIONS)
    await idempotent.install()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(idempotent), base_url="http://x") as http:
        answers = [await http.post("/", headers={"idempotency-key": "k"}) for _ in range(2)]
    assert [(each.status_code, each.headers["request-refused"]) for each in answers] == [(500, "answer-too-large")] * 2
    assert len(calls) == 1


async def test_a_session_sends_through_a_client_which_does_not_repeat_by_itself(till: Till) -> None:
    seen, fails = list[str](), [True, True]

    async def unwell() -> None:
        if fails and fails.pop():
            raise ZeroDivisionError

    till.before = unwell
    client = Client([fp.Endpoint("a", "http://till")], Policy(idempotent=True), env=till.db.env)
    session = fp.ClientSession[Result[Answer]](env=till.db.env)
    async with till.client() as library:
        http = Http(client, HttpxExchange(library))

        async def send(sent: fp.Envelope) -> Result[Answer]:
            seen.append(sent.headers["attempt"])
            return await http.request("POST", "/till", body=b"7", headers=sent.headers)

        result = await within(session.call(send))
    assert (result.value.status, result.value.body, seen) == (201, b"7", ["1/10", "2/10", "3/10"])
    assert (till.calls, await till.added()) == (3, [7])


# -- limits on what comes from outside -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"idempotency-key": ""},
        {"idempotency-key": "x" * 201},
        {"idempotency-key": "a b"},
        {"idempotency-key": "k", "session-id": "s"},
        {"idempotency-key": "k", "session-sequence": "1"},
        {"idempotency-key": "k", "session-id": "s", "session-sequence": "0"},
        {"idempotency-key": "k", "session-id": "s", "session-sequence": "-1"},
        {"idempotency-key": "k", "session-id": "s", "session-sequence": "1e3"},
        {"idempotency-key": "k", "session-id": "s", "session-sequence": "1" * 16},
        {"idempotency-key": "k", "session-id": "x" * 101, "session-sequence": "1"},
        {"idempotency-key": "k", "session-id": "a/b", "session-sequence": "1"},
        {"session-id": "s", "session-sequence": "1"},
        {"idempotency-key": "k", "deadline-remaining-ms": "soon"},
        {"idempotency-key": "k", "attempt": "0"},
    ],
    ids=str,
)
async def test_headers_that_make_no_sense_are_refused(
    till: Till, http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    refused = await add(http, 1, headers)
    assert (refused.status_code, refused.headers["request-refused"]) == (400, "bad-header")
    assert (till.calls, await till.added()) == (0, [])


async def test_a_header_that_is_sent_twice_is_refused(till: Till, http: httpx.AsyncClient) -> None:
    refused = await http.post("/till", content=b"1", headers=[("idempotency-key", "a"), ("idempotency-key", "b")])
    assert (refused.status_code, till.calls) == (400, 0)
    assert refused.json()["detail"] == "`idempotency-key` is sent 2 times: send it once"


async def test_headers_at_their_limits_are_taken(till: Till, http: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k" * 200, "session-id": "s" * 100, "session-sequence": "9" * 15}
    assert (await add(http, 1, headers)).status_code == 201


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    till: Till, http: httpx.AsyncClient, is_declared: bool
) -> None:
    drawn = list[int]()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            drawn.append(1)
            yield b"1" * 500

    headers = {"idempotency-key": "k", **({"content-length": "1001"} if is_declared else {})}
    refused = await within(http.post("/till", content=endless(), headers=headers))
    assert (refused.status_code, refused.headers["request-refused"], till.calls) == (413, "too-large", 0)
    assert len(drawn) <= (1 if is_declared else 3)


async def test_a_body_at_its_limit_is_taken(till: Till, http: httpx.AsyncClient) -> None:
    assert (await http.post("/till", content=b"0" * 999 + b"1", headers={"idempotency-key": "k"})).status_code == 201


async def test_a_client_that_goes_away_before_it_has_said_what_it_wants_is_not_answered(till: Till) -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def respond(message: object) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/till", "headers": [(b"idempotency-key", b"k")]}
    await till.app(scope, gone, respond)
    assert till.calls == 0


async def test_a_body_that_does_not_come_is_not_waited_for(db: Database) -> None:
    till = Till(db, fp.IdempotentOptions(ttl=0.05))
    said = list[object]()

    async def never() -> None:
        await asyncio.Event().wait()

    async def respond(message: object) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/till", "headers": [(b"idempotency-key", b"k")]}
    await within(till.app(scope, never, respond))
    assert said[0]["status"] == 408  # type: ignore[index]


async def test_requests_without_a_key_pass_unless_it_is_required(
    till: Till, http: httpx.AsyncClient, db: Database
) -> None:
    assert [(await http.post("/till", content=b"1")).text for _ in range(2)] == ["1", "2"]
    strict = Till(db, fp.IdempotentOptions(required=True))
    async with strict.client() as demanding:
        refused = await demanding.post("/till", content=b"1")
        assert (refused.status_code, refused.headers["request-refused"]) == (400, "no-key")
        assert (await demanding.get("/till")).text == "2"
    assert strict.calls == 0


async def test_requests_that_change_nothing_are_made_each_time(till: Till, http: httpx.AsyncClient) -> None:
    assert (await http.get("/till", headers=of("s", 1))).text == "0"
    await add(http, 5, of("s", 2))
    assert (await http.get("/till", headers=of("s", 1))).text == "5"


async def test_who_guesses_a_key_of_somebody_else_s_learns_nothing(db: Database) -> None:
    till = Till(db, whose=lambda scope: dict(scope["headers"]).get(b"authorization", b"").decode())
    await till.install()
    async with till.client() as http:
        answers = [await add(http, 7, {**of("s", 1), "authorization": who}) for who in ("ann", "bob", "ann")]
    assert [answer.text for answer in answers] == ["7", "14", "7"]
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, None, "true"]


async def test_applications_with_other_names_have_other_keys(db: Database) -> None:
    tills = [Till(db, name=name) for name in ("one", "two")]
    await tills[0].install()
    for till in tills:
        async with till.client() as http:
            assert "idempotent-replayed" not in (await add(http, 7, of("s", 1))).headers
    assert await tills[0].added() == [7, 7]


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (500, b"", {}),
        (199, b"", {}),
        (200, b"x" * 1_001, {}),
        (200, b"", {"a\r\nb": "c"}),
        (200, b"", {"a": "b\r\nc: d"}),
        (200, b"", {"a": "€"}),
    ],
    ids=str,
)
async def test_an_answer_that_cannot_count_is_refused(
    till: Till, http: httpx.AsyncClient, status: int, body: bytes, headers: dict[str, str]
) -> None:
    refused = list[InvalidInput]()

    async def tries() -> None:
        assert till.keyed is not None
        async with till.db.transaction() as tx:
            with pytest.raises(InvalidInput) as caught:
                await till.keyed.answer(status, body, headers=headers, tx=tx)
        refused.append(caught.value)

    till.before = tries
    assert (await add(http, 1, "k")).status_code == 201
    assert [isinstance(error, PayloadTooLarge) for error in refused] == [len(body) > 1_000]


async def test_an_answer_that_is_stored_twice_ends_the_second_transaction(till: Till, http: httpx.AsyncClient) -> None:
    seen = list[int]()

    async def once_more() -> None:
        assert till.keyed is not None
        try:
            async with till.db.transaction() as tx:
                await tx.execute("INSERT INTO till (place, adds) VALUES (99, 99)")
                await till.keyed.answer(200, b"2", tx=tx)
        except LeaseLost:
            seen.append(1)

    till.after = once_more
    answer = await add(http, 1, "k")
    assert (seen, answer.text, await till.added()) == ([1], "1", [1])


def test_without_the_middleware_a_handler_is_told_what_is_missing() -> None:
    with pytest.raises(InvalidInput, match="there is no `Idempotent` around this application"):
        fp.Keyed.of({"type": "http"})


@pytest.mark.parametrize(
    "options", [{"ttl": 0.0}, {"wait": -1.0}, {"body_bytes": 0}, {"answer_bytes": 700_001}, {"ttl": float("nan")}]
)
def test_options_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        fp.IdempotentOptions(**options)  # type: ignore[arg-type]

"""`Deadlines`: what is left of the client's time, and which attempt it is, honoured on arrival and known inside."""

from typing import Any

import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.primitives import attempts, deadline
from faultproof.signals import REQUEST_LATE, Signals
from tests.fakes import ManualClock, Recorder, env_of

pytestmark = pytest.mark.anyio


class App:
    """Looks at what is ambient."""

    def __init__(self) -> None:
        self.left: list[float | None] = []
        self.attempt: list[attempts.Attempt | None] = []

    async def __call__(self, scope: Any, receive: Any, respond: Any) -> None:
        found = deadline.ambient()
        self.left.append(None if found is None else found.left())
        self.attempt.append(attempts.ambient())
        await respond({"type": "http.response.start", "status": 200, "headers": []})
        await respond({"type": "http.response.body"})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def env(recorder: Recorder) -> Env:
    return env_of(clock=ManualClock(), signals=Signals(sinks=[recorder]))


async def ask(app: App, env: Env, *headers: tuple[str, str], kind: str = "http") -> int:
    said: list[Any] = []

    async def respond(message: Any) -> None:
        said.append(message)

    scope = {"type": kind, "method": "GET", "headers": [(name.encode(), value.encode()) for name, value in headers]}
    await fp.Deadlines(app, env=env)(scope, None, respond)  # type: ignore[arg-type]
    return int(said[0]["status"])


async def test_what_the_client_has_left_bounds_what_is_called_inside(env: Env) -> None:
    app = App()
    assert await ask(app, env, ("deadline-remaining-ms", "1500"), ("attempt", "2/5")) == 200
    assert (app.left, app.attempt) == ([1.5], [(2, 5)])
    assert (deadline.ambient(), attempts.ambient()) == (None, None)


async def test_a_request_without_them_has_none_whatever_the_server_was_started_in(env: Env) -> None:
    app = App()
    with attempts.numbered(2, 3):
        assert await ask(app, env) == 200
    assert (app.left, app.attempt) == ([None], [None])


async def test_what_comes_too_late_is_refused_before_the_application_runs(env: Env, recorder: Recorder) -> None:
    app = App()
    assert await ask(app, env, ("deadline-remaining-ms", "0")) == 504
    assert (app.left, recorder.values(REQUEST_LATE)) == ([], [1])


@pytest.mark.parametrize(
    "headers",
    [
        [("deadline-remaining-ms", "-1")],
        [("deadline-remaining-ms", "soon")],
        [("deadline-remaining-ms", "9" * 13)],
        [("deadline-remaining-ms", "1"), ("deadline-remaining-ms", "2")],
        [("attempt", "0")],
        [("attempt", "3/2")],
        [("attempt", "x" * 5_000)],
    ],
    ids=lambda headers: str(headers)[:40],
)
async def test_headers_that_make_no_sense_are_refused(env: Env, headers: list[tuple[str, str]]) -> None:
    app = App()
    assert await ask(app, env, *headers) == 400
    assert app.left == []


async def test_what_is_no_request_passes(env: Env) -> None:
    app = App()
    assert await ask(app, env, ("deadline-remaining-ms", "0"), kind="lifespan") == 200

"""Sessions over real HTTP to servers that are killed: one effect, the first answer, and an order that can be explained."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

import faultproof as fp
from faultproof.errors import OutcomeUnknown, TryAgain
from faultproof.patterns.request_response.proof import Till
from faultproof.prove.checkers.history import read_history
from faultproof.prove.checkers.linearizability import judge
from faultproof.prove.checkers.recorder import Recorded, Recorder
from faultproof.prove.checkers.search import Verdict
from tests.fakes import env_of, within
from tests.processes import Child, running

pytestmark = pytest.mark.anyio
SERVING = "tests.patterns.request_response.serving"
OPTIONS = fp.SessionOptions(
    timeout=15.0,
    attempt_timeout=4.0,
    retry=fp.RetryPolicy(attempts=60, base=0.02, cap=0.2, repeat_unknown=True),
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database for this test alone."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'till.db'}?synchronous=normal"
    return str(request.getfixturevalue("postgres_url"))


class Fleet:
    """Server processes on one database; whoever is killed is replaced when the test says so."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open = AsyncExitStack()
        self.ports: list[int] = []
        self.children: list[Child] = []

    async def __aenter__(self) -> "Fleet":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    async def start(self, *modes: str, ttl: float = 0.6, place: int | None = None) -> Child:
        """One more, or in somebody's place."""
        child = await self._open.enter_async_context(running(SERVING, self._url, ttl, *modes))
        port = int(await child.line())
        if place is None:
            self.ports.append(port)
            self.children.append(child)
        else:
            self.ports[place], self.children[place] = port, child
        return child

    async def kill(self, place: int) -> None:
        self.children[place].send(signal.SIGKILL)
        await self.children[place].ended()

    async def rows(self) -> list[tuple[int, str, int]]:
        """What was added: number, session and its number in it, in order."""
        db = await fp.connect(self._url)
        async with db.transaction() as tx:
            rows = await tx.fetch("SELECT adds, session, number FROM till ORDER BY place")
        await db.close()
        return [(adds, session, number) for adds, session, number in rows]


@pytest.fixture
async def fleet(url: str) -> AsyncIterator[Fleet]:
    async with Fleet(url) as fleet:
        yield fleet


class Client:
    """A session that asks one server, and the next one where that gives no answer."""

    def __init__(self, fleet: Fleet, http: httpx.AsyncClient) -> None:
        self._fleet = fleet
        self._http = http
        self.session = fp.ClientSession[httpx.Response](
            OPTIONS, env=env_of(), budget=fp.RetryBudget(ratio=1.0, burst=100_000)
        )
        self.sent: list[fp.Envelope] = []

    async def add(self, adds: int) -> httpx.Response:
        async def send(sent: fp.Envelope) -> httpx.Response:
            self.sent.append(sent)
            return await self._http.post(self._url(sent), content=b"%d" % adds, headers=sent.headers)

        return await within(self.session.call(send))

    async def total(self) -> int:
        return int(
            (await within(self.session.call(lambda sent: self._http.get(self._url(sent), headers=sent.headers)))).text
        )

    def _url(self, sent: fp.Envelope) -> str:
        return f"http://127.0.0.1:{self._fleet.ports[(sent.attempt - 1) % len(self._fleet.ports)]}/till"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10.0) as http:
        yield http


async def test_a_server_that_is_killed_between_effect_and_answer_has_had_one_effect(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    """The repeated request goes to another server, and gets the answer that the first one has not given."""
    doomed = await fleet.start("hangs")
    await fleet.start()
    client = Client(fleet, http)
    call = asyncio.ensure_future(client.add(7))
    await doomed.says("committed")
    await fleet.kill(0)
    answer = await call
    assert (answer.status_code, answer.text, answer.headers["idempotent-replayed"]) == (201, "7", "true")
    assert len(client.sent) > 1
    assert await fleet.rows() == [(7, client.session.id, 1)]
    await fleet.start(place=0)
    assert (await client.add(1)).text == "8"


async def test_a_server_that_is_killed_before_it_commits_has_had_none_and_the_next_one_does_it(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    doomed = await fleet.start("hangs before")
    await fleet.start()
    client = Client(fleet, http)
    call = asyncio.ensure_future(client.add(7))
    await doomed.says("committed")  # as far as it believes
    await fleet.kill(0)
    answer = await call
    assert (answer.text, "idempotent-replayed" in answer.headers) == ("7", False)
    assert await fleet.rows() == [(7, client.session.id, 1)]


async def test_fifty_duplicates_at_two_servers_have_one_effect_and_one_answer(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    await fleet.start(ttl=10.0)
    await fleet.start(ttl=10.0)
    headers = {"idempotency-key": "k-1", "session-id": "s", "session-sequence": "1"}
    answers = await within(
        asyncio.gather(
            *(
                http.post(f"http://127.0.0.1:{fleet.ports[number % 2]}/till", content=b"7", headers=headers)
                for number in range(50)
            )
        )
    )
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, "7")}
    assert await fleet.rows() == [(7, "s", 1)]
    late = await http.post(
        f"http://127.0.0.1:{fleet.ports[0]}/till",
        content=b"7",
        headers={**headers, "idempotency-key": "k-0", "session-sequence": "2"},
    )
    assert late.status_code == 201


async def _under_kills(fleet: Fleet, http: httpx.AsyncClient, path: Path, seconds: float) -> None:
    """Three sessions add and read, with callers that are cancelled, while servers are killed; then all is judged."""
    for _ in range(2):
        await fleet.start()
    rng, end, recorder = random.Random(5), time.monotonic() + seconds, Recorder(path, "till")
    numbers = iter(range(1, 1_000_000))
    kills = unknown = 0

    async def play(client: Client) -> None:
        while time.monotonic() < end:
            adds = 0 if rng.random() < 0.3 else next(numbers)
            called = recorder.call("add" if adds else "read", adds)
            asking = asyncio.ensure_future(client.add(adds) if adds else client.total())
            if rng.random() < 0.1:
                await asyncio.wait([asking], timeout=rng.random() * 0.02)
                asking.cancel()
            try:
                found = await asking
            except TryAgain:
                called.fail()
                continue
            except OutcomeUnknown:
                found = await left_behind(client, called, adds)
            except asyncio.CancelledError:
                found = await left_behind(client, called, adds)
            if found is not None:
                called.ok(found if isinstance(found, int) else int(found.text))

    async def left_behind(client: Client, called: Recorded, adds: int) -> httpx.Response | None:
        """A few are left for the next call to settle; with many of which nobody knows, no order can be searched for."""
        nonlocal unknown
        if unknown < 20 or client.session.unsettled is None:
            unknown += bool(adds)
            called.unknown()
            return None
        while True:
            try:
                return await within(client.session.settle())
            except OutcomeUnknown:
                continue

    async def murder() -> None:
        nonlocal kills
        while time.monotonic() < end:
            place = rng.randrange(2)
            await fleet.kill(place)
            kills += 1
            await fleet.start(place=place)

    clients = [Client(fleet, http) for _ in range(3)]
    await asyncio.gather(murder(), *map(play, clients))
    last = recorder.call("read", 0)
    last.ok(await clients[0].total())
    recorder.close()

    rows = await fleet.rows()
    history = read_history(path)
    assert [object.verdict for object in judge(history, Till()).objects] == [Verdict.LINEARIZABLE]
    assert len({adds for adds, _, _ in rows}) == len(rows) > 20, "each effect once"
    for client in clients:
        mine = [number for _, session, number in rows if session == client.session.id]
        assert mine == sorted(set(mine))
    assert kills >= 2
    assert any(sent.attempt > 1 for client in clients for sent in client.sent)


async def test_what_clients_hear_while_servers_are_killed_is_linearizable(
    fleet: Fleet, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await _under_kills(fleet, http, tmp_path / "history.jsonl", 3.0)


@pytest.mark.soak
async def test_what_clients_hear_while_servers_are_killed_for_long_is_linearizable(
    fleet: Fleet, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await _under_kills(fleet, http, tmp_path / "history.jsonl", 60.0)

"""Request-Response's proof: two clients with sessions and two servers, whatever is lost, doubled, late, cancelled or dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from faultproof.errors import InvalidInput
from faultproof.patterns.request_response import headers as names
from faultproof.patterns.request_response.proof_planted import CLIENTS
from faultproof.patterns.request_response.proof_planted import SERVERS as BROKEN
from faultproof.patterns.request_response.proof_workload import CALLS, SERVERS, Asker, Server, prepare
from faultproof.prove.checkers.history import Call, Entry, History, paired
from faultproof.prove.checkers.linearizability import judge
from faultproof.prove.checkers.models import Illegal
from faultproof.prove.checkers.search import Limits, Verdict
from faultproof.prove.proof import (
    ANY_FAULT,
    Always,
    Eventually,
    Evidence,
    Main,
    Plant,
    Process,
    Proof,
    Sometimes,
    Survivor,
    noted,
)


def _processes(plant: str | None) -> Mapping[str, Main]:
    name = plant or ""

    async def client(process: Process) -> None:
        await CLIENTS.get(name, Asker)(process).run()

    async def server(process: Process) -> None:
        await BROKEN.get(name, Server)(process).run()

    return {**dict.fromkeys(CALLS, client), **dict.fromkeys(SERVERS, server)}


# -- the verdict ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Till:
    """`add` a number: the sum with it. `read`: the sum."""

    initial: Hashable = 0

    def step(self, state: Hashable, call: Call) -> Hashable | Illegal:
        if not isinstance(state, int) or not isinstance(call.argument, int):
            raise InvalidInput(f"a till adds whole numbers, not {call.argument!r}")
        total = state + call.argument
        if call.answered and call.result != total:
            return Illegal(f"{call.function} → {total}")
        return total


def _history(evidence: Evidence) -> History:
    """What the clients called and heard; of calls without an answer nobody knows."""
    return paired(enumerate(_entries(evidence)))


def _entries(evidence: Evidence) -> Iterator[Entry]:
    for kind, *facts in evidence.notes:
        if kind == "invoke":
            yield Entry(type="invoke", process=facts[0], op="add" if facts[1] else "read", value=facts[1])
        if kind == "ok":
            yield Entry(type="ok", process=facts[0], op="add" if facts[1] else "read", value=facts[2])


def _not_linearizable(evidence: Evidence) -> list[str]:
    limits = Limits(clock=lambda: 0.0)
    return [
        f"what the clients heard is {judged.verdict.value}: {judged.part or judged.why}"
        for judged in judge(_history(evidence), Till(), limits).objects
        if judged.verdict is not Verdict.LINEARIZABLE
    ]


def _sessions(evidence: Evidence) -> dict[str, tuple[str, int]]:
    """Client and life, by session."""
    return {id: (client, life) for client, life, id in (note[1:] for note in evidence.notes if note[0] == "session")}


def _effects(evidence: Evidence) -> dict[str, list[tuple[int, int]]]:
    """Of each session its requests' numbers, and what they have added, in the order in which they did."""
    found: dict[str, list[tuple[int, int]]] = {}
    for session, number, adds in evidence.fetch("SELECT session, number, adds FROM entry ORDER BY place"):
        found.setdefault(session, []).append((number, adds))
    return found


def _out_of_order(evidence: Evidence) -> list[str]:
    sessions, wrong = _sessions(evidence), list[str]()
    for session, effects in _effects(evidence).items():
        numbers, adds = [number for number, _ in effects], [added for _, added in effects]
        called = [call.adds for call in CALLS[sessions[session][0]]]
        wrong += [f"{added} was added {count} times" for added, count in Counter(adds).items() if count > 1]
        if numbers != sorted(set(numbers)) or [added for added in called if added in adds] != adds:
            wrong.append(f"requests {numbers} of a session added {adds}, and it had called {called}, in this order")
    return wrong


def _forgotten(evidence: Evidence) -> list[str]:
    """Of a client that has finished everything happened that it has sent and not given up."""
    effects, wrong = _effects(evidence), list[str]()
    wanted = noted(evidence, "sent") - noted(evidence, "given up")
    finished = {note[1:] for note in evidence.notes if note[0] == "finished"}
    for session, (client, life) in _sessions(evidence).items():
        if (client, life) not in finished:
            continue
        added = {adds for _, adds in effects.get(session, [])}
        wrong += [
            f"{client} sent what should have added {call.adds}, did not give it up, and it never did"
            for place, call in enumerate(CALLS[client])
            if call.adds and call.adds not in added and f"{client}.{life}.{place}" in wanted
        ]
    return wrong


def _torn(evidence: Evidence) -> list[str]:
    """Of the last request of each session: `until_us` says what became of it, and so does its key."""
    keys = {
        (scope, key): answer is not None
        for scope, key, answer in evidence.fetch("SELECT scope, key, answer FROM faultproof_idempotency")
    }
    turns = {
        (scope, session): (last, until_us)
        for scope, session, last, until_us in evidence.fetch(
            "SELECT scope, session, last, until_us FROM faultproof_session"
        )
    }
    wrong = list[str]()
    for (scope, session), (last, until_us) in turns.items():
        found, expected = keys.get((scope, f"{session}-{last}")), {0: True, 1: None}.get(until_us, False)
        if found is not expected:
            wrong.append(
                f"number {last} of {session} has until_us {until_us}, and its key says that it is answered: {found}"
            )
    for (scope, key), is_answered in keys.items():
        session, _, number = key.rpartition("-")
        if not is_answered and turns.get((scope, session), (0, 0))[0] < int(number):
            wrong.append(f"the key {key} is taken, and it has had no turn")
    return wrong


def _refused(evidence: Evidence, why: str) -> bool:
    return why in noted(evidence, "not carried out")


REQUEST_RESPONSE = Proof(
    name="faultproof.patterns.request_response.proof:REQUEST_RESPONSE",
    claim=(
        "What the clients hear is linearizable; the requests of a session take effect in the order of its calls, each once at "
        "most, and each that is not given up once; whichever server is asked, and whatever is lost, doubled, late or cancelled."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "handlers store their answers with their effects; other effects may be repeated after a crash",
        "answers and sessions are kept for longer than anybody asks again",
    ),
    not_tested=(
        "two transactions of a session at the same time: simulated SQLite has one writer; HTTP itself: the tests use it",
    ),
    prepare=prepare,
    processes=_processes,
    done=lambda evidence: noted(evidence, "finished") == set(CALLS),
    always=(
        Always(claim="each effect once, in the order of the session", wrong=_out_of_order),
        Always(claim="a key and its turn are taken, answered and given back together", wrong=_torn),
    ),
    eventually=(
        Eventually(claim="each effect once, in the order of the session", wrong=_out_of_order),
        Eventually(claim="what the clients hear is linearizable", wrong=_not_linearizable),
        Eventually(claim="what is sent and not given up happens", wrong=_forgotten),
    ),
    sometimes=(
        Sometimes(
            claim="a repeated request gets the first answer", happened=lambda evidence: _refused(evidence, "replayed")
        ),
        Sometimes(
            claim="a request comes behind a later one of its session",
            happened=lambda evidence: _refused(evidence, names.SUPERSEDED),
        ),
        Sometimes(
            claim="a request comes while an earlier one is at work",
            happened=lambda evidence: _refused(evidence, names.EARLIER_IN_PROGRESS),
        ),
        Sometimes(
            claim="a request that was unknown is settled", happened=lambda evidence: bool(noted(evidence, "settled"))
        ),
        Sometimes(
            claim="a server is told that another one has taken over, and leaves no effect",
            happened=lambda evidence: _refused(evidence, "taken over"),
        ),
    ),
    plants=(
        Plant(name="new keys", breaks="each attempt is a request of its own, and has an effect of its own"),
        Plant(name="all at once", breaks="calls overtake each other on their way to the servers"),
        Plant(name="moves on", breaks="what a cancelled caller has sent is lost, and nobody asks what became of it"),
        Plant(name="no order", breaks="a request that was given up takes effect after those that came behind it"),
        Plant(name="unfenced", breaks="a server that was frozen carries out what the session has left behind"),
        Plant(name="apart", breaks="a crash between effect and answer repeats the effect"),
        Plant(name="own keys", breaks="a server that is asked instead of another one knows nothing of its answer"),
    ),
    survivors=(
        Survivor(
            mutants=("constraint faultproof_session: NOT NULL",),
            reason="no script has a NULL to write there; the table says so to whoever writes to it by hand",
        ),
    ),
)

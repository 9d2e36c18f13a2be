"""The idempotency keys' proof: the same requests to two servers, again and again, under crashes and frozen processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from faultproof.prove.kernel import survivors
from faultproof.prove.kernel.idempotency_planted import JANITORS, SERVERS
from faultproof.prove.kernel.idempotency_workload import REMOTE, REQUESTS, Janitor, Server, prepare
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
    noted,
)


def _processes(plant: str | None) -> Mapping[str, Main]:
    name = plant or ""

    async def server(process: Process) -> None:
        await SERVERS.get(name, Server)(process).run()

    async def janitor(process: Process) -> None:
        await JANITORS.get(name, Janitor)(process).run()

    return {**dict.fromkeys(REQUESTS, server), "janitor": janitor}


# -- the verdict ----------------------------------------------------------------------------------------------------


def _answers(evidence: Evidence) -> dict[str, set[tuple[str, int]]]:
    """By key: the content that was answered, and the answer."""
    answers = defaultdict[str, set[tuple[str, int]]](set)
    for kind, key, *facts in evidence.notes:
        if kind == "answered":
            content, number = facts
            answers[key].add((content, number))
    return answers


def _wrong_answers(evidence: Evidence) -> list[str]:
    """One answer to each key, of work that was done for it; and none to what was refused."""
    booked = defaultdict[str, list[tuple[str, int]]](list)
    for key, content, number in evidence.fetch("SELECT key, content, number FROM booking ORDER BY number"):
        booked[key].append((content, number))
    wrong = [f"{key} was booked as {found}, not once" for key, found in booked.items() if len(found) > 1]
    for key, found in sorted(_answers(evidence).items()):
        if len(found) > 1:
            wrong.append(f"{key} was answered with {sorted(found)}, not always the same")
        if key.startswith("again/"):
            done = [("", int(key.partition("/")[2]))]
        elif key in REMOTE:
            done = [(content, number) for content, _ in found for number in evidence.outside.get(key, [])]
        else:
            done = booked[key]
        wrong += [
            f"{key} was answered with {answer}, done was {done}" for answer in sorted(found) if answer not in done
        ]
    refused = {(key, content) for kind, key, content in (n for n in evidence.notes if n[0] == "refused")}
    wrong += [
        f"{key} of {content} was booked and refused" for key, content in sorted(refused) if content in dict(booked[key])
    ]
    return wrong


def _unanswered(evidence: Evidence) -> list[str]:
    """Everybody has an answer but who asked for something else under a key that was taken."""
    answers = _answers(evidence)
    expected = {request.key for requests in REQUESTS.values() for request in requests} | {"again/1", "again/2"}
    wrong = [f"nobody was answered for {key}" for key in sorted(expected - answers.keys())]
    refused = noted(evidence, "refused")
    if refused != {"contested", "left"}:
        wrong.append(f"refused was {sorted(refused)}, not who came second with another content")
    return wrong


def _replayed(evidence: Evidence) -> bool:
    return sum(note[:2] == ("answered", "book") for note in evidence.notes) > 1


def _stored_nevertheless(evidence: Evidence) -> bool:
    """The work was done once, its caller was cancelled, and its answer was there for who asked again."""
    works = sum(note == ("worked", "cancelled") for note in evidence.notes)
    return works == 1 and "cancelled" in noted(evidence, "cancelled") and "cancelled" in noted(evidence, "answered")


def _repeated(evidence: Evidence) -> bool:
    return len(evidence.outside.get("charge", [])) > 1


IDEMPOTENCY = Proof(
    name="faultproof.prove.kernel.idempotency:IDEMPOTENCY",
    claim=(
        "Whoever asks again with the same key gets the first answer, from any server, whoever died meanwhile. Work that is one "
        "script is done once for each key; work at somebody else's again at most, and then still one answer counts. The same "
        "key with other content is refused, until the key has been trimmed away."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "keys are kept for longer than anybody asks again",
    ),
    not_tested=("two transactions with the same key at the same time: simulated SQLite has one writer",),
    prepare=prepare,
    processes=_processes,
    done=lambda evidence: noted(evidence, "finished") >= {*REQUESTS, "janitor"},
    always=(Always(claim="each key has one answer, that of work done for it", wrong=_wrong_answers),),
    eventually=(
        Eventually(claim="each key has one answer, that of work done for it", wrong=_wrong_answers),
        Eventually(claim="all are answered but who came second with another content", wrong=_unanswered),
    ),
    sometimes=(
        Sometimes(claim="an answer is replayed", happened=_replayed),
        Sometimes(claim="an answer is stored although its caller was cancelled", happened=_stored_nevertheless),
        Sometimes(claim="a caller dies between the remote work and its answer", happened=_repeated),
    ),
    plants=(
        Plant(
            name="works first",
            breaks="work and key commit apart: a crash between, or a second server, repeats the work",
        ),
        Plant(name="answers first", breaks="answer and work commit apart: a crash between leaves an answer to nothing"),
        Plant(name="no fingerprint", breaks="other content gets the answer to the first"),
        Plant(name="own keys", breaks="each server has keys of its own: who asks another repeats the work"),
        Plant(name="no token", breaks="a frozen server overwrites the answer that its successor has given"),
        Plant(name="answers expire", breaks="an answer is forgotten when its lease has ended, and the work repeated"),
        Plant(name="trims all", breaks="answers are trimmed while people may still ask again"),
    ),
    survivors=survivors.IDEMPOTENCY,
    answers_for=("primitives.idempotency.",),
)

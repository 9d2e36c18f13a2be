"""A story that nobody has lived, with something of everything, and a report that tells it; each word can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from faultproof.prove.reports.facts import Document, Hunt, Mutant, ProofReport, Property, Run, WorldVerdict
from faultproof.prove.story import Asked, Happening, Judged, Site, Story

Say = Callable[[str], str]
"""What becomes of every word that somebody else may have chosen."""


def plainly(words: str) -> str:
    """As it is."""
    return words


def crashed(say: Say = plainly) -> Story:
    """A till books, and is killed after its commit; its next life books once more."""
    site = Site(file=say("src/till.py"), line=12, function=say("Till.book"), code=say("await db.transact(book())"))
    asked = Asked(
        name=say("till.book"), text=say("UPDATE till SET n = 1"), values=say("n=1"), answer="1 changed", site=site
    )
    booked = Happening(
        at=0.0,
        process=say("till"),
        life=0,
        kind="operation",
        what=say("transaction book"),
        answer=say("1"),
        commits=True,
        site=site,
        statements=(asked,),
    )
    till = say("till")
    events = [
        Happening(at=0.0, process=till, life=0, kind="start", what="starts"),
        Happening(at=0.0, process=say("door"), life=0, kind="start", what="starts"),
        booked,
        Happening(at=0.0, process=till, life=0, kind="fault", what=say("crash after transaction book"), site=site),
        Happening(at=0.0, process=till, life=0, kind="gone", what="is gone"),
        Happening(at=0.0, process=say("door"), life=0, kind="message", what=say("hears news")),
        Happening(at=0.02, process=till, life=1, kind="start", what="starts again"),
        replace(booked, at=0.02, life=1),
        Happening(at=0.02, process=till, life=1, kind="note", what=say("receipt"), answer=say("('i-1',)"), site=site),
    ]
    judged = [
        Judged(kind="eventually", claim=say("it is booked once"), wrong=(say("it is booked twice"),)),
        Judged(kind="sometimes", claim=say("a receipt is given"), happened=True),
    ]
    return Story(events=events, judged=judged, faults=(say("crash after writer in till.0"),), seconds=0.02)


def report(*, say: Say = plainly, runs: int = 1, story: Story | None = None) -> ProofReport:
    """A proof that was violated, with a mutant of each kind."""
    story = story or crashed(say)
    return ProofReport(
        name=say("shop.proofs:TILL"),
        verdict="violated",
        claim=say("What was paid is booked once."),
        faults=(say("the till dies"),),
        assumptions=(say("what was committed stays"),),
        not_tested=(say("two tills"),),
        worlds=[
            WorldVerdict(
                world="simulated", verdict="violated", scope=[say("every point, once")], numbers={"schedules": 8}
            )
        ],
        properties=[
            Property(
                kind="eventually", claim=say("it is booked once"), verdict="violated", seen=[say("it is booked twice")]
            ),
            Property(kind="sometimes", claim=say("a receipt is given"), verdict="happened", shown=say("Run 0")),
        ],
        mutants=[
            Mutant(name=say("blind"), kind="planted by hand", breaks=say("books anyway"), killed_by=say("crash there")),
            Mutant(
                name=say("deaf"),
                kind="derived",
                breaks=say("no wake-up"),
                killed_by=None,
                reason=say("it looks anyway"),
            ),
        ],
        runs=[
            Run(
                title=say(f"Run {n}"),
                why=say("the smallest"),
                story=story,
                answers=[(3, 1)],
                replay=say("faultproof replay x"),
            )
            for n in range(runs)
        ],
        error=say("a traceback"),
    )


def hunt(*, say: Say = plainly, killed: int = 1) -> Hunt:
    """Mutants of which one was killed, and three were not."""

    def mutant(name: str, **facts: Any) -> Mutant:
        return Mutant(name=say(name), kind="condition", breaks="", killed_by=facts.pop("killed_by", None), **facts)

    return Hunt(
        name=say("till"),
        proofs=[say("shop.proofs:TILL")],
        mutants=[
            *(mutant(f"where {n}", killed_by=say("one crash: booked twice")) for n in range(killed)),
            mutant("order", reason=say("the index keeps it too")),
            mutant("limit", fate="dearer", reason=say("3 more statements")),
            mutant("fence", fate="idle"),
        ],
        complaints=[say("survived, and nobody says why: condition fence")],
    )


def document(*proofs: ProofReport, say: Say = plainly, hunts: Sequence[Hunt] = ()) -> Document:
    """A page's worth."""
    return Document(proofs=proofs, hunts=hunts, environment={say("Python"): say("3.11")}, when="2026-01-02 03:04 UTC")

"""The outbox's proofs of dead letters: events that are given up, those that wait behind them or go past, and a person who
replays and discards.

Before, the group's consumers made the other choice of what a key with a dead letter does, and have left events parked by it;
so the first thing that happens is that these are changed over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

import msgspec

from faultproof.errors import TryAgain
from faultproof.patterns.outbox import sql as tables
from faultproof.patterns.outbox.consumer import Consumer
from faultproof.patterns.outbox.dead_letters import DeadLetters
from faultproof.patterns.outbox.events import Event
from faultproof.patterns.outbox.membership import Membership
from faultproof.patterns.outbox.options import ConsumerOptions, OnPoison
from faultproof.patterns.outbox.outbox import Outbox, OutboxOptions
from faultproof.patterns.outbox.poison import Parking, Verdict
from faultproof.patterns.outbox.proof_planted import plant_in
from faultproof.patterns.outbox.sql import Parked
from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import Script, sql
from faultproof.primitives.worker import Worker
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

GROUP = "summary"
ATTEMPTS = 2
LATER_S = 0.2
POLL_S = 0.3
PATIENCE_S = 60.0

FIRST, SECOND = ("b1", "d1"), ("a1", "b2", "d2", "a2", "a3")
"""Events, by key and number, in the order of the log: `a` and `b` in one of its partitions, `d` in the other. The last ones of
a story have not been read when it begins."""
LATE = "d2"
"""Its handler says "later" until so much time has passed, which counts against nobody."""


class _Story(NamedTuple):
    """What happens to the events."""

    before: OnPoison
    now: OnPoison
    dead: frozenset[str]
    """When the proof begins."""
    failed: frozenset[str]
    """Once, when it begins."""
    broken: str
    """Its handler fails each time."""
    discarded: frozenset[str]
    """Of the letters; the others are replayed."""
    last: tuple[str, ...]

    @property
    def events(self) -> tuple[str, ...]:
        """All of them."""
        return (*FIRST, *SECOND, *self.last)


WAIT = _Story(
    "key goes on", "key waits", frozenset({"b1"}), frozenset({"a1", "b2", "d2"}), "a1", frozenset({"a1"}), ("b3", "d3")
)
GO_ON = _Story(
    "key waits", "key goes on", frozenset({"a1", "b1", "d1"}), frozenset(), "b2", frozenset({"b2", "d1"}), ("b3",)
)


class Numbered(msgspec.Struct, frozen=True):
    """The first, second … event of its key."""

    name: str


@sql("INSERT INTO effect (name, n) SELECT :name, count(*) FROM effect")
def _insert_effect(name: str) -> None: ...


@sql("SELECT name FROM effect")
def _effects() -> list[str]: ...


def _outbox(database: Database) -> Outbox:
    return Outbox(database, events={"numbered": Numbered}, options=OutboxOptions(partitions=2))


# -- before ---------------------------------------------------------------------------------------------------------------


def _preparing(story: _Story) -> Callable[[Database], Awaitable[None]]:
    async def prepare(database: Database) -> None:
        outbox = _outbox(database)
        await outbox.install()
        async with database.transaction() as tx:
            await tx.execute("CREATE TABLE effect (name TEXT, n INTEGER)")
        await _publish(outbox, database, FIRST)
        await _left_behind(outbox, story, story.dead, attempts=1)
        await _publish(outbox, database, SECOND)
        await _left_behind(outbox, story, story.failed or story.dead, attempts=ATTEMPTS if story.failed else 1)
        await _publish(outbox, database, story.last)

    return prepare


async def _publish(outbox: Outbox, database: Database, names: Sequence[str]) -> None:
    async with database.transaction() as tx:
        for name in names:
            await outbox.publish(Numbered(name), key=name[0], tx=tx)
        await tx.run(database.logs.sequence(outbox.name, [0, 1], limit=len(names), moved=lambda count: None))


async def _left_behind(outbox: Outbox, story: _Story, failing: Collection[str], *, attempts: int) -> None:
    """All that is in the log has been read, and attempted once where nothing kept it back."""

    async def effect(event: Event[Numbered], tx: Transaction) -> None:
        if event.body.name in failing:
            raise ValueError(f"{event.body.name} is broken")
        await tx.run(_insert_effect(event.body.name))

    consumer = outbox.consumer(GROUP, effect, ConsumerOptions(attempts=attempts, on_poison=story.before))
    news = await consumer.open()
    while await consumer.step() == 0.0:
        pass
    await consumer.close()
    news.close()


# -- the workload -----------------------------------------------------------------------------------------------------------


_COUNTED_SO_FAR = "SELECT event_id, attempts FROM faultproof_parked WHERE log = 'outbox' AND grp = 'summary'"


def _processes(story: _Story, plant: str | None) -> dict[str, Main]:
    async def consumer(process: Process) -> None:
        clock, asked = process.env.clock, dict[str, float]()

        async def effect(event: Event[Numbered], tx: Transaction) -> None:
            name = event.body.name
            process.note("attempted", name, event.attempt)
            if event.attempt > 1 and (event.id, event.attempt) not in await tx.fetch(_COUNTED_SO_FAR):
                process.note("uncounted", name, event.attempt)
            if name == story.broken:
                raise ValueError(f"{name} is broken")
            if name == LATE and clock.monotonic() < asked.setdefault(name, clock.monotonic()) + 0.9 * LATER_S:
                raise TryAgain(f"{name} can be done later", retry_after=LATER_S)
            await tx.run(_insert_effect(name))

        options = ConsumerOptions(attempts=ATTEMPTS, backoff=0.1, timeout=0.5, ttl=1.0, on_poison=story.now)
        consumer = _outbox(process.database()).consumer(GROUP, effect, options)
        process.note("begun", process.env.process)
        plant_in(consumer, plant)
        _plant(consumer, plant)
        await Worker(process.env, consumer).run()

    async def operator(process: Process) -> None:
        letters = _outbox(process.database()).dead_letters(GROUP)
        if plant == "next one forgotten":
            letters.__class__ = _ForgetsTheNext
        clock = process.env.clock
        until = clock.monotonic() + PATIENCE_S
        while True:
            await clock.sleep(POLL_S)
            if clock.monotonic() > until:
                process.note("in vain", GROUP)
            dead = {_name(letter.payload): letter.id for letter in await letters.list()}
            if dead and await _is_time(process.database(), story, dead):
                await _decide(process, story, letters, dead)

    return {"consumer": consumer, "operator": operator}


async def _is_time(database: Database, story: _Story, dead: Collection[str]) -> bool:
    """Where keys go on, once everything has gone past the letters."""
    if story is WAIT:
        return True
    effects = await database.read(_effects())
    return set(story.events) <= {*effects, *dead, *story.discarded}


async def _decide(process: Process, story: _Story, letters: DeadLetters, dead: dict[str, str]) -> None:
    for name in sorted(dead, key=lambda name: name in story.discarded):  # discarded last
        verb = "discard" if name in story.discarded else "replay"
        process.note("asked", name, verb)
        if await (letters.discard if verb == "discard" else letters.replay)(dead[name]):
            process.note("told", name, verb)


def _name(payload: str) -> str:
    return msgspec.json.decode(payload, type=Numbered).name


# -- the verdict ----------------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    """Nothing is under way, or somebody has lost patience."""
    return bool(noted(evidence, "in vain")) or not evidence.fetch(
        """SELECT 1 FROM faultproof_parked UNION ALL
           SELECT 1 FROM faultproof_log_partition p JOIN faultproof_inbox i
             ON i.log = p.log AND i."partition" = p."partition"
           WHERE p.next_offset > i.next_offset LIMIT 1"""
    )


def _wrong_letters(evidence: Evidence) -> list[str]:
    letters = evidence.fetch("SELECT payload, attempts, due_us, error FROM faultproof_parked WHERE dead = 1")
    return [
        f"{name} is dead of {error!r}, after {attempts} attempts, and due {due_us}"
        for name, attempts, due_us, error in ((_name(payload), *rest) for payload, *rest in letters)
        if attempts < 1 or due_us is not None or error is None or (error.startswith("ValueError") and name not in error)
    ]


def _wrong_effects(story: _Story) -> Callable[[Evidence], list[str]]:
    def wrong(evidence: Evidence) -> list[str]:
        effects = [name for (name,) in evidence.fetch("SELECT name FROM effect ORDER BY n")]
        expected = sorted(set(story.events) - story.discarded)
        found = [] if sorted(effects) == expected else [f"there are the effects {effects}, not {expected}"]
        apart = set() if story is WAIT else noted(evidence, "asked")
        for key in ("a", "b", "d"):
            own = [name for name in effects if name[0] == key and name not in apart]
            if own != sorted(own):
                found.append(f"the effects of {key} are {own}")
        return found

    return wrong


def _wrong_attempts(evidence: Evidence) -> list[str]:
    made = {note[1:] for note in evidence.notes if note[0] == "attempted"}
    wrong = [f"there was an attempt number {number} at {name}" for name, number in sorted(made) if number > ATTEMPTS]
    return wrong + [
        f"an attempt at {name} was made before it was counted" for name in sorted(noted(evidence, "uncounted"))
    ]


def _wrong_answers(evidence: Evidence) -> list[str]:
    """Who was told that a letter is replayed, or discarded, can decide on it once more only if it has died again."""
    wrong, decided = list[str](), set[str]()
    for kind, name, *_ in evidence.notes:
        if kind == "told" and name in decided:
            wrong.append(f"somebody was told twice to have decided on {name}, and nobody has attempted it in between")
        elif kind == "told":
            decided.add(name)
        elif kind == "begun":  # attempts may have been counted, and their process have died before it made them
            decided.clear()
        else:
            decided -= {name} if kind == "attempted" else set()
    return wrong


# -- planted bugs ---------------------------------------------------------------------------------------------------------


class _CountsAfterwards(Parking):
    """Attempts are counted when they have failed, and not before they are made."""

    def begin(self, parked: Parked, *, again_in_us: int) -> Script[bool]:
        yield from ()
        return True

    def failed_again(self, parked: Parked, decision: Verdict, error: str) -> Script[None]:
        yield from super().begin(parked, again_in_us=0)
        yield from super().failed_again(parked, decision, error)


class _ChoosesForLater(Membership):
    """The choice is written down, and what is parked already stays as it was."""

    def _join(self, key_waits: bool) -> Script[str]:
        yield from tables.choose(self._log, self._group, int(key_waits))
        return (yield from super()._join(key_waits))


class _ForgetsTheNext(DeadLetters):
    """A letter that is discarded is deleted, and that is that."""

    def _settle(self, row: Parked) -> Script[None]:
        yield from tables.unpark(self._log, self._group, row.partition, row.offset)


def _plant(consumer: Consumer, plant: str | None) -> None:
    if plant == "counted afterwards":
        consumer._attempts._parking.__class__ = _CountsAfterwards
    elif plant == "chosen for later":
        consumer._membership.__class__ = _ChoosesForLater


_COUNTED = Plant(
    name="counted afterwards",
    breaks="an attempt that its process does not survive is not counted: one that kills its process does so for ever",
)
_CHOSEN = Plant(
    name="chosen for later", breaks="what was parked by the other choice stands in the wrong order, or for ever"
)


def _proof(name: str, claim: str, story: _Story, plants: Sequence[Plant]) -> Proof:
    took = 4 if story.failed else 3
    return Proof(
        name=f"faultproof.patterns.outbox.proof:{name}",
        claim=claim,
        faults=ANY_FAULT,
        assumptions=(
            "a commit that was acknowledged survives (the database's durability setting)",
            "the consumer's effects go through the transaction it is given",
            "all consumers of the group that run have made the same choice",
        ),
        not_tested=(
            "two writers at the same time, and two snapshots: simulated SQLite has one of each",
            "two people who decide on a letter at the same time, for the same reason",
        ),
        prepare=_preparing(story),
        processes=lambda plant: _processes(story, plant),
        done=_done,
        always=(Always(claim="a dead letter is not due, and says what it died of", wrong=_wrong_letters),),
        eventually=(
            Eventually(claim="effects are there once, and in the order that was chosen", wrong=_wrong_effects(story)),
            Eventually(claim="attempts are counted before they are made", wrong=_wrong_attempts),
            Eventually(claim="who decides on a letter is told the truth", wrong=_wrong_answers),
        ),
        sometimes=(
            Sometimes(
                claim="another process takes a dead one's partition over",
                happened=lambda evidence: bool(
                    evidence.fetch(f"SELECT 1 FROM faultproof_claim WHERE token > {took} LIMIT 1")  # noqa: S608
                ),
            ),
            Sometimes(
                claim="an event is given up, and decided on",
                happened=lambda evidence: story.broken in noted(evidence, "told"),
            ),
        ),
        plants=tuple(plants),
    )


DEAD_LETTERS = _proof(
    "DEAD_LETTERS",
    "An event that has used up its attempts is attempted again when a person replays it, and only then. Later events of its "
    "key have theirs behind its own, or once it is discarded; effects are there once each, but those of discarded events.",
    WAIT,
    (
        Plant(name="overtaking", breaks="a later event of the key is delivered while an earlier one waits"),
        Plant(name="next one forgotten", breaks="what waits behind a letter that is discarded waits for ever"),
        _COUNTED,
        _CHOSEN,
    ),
)
KEYS_GO_ON = _proof(
    "KEYS_GO_ON",
    "Where keys go on, later events of a dead letter's key have their effects without it, in their order, and its own comes "
    "when a person replays it; all effects are there once, but those of discarded events.",
    GO_ON,
    (_COUNTED, _CHOSEN),
)

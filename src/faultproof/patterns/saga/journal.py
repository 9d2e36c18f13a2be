"""The journal's scripts: starting sagas, taking them up, and writing down what happened, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from faultproof.errors import KeyReused, LeaseLost
from faultproof.patterns.saga import sql
from faultproof.patterns.saga.definition import Definition
from faultproof.patterns.saga.machine import OVER, Entry, Run
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.script import ByIndexes, Script, Wake, later
from faultproof.primitives.group_commit import Err, Ok, Outcome


def claim_kind(saga: str) -> str:
    """The kind of a saga's claims: one for each instance that is under way."""
    return f"saga:{saga}"


def work_topic(saga: str) -> str:
    """News of sagas that somebody should take up."""
    return f"saga.{saga}.work"


def ended_topic(saga: str) -> str:
    """News of sagas that have ended, or want attention."""
    return f"saga.{saga}.ended"


class Write(NamedTuple):
    """What is to be journaled of one saga, and what becomes of its claim, in one transaction."""

    id: str
    claim: Claim
    seq: int
    """Of the entry before."""
    entries: Sequence[Entry]
    run: Run
    """As it is with them."""
    moves: bool
    """Its state changes."""
    release_in_us: int | None
    """The claim is given back for so long, because only a callback or time brings it on."""

    @property
    def settles(self) -> bool:
        """Nobody goes on with it in this process."""
        return self.run.is_over or self.release_in_us is not None


class Loaded(NamedTuple):
    """A saga that was taken up, as it is stored."""

    claim: Claim
    row: sql.Stored
    entries: Sequence[sql.StoredEntry]
    callbacks: Sequence[sql.Callback]


class Take(NamedTuple):
    """Sagas to take up; see `Runner`."""

    owner: str
    ttl_us: int
    limit: Callable[[], int]
    """For how many there is room, asked in its transaction."""
    go_on: Callable[[Loaded], tuple[Any, Write | None]]
    """What to make of each, and what to journal of it first."""


class Starter(NamedTuple):
    """Who goes on with a saga from its start, so that nobody has to find it first."""

    owner: str
    ttl_us: int
    begin: Callable[[], Sequence[Entry] | None]
    """What to journal with it, or None if there is no room any more. Called in its transaction, again if that is begun
    again."""
    held: Callable[[Claim], None]
    """Given its claim, with the answer to the commit at the latest; not for one that was there already."""


class Start(NamedTuple):
    """A saga to start."""

    definition: Definition
    row: sql.NewSaga
    hold: Starter | None = None


Item = Write | Take | Start

_GIVES_UP = frozenset({"began", "unknown", "failed"})
"""Of an asynchronous step: nothing is expected of the attempt before this one any more, or of this one."""


class Journal:
    """The tables of one kind of saga."""

    def __init__(self, database: Database, saga: str) -> None:
        self._claims = database.claims
        self._saga = saga
        self._kind = claim_kind(saga)

    def start_new(self, starts: Sequence[Start]) -> Script[list[Outcome[bool]]]:
        """Start them all, with nothing to wait for before the commit. Ends in `ConstraintViolated` where one is not new."""
        of = starts[0].definition
        items = [start.row for start in starts]
        yield from sql.insert_new(self._saga, of.version, of.shape.fingerprint, of.shape.text, items)
        yield from self._hand_out(starts)
        return [Ok(True) for _ in starts]

    def start(self, starts: Sequence[Start]) -> Script[list[Outcome[bool]]]:
        """Start those that are new; whether each is, or `KeyReused` for one that was started with another input."""
        items, of = [start.row for start in starts], starts[0].definition
        new = set((yield from sql.insert(self._saga, of.version, of.shape.fingerprint, of.shape.text, items)))
        digests: dict[str, str] = {}
        if len(new) < len(items):  # some were there, or are here twice
            digests = dict((yield from sql.known(self._saga, [item.id for item in items])))
        if new:
            yield from self._hand_out([start for start in starts if start.row.id in new])
        outcomes: list[Outcome[bool]] = []
        for item in items:
            if digests.get(item.id, item.digest) != item.digest:
                outcomes.append(
                    Err(KeyReused(f"the saga {item.id!r} was started before with another input: give each its own id"))
                )
            else:
                outcomes.append(Ok(item.id in new))
                new.discard(item.id)
        return outcomes

    def _hand_out(self, new: Sequence[Start]) -> Script[None]:
        """To whoever holds them from the start, in this process, or to anybody."""
        first = {
            start.row.id: start for start in reversed(new)
        }  # of those with one id, it is the first that is told so
        held: dict[str, Starter] = {}
        lines: list[sql.NewEntry] = []
        for id, start in first.items():
            if start.hold is not None and (entries := start.hold.begin()) is not None:
                held[id] = start.hold
                lines += [sql.NewEntry(id, seq, *entry) for seq, entry in enumerate(entries, 1)]
        if free := sorted(first.keys() - held.keys()):
            yield from later(self._claims.add(self._kind, free), lambda count: None, refuses=False)
            yield Wake(work_topic(self._saga))
        if not held:
            return

        def told(claims: list[Claim]) -> None:
            for claim in claims:
                held[claim.id].held(claim)

        owner = next(iter(held.values())).owner  # they are of one process
        ttl_us = max(hold.ttl_us for hold in held.values())
        yield from self._claims.hold(self._kind, owner, sorted(held), ttl_us=ttl_us, held=told)
        yield from sql.write(self._saga, lines)

    def take(self, asked: Take) -> Script[list[Any]]:
        """Take up sagas that are due, with what follows at once journaled."""
        if (limit := asked.limit()) <= 0:
            return []
        claims = yield from self._claims.take(self._kind, asked.owner, ttl_us=asked.ttl_us, limit=limit)
        if not claims:
            return []
        resumed = [asked.go_on(loaded) for loaded in (yield from self.load(claims))]
        writes = [write for _, write in resumed if write is not None]
        if writes:
            yield from self.write(writes)
        return [made for made, _ in resumed]

    def load(self, claims: Sequence[Claim]) -> Script[list[Loaded]]:
        """The sagas of these claims."""
        rows = {row.id: row for row in (yield from sql.stored(self._saga, [claim.id for claim in claims]))}
        begun = [row.id for row in rows.values() if row.entries]
        entries: dict[str, list[sql.StoredEntry]] = {id: [] for id in begun}
        callbacks: dict[str, list[sql.Callback]] = {id: [] for id in begun}
        if begun:
            for entry in (yield from sql.entries(self._saga, begun)):
                entries[entry.id].append(entry)
            for callback in (yield from sql.callbacks(self._saga, begun)):
                callbacks[callback.id].append(callback)
        if orphans := [claim for claim in claims if claim.id not in rows]:  # somebody has deleted rows by hand
            yield from self._claims.finish(self._kind, orphans)
        return [
            Loaded(claim, rows[claim.id], entries.get(claim.id, ()), callbacks.get(claim.id, ()))
            for claim in claims
            if claim.id in rows
        ]

    def commit_all(self, items: Sequence[Item], *, all_new: bool = False) -> Script[list[Outcome[Any]]]:
        """For a group commit: what is journaled, started and taken up at the same time shares a transaction. `all_new`: as
        for `start_new`."""
        writes = [item for item in items if isinstance(item, Write)]
        answered: frozenset[str] = frozenset()
        yield ByIndexes()  # claims come and go
        if writes:
            asked = _asked(writes)
            # To finish a claim is a guard as well.
            guarded = [write.claim for write in writes if not write.run.is_over or write.id in asked]
            if guarded:
                yield from self.guard(guarded)
            answered = yield from self._answered(asked)
            yield from self.write([write for write in writes if write.id not in answered])
            yield from self._taken_up_again([write.claim for write in writes if write.id in answered])
        starts = [item for item in items if isinstance(item, Start)]
        start = self.start_new if all_new else self.start
        started = iter((yield from start(starts)) if starts else [])
        outcomes: list[Outcome[Any]] = []
        for item in items:
            if isinstance(item, Start):
                outcomes.append(next(started))
            elif isinstance(item, Write) and item.id in answered:
                outcomes.append(
                    Err(LeaseLost(f"saga {item.id!r} was answered: whoever takes it up goes on from there"))
                )
            else:
                outcomes.append(Ok((yield from self.take(item)) if isinstance(item, Take) else None))
        return outcomes

    def _answered(self, asked: dict[str, set[tuple[str, int]]]) -> Script[frozenset[str]]:
        """Those of these sagas whose answer has come meanwhile. Looked at under the claims' lock, as answers are recorded."""
        if not asked:
            return frozenset()
        callbacks = yield from sql.callbacks(self._saga, sorted(asked))
        return frozenset(
            callback.id for callback in callbacks if (callback.step, callback.attempt) in asked[callback.id]
        )

    def _taken_up_again(self, claims: Sequence[Claim]) -> Script[None]:
        if claims:
            yield from self._claims.release(self._kind, claims)
            yield Wake(work_topic(self._saga))

    def guard(self, claims: Sequence[Claim]) -> Script[None]:
        """Raise `LeaseLost` unless all are ours."""
        yield from self._claims.guard(self._kind, claims)

    def write(self, writes: Sequence[Write]) -> Script[None]:
        """Journal, in a transaction that has taken or guarded the claims."""
        lines = [
            sql.NewEntry(write.id, write.seq + number, *entry)
            for write in writes
            for number, entry in enumerate(write.entries, 1)
        ]
        if lines:
            yield from sql.write(self._saga, lines)
        moved: dict[tuple[str, str | None], list[str]] = {}
        for write in writes:
            if write.moves:
                moved.setdefault((write.run.phase, write.run.reason), []).append(write.id)
        for (phase, reason), ids in moved.items():
            yield from sql.move(self._saga, sorted(ids), phase, reason, int(phase in OVER))
        if over := [write.claim for write in writes if write.run.is_over]:
            yield from self._claims.finish(self._kind, over)
            yield Wake(ended_topic(self._saga))
        for write in writes:
            if write.release_in_us is not None:
                yield from self._release(write)

    def _release(self, write: Write) -> Script[None]:
        # Looked at under the claim's lock: a callback comes before this and is seen, or after it and finds the claim free.
        early = any(
            write.run.steps[callback.step].attempt == callback.attempt
            and write.run.steps[callback.step].status == "pending"
            for callback in (yield from sql.callbacks(self._saga, [write.id]))
            if callback.step in write.run.steps
        )
        yield from self._claims.release(self._kind, [write.claim], delay_us=0 if early else write.release_in_us or 0)
        if early:
            yield Wake(work_topic(self._saga))


def _asked(writes: Sequence[Write]) -> dict[str, set[tuple[str, int]]]:
    """Questions to others (step, attempt) that these would repeat or give up, by saga."""
    asked: dict[str, set[tuple[str, int]]] = {}
    for write in writes:
        for entry in write.entries:
            if entry.what not in _GIVES_UP or write.run.steps[entry.step].secret is None:
                continue
            if entry.what != "began" or entry.attempt > 1:
                attempt = entry.attempt - 1 if entry.what == "began" else entry.attempt
                asked.setdefault(write.id, set()).add((entry.step, attempt))
    return asked

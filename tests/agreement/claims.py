"""Histories of leased work."""

from collections.abc import Sequence

from hypothesis import strategies as st

from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.ports.statement import Changed
from tests.agreement.pair import ELAPSE_S, HOUR_US, Operation, in_one_transaction

Picks = tuple[int, ...]


@sql("UPDATE faultproof_claim SET until_us = until_us - :us WHERE kind = :kind")
def older(kind: str, us: int) -> Changed: ...


class Claims:
    """The claims of one kind, and everybody who was ever given one: zombies present theirs too."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._table = database.claims
        self._kind = name
        self._given: list[Claim] = []

    async def begin(self) -> None:
        await self._database.transact(self._table.add(self._kind, ["a", "b"]))

    async def alone(self, step: Operation) -> object:
        return await self._database.transact(self._script(step))

    async def together(self, steps: Sequence[Operation], commit: bool) -> object:
        before = list(self._given)
        is_committed = False
        try:
            answers = await in_one_transaction(
                self._database, [lambda step=step: self._script(step) for step in steps], commit=commit
            )
            is_committed = commit
        finally:
            if not is_committed:
                self._given = before
        return answers

    async def elapse(self) -> object:
        return await self._database.transact(older(self._kind, ELAPSE_S * 1_000_000))

    async def tables(self) -> object:
        return await self._database.transact(self.holders())

    # -- scripts ----------------------------------------------------------------------------------------------------

    def add(self, ids: Sequence[str], delay_us: int) -> Script[object]:
        return (yield from self._table.add(self._kind, ids, delay_us=delay_us))

    def take(self, owner: str, limit: int) -> Script[object]:
        return self._noted((yield from self._table.take(self._kind, owner, ttl_us=HOUR_US, limit=limit)))

    def guard(self, picks: Picks) -> Script[object]:
        yield from self._table.guard(self._kind, self._picked(picks))
        yield from self._table.holders(self._kind)  # whose answer the guard's comes with at the latest
        return None

    def renew(self, picks: Picks) -> Script[object]:
        return self._noted((yield from self._table.renew(self._kind, self._picked(picks), ttl_us=HOUR_US)))

    def finish(self, picks: Picks) -> Script[object]:
        yield from self._table.finish(self._kind, self._picked(picks))
        yield from self._table.holders(self._kind)  # as with `guard`
        return None

    def fail(self, picks: Picks, retry_in_us: int | None) -> Script[object]:
        for claim in self._picked(picks):
            yield from self._table.fail(self._kind, claim, error="no luck", retry_in_us=retry_in_us)
        return None

    def release(self, picks: Picks, delay_us: int = 0) -> Script[object]:
        return (yield from self._table.release(self._kind, self._picked(picks), delay_us=delay_us))

    def hasten(self, ids: Sequence[str]) -> Script[object]:
        return (yield from self._table.hasten(self._kind, ids))

    def remove(self) -> Script[object]:
        return (yield from self._table.remove(self._kind))

    def holders(self) -> Script[object]:
        rows = yield from self._table.holders(self._kind)
        # The token of a row that nobody holds is the engine's own affair.
        return [
            (row.id, row.state, row.owner, row.owner and self._rank(row.id, row.token), row.attempts, row.error)
            for row in rows
        ]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _script(self, step: Operation) -> Script[object]:
        script: Script[object] = getattr(self, step.name)(*step.arguments)
        return script

    def _noted(self, claims: Sequence[Claim]) -> object:
        for claim in claims:
            if claim not in self._given:
                self._given.append(claim)
        return [(claim.id, self._rank(claim.id, claim.token), claim.attempts) for claim in claims]

    def _picked(self, picks: Picks) -> list[Claim]:
        return list(dict.fromkeys(self._given[pick % len(self._given)] for pick in picks if self._given))

    def _rank(self, id: str, token: int) -> int:
        """How many tokens of this id were lower: engines count them differently, and both must count upwards."""
        return len({claim.token for claim in self._given if claim.id == id and claim.token < token})


_ids = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)
_picks = st.lists(st.integers(0, 30), max_size=3, unique=True).map(tuple)
_some = st.lists(st.integers(0, 30), min_size=1, max_size=3, unique=True).map(tuple)
_scripts = st.one_of(
    st.builds(Operation, st.just("add"), st.tuples(_ids, st.sampled_from([0, 0, HOUR_US]))),
    st.builds(Operation, st.just("take"), st.tuples(st.sampled_from(["ann", "bob"]), st.integers(1, 4))),
    st.builds(Operation, st.just("take"), st.tuples(st.sampled_from(["ann", "bob"]), st.integers(1, 4))),
    st.builds(Operation, st.sampled_from(["guard", "renew", "finish", "release"]), st.tuples(_picks)),
    st.builds(Operation, st.sampled_from(["guard", "renew", "finish", "release"]), st.tuples(_some)),
    st.builds(Operation, st.just("release"), st.tuples(_some, st.sampled_from([0, HOUR_US]))),
    st.builds(Operation, st.just("hasten"), st.tuples(_ids)),
    st.builds(Operation, st.just("fail"), st.tuples(_some, st.sampled_from([0, 0, HOUR_US, None]))),
    st.sampled_from([Operation(name, ()) for name in ("holders", "holders", "remove")]),
)
steps = st.one_of(
    st.builds(Operation, st.just("alone"), st.tuples(_scripts)),
    st.builds(Operation, st.just("alone"), st.tuples(_scripts)),
    st.builds(Operation, st.just("together"), st.tuples(st.lists(_scripts, min_size=2, max_size=4), st.booleans())),
    st.just(Operation("elapse", ())),
)
"""What a history of claims is made of."""

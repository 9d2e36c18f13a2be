"""Histories of requests that are repeated."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from faultproof.errors import Duplicate, Failed, OutcomeUnknown, TryAgain
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.ports.statement import Changed
from faultproof.primitives.idempotency import SCHEMA as SCHEMA
from faultproof.primitives.idempotency import Duplicates, Idempotency
from tests.agreement.pair import ELAPSE_S, Operation, in_one_transaction

LEASE_S = 3_600.0
FAILURES = {"failed": Failed("no"), "later": TryAgain("not now"), "unknown": OutcomeUnknown("who knows")}


class Kept(NamedTuple):
    """What is stored under a key, without its times."""

    key: str
    fingerprint: str
    token: int
    answer: str | None


@sql("UPDATE faultproof_idempotency SET until_us = until_us - :us, at_us = at_us - :us WHERE scope = :scope")
def older(scope: str, us: int) -> Changed: ...


@sql("SELECT key, fingerprint, token, answer FROM faultproof_idempotency WHERE scope = :scope ORDER BY key")
def kept(scope: str) -> list[Kept]: ...


class Requests:
    """The answers of one scope. `work` is what a request does: the answer that it gives, or the error that it raises."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._scope = name
        self._done: list[str] = []

    async def begin(self) -> None:
        """Nothing: a scope is there when it is first used."""

    async def run(self, duplicates: Duplicates, key: str, content: str, work: str) -> object:
        async def worked() -> str:
            return self._worked(work)

        return await self._telling(self._answers(duplicates).run(key, content, worked, timeout=0))

    async def scripts(self, duplicates: Duplicates, requests: Sequence[tuple[str, str, str]], commit: bool) -> object:
        before = list(self._done)
        answers = await in_one_transaction(
            self._database, [lambda one=one: self._script(duplicates, *one) for one in requests], commit=commit
        )
        if not commit:
            self._done = before
        return answers

    async def trim(self, older_s: float, limit: int) -> object:
        return await self._answers("replay").trim(older=older_s, limit=limit)

    async def elapse(self) -> object:
        return await self._database.transact(older(self._scope, ELAPSE_S * 1_000_000))

    async def tables(self) -> object:
        return self._done, await self._database.read(kept(self._scope))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _answers(self, duplicates: Duplicates) -> Idempotency[str]:
        return Idempotency(self._database, self._scope, answer=str, duplicates=duplicates, ttl=LEASE_S)

    def _script(self, duplicates: Duplicates, key: str, content: str, work: str) -> Script[object]:
        def worked() -> Script[str]:
            yield from ()
            return self._worked(work)

        try:
            return (yield from self._answers(duplicates).script(key, content, worked()))
        except Duplicate as error:
            return "duplicate of", error.answer

    async def _telling(self, call: object) -> object:
        try:
            return await call  # type: ignore[misc]
        except Duplicate as error:
            return "duplicate of", error.answer

    def _worked(self, work: str) -> str:
        self._done.append(work)
        if work in FAILURES:
            raise FAILURES[work]
        return work


_duplicates = st.sampled_from(["wait", "raise", "replay"])
_request = st.tuples(
    st.sampled_from(["k1", "k2", "k3", "k4"]),
    st.sampled_from(["tea", "tea", "tea", "coffee"]),
    st.sampled_from(["yes", "naïve ☕", *FAILURES]),
)
steps = st.one_of(
    st.tuples(_duplicates, _request).map(lambda drawn: Operation("run", (drawn[0], *drawn[1]))),
    st.builds(
        Operation,
        st.just("scripts"),
        st.tuples(_duplicates, st.lists(_request, min_size=1, max_size=3), st.booleans()),
    ),
    st.builds(Operation, st.just("trim"), st.tuples(st.sampled_from([0.0, LEASE_S, LEASE_S]), st.integers(1, 3))),
    st.just(Operation("elapse", ())),
)
"""What a history of requests is made of."""

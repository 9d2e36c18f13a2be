"""SQLite and PostgreSQL give the same answers to the same histories, and leave the same rows behind."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from faultproof.engines.postgres.claims import PostgresClaims
from faultproof.ports.claims import Claim
from faultproof.ports.script import Script
from tests.agreement import claims, idempotency, log, outbox
from tests.agreement.pair import Disagreement, History, Make, Operation, Pair, connected

LENGTH_MIN = 20
LENGTH_MAX = 22


class Both:
    """The pair, for tests that are not asynchronous themselves: hypothesis calls what it is given again and again."""

    def __init__(self, runner: asyncio.Runner, pair: Pair) -> None:
        self._runner = runner
        self.pair = pair

    def agree(self, make: Make, steps: st.SearchStrategy[Operation], *, histories: int, shrink: bool = True) -> None:
        """Play so many histories. Raises `Disagreement` for the shortest that was found to differ."""

        @settings(
            max_examples=histories,
            derandomize=True,  # the same histories in every run
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(steps, min_size=LENGTH_MIN, max_size=LENGTH_MAX))
        def play(history: History) -> None:
            self._runner.run(self.pair.agree(make, history))

        play()


@pytest.fixture
def both(postgres_url: str, tmp_path: Path) -> Iterator[Both]:
    """An empty database on either engine, with all tables."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        pair = runner.run(stack.enter_async_context(connected(str(tmp_path / "a.db"), postgres_url)))
        for database in pair.databases:
            runner.run(database.install(database.claims.schema, database.logs.schema))
            runner.run(database.install(idempotency.SCHEMA, outbox.EFFECTS))
        yield Both(runner, pair)
        runner.run(stack.aclose())


SUBJECTS: list[tuple[str, Make, st.SearchStrategy[Operation], int]] = [
    ("claims", claims.Claims, claims.steps, 160),
    ("log", log.Log, log.steps, 140),
    ("idempotency", idempotency.Requests, idempotency.steps, 140),
    ("outbox", outbox.Mail, outbox.steps, 60),
]
"""What is compared, and in how many histories: 500 in all with `make soak`, a fifth of them in every run."""


@pytest.mark.parametrize(
    ("make", "steps", "histories"),
    [
        *(pytest.param(make, steps, histories // 5, id=name) for name, make, steps, histories in SUBJECTS),
        *(
            pytest.param(make, steps, histories, id=f"{name}-all", marks=pytest.mark.soak)
            for name, make, steps, histories in SUBJECTS
        ),
    ],
)
def test_engines_agree(both: Both, make: Make, steps: st.SearchStrategy[Operation], histories: int) -> None:
    both.agree(make, steps, histories=histories)
    assert both.pair.played == histories
    assert both.pair.operations >= histories * LENGTH_MIN


class Forgetful(PostgresClaims):
    """Says that it gives claims back, and does not."""

    def release(self, kind: str, claims: Sequence[Claim], *, delay_us: int = 0) -> Script[None]:
        yield from ()


def test_an_engine_that_lies_is_found_out(both: Both) -> None:
    theirs: Any = both.pair.databases[1]
    theirs.claims = Forgetful()
    with pytest.raises(Disagreement, match="SQLite says"):
        both.agree(claims.Claims, claims.steps, histories=100, shrink=False)
    assert both.pair.played < 100

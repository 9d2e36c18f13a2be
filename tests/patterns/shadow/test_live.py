"""With real processes: a candidate that burns a core, and callers who do not notice."""

import asyncio
import json
from statistics import median
from typing import Any

import pytest

from tests.processes import running

pytestmark = [pytest.mark.anyio, pytest.mark.alone]

MOVED_MOST = 1.05
"""Of the median pair of turns, one with the shadow and one without: what the machine does meanwhile, it does to both."""
OTHERS_MOST = 0.1
"""Where others have more of the machine, nothing that is measured says anything about a shadow."""
ATTEMPTS = 3


async def measured(mode: str, rounds: int) -> dict[str, Any]:
    async with running("tests.patterns.shadow.live", mode, rounds) as child, asyncio.timeout(20 + 2 * rounds):
        assert child.process.stdout is not None
        told = json.loads(await child.process.stdout.read())
    ratios = [beside / alone for alone, beside in zip(told["without"], told["with"], strict=True)]
    return {**told, "moved": median(ratios)}


async def judged(rounds: int) -> None:
    for _ in range(ATTEMPTS):
        found = await measured("processes", rounds)
        if found["others"] <= OTHERS_MOST:
            assert found["core"] > 0.7, "the candidate burns"
            assert found["same"] == found["mirrored"] > 5 * rounds
        if found["moved"] < MOVED_MOST:
            return
    if found["others"] > OTHERS_MOST:
        pytest.skip(f"others had {found['others']:.0%} of the machine")
    raise AssertionError(f"the callers' p99 was moved by {found['moved'] - 1:.1%}: {found}")


async def test_a_candidate_that_burns_a_core_does_not_move_the_callers_p99() -> None:
    await judged(rounds=8)


@pytest.mark.soak
async def test_a_candidate_that_burns_a_core_does_not_move_the_callers_p99_for_a_minute() -> None:
    await judged(rounds=60)


@pytest.mark.parametrize("mode", ["loop", "thread"])
async def test_in_the_same_process_it_does_and_that_is_seen(mode: str) -> None:
    """Or the test above would not say much."""
    assert (await measured(mode, 3))["moved"] > 1.5

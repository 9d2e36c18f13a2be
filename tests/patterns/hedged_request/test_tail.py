"""What hedging is there for, in virtual time: the tail of many leaves, and that it makes nothing worse under load."""

import pytest

from faultproof.primitives.hedging import HedgePolicy
from tests.patterns.hedged_request.tails import LEAVES, WORKERS, at, loaded, root


@pytest.mark.parametrize(("hedge", "p99_ms"), [(None, (900, 1_100)), (HedgePolicy(quantile=0.99), (0, 30))])
def test_a_root_of_a_hundred_leaves_no_longer_waits_for_the_slowest(
    hedge: HedgePolicy | None, p99_ms: tuple[int, int]
) -> None:
    """At most 2 % more calls are made."""
    times, calls = root(hedge)
    assert p99_ms[0] <= at(0.99, times[50:]) <= p99_ms[1]
    assert calls <= 250 * len(LEAVES) * 1.02


def test_at_full_load_a_hedge_beyond_the_room_is_what_makes_everybody_wait() -> None:
    plain, bounded = loaded(0.95, room=None, is_hedged=False), loaded(0.95, room=12, is_hedged=True)
    for share in (0.5, 0.99, 0.999):
        assert at(share, bounded) <= at(share, plain) * 1.02, share
    without_bound = loaded(0.95, room=1_000_000, is_hedged=True)
    assert at(0.5, without_bound) > 1.2 * at(0.5, plain), "this is what the bound is there against"


def test_with_room_the_tail_is_cut_off() -> None:
    plain, hedged = loaded(0.5, room=WORKERS, is_hedged=False), loaded(0.5, room=WORKERS, is_hedged=True)
    assert at(0.99, hedged) < 0.7 * at(0.99, plain)
    assert at(0.5, hedged) < 1.1 * at(0.5, plain)

"""Care after a crash: how many events come next of a partition whose holders died."""

import pytest

from faultproof.patterns.outbox.care import CRASHES_MAX, Care
from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.ports.claims import Claim
from faultproof.ports.log import Record

pytestmark = pytest.mark.anyio


class Held:
    """Leases with these claims."""

    def __init__(self, *claims: Claim) -> None:
        self.claims = list(claims)
        self.absolved: list[str] = []

    def held(self) -> list[Claim]:
        return self.claims

    async def absolve(self, ids: list[str]) -> None:
        self.absolved += ids
        self.claims = [claim._replace(attempts=1) if claim.id in ids else claim for claim in self.claims]


def care(held: Held, batch: int = 16) -> Care:
    return Care(held, ConsumerOptions(batch=batch))  # type: ignore[arg-type]  # what it needs of leases


def records(partition: int, count: int) -> list[Record]:
    return [Record(partition, offset, f"{partition}-{offset}", None, "T", "{}", None, 0) for offset in range(count)]


async def test_where_nobody_died_all_come() -> None:
    held = Held(Claim("0", 1, 1), Claim("1", 1, 1))
    both = records(0, 5) + records(1, 5)
    assert await care(held).choose(both) == both
    assert held.absolved == []


async def test_after_a_death_one_comes_alone_then_twice_as_many_until_a_batch_went_well() -> None:
    held = Held(Claim("0", 2, 2))
    careful, left = care(held), records(0, 100)
    sizes = []
    while not held.absolved:
        chosen = await careful.choose(left[:16])
        sizes.append(len(chosen))
        left = left[len(chosen) :]
    assert sizes == [1, 2, 4, 8, 16, 16]
    assert held.absolved == ["0"]


async def test_one_doubtful_partition_at_a_time() -> None:
    held = Held(Claim("0", 2, 2), Claim("1", 2, 3))
    careful = care(held)
    first, second = records(0, 8), records(1, 8)
    assert await careful.choose(first + second) == first[:1]
    assert await careful.choose(first[1:] + second) == first[1:3]
    # Nothing is left of the first: it is trusted again, and the other has not been tried yet.
    assert await careful.choose(second) == second[:1]
    assert held.absolved == ["0"]


async def test_next_event_is_the_suspect_after_too_many_deaths() -> None:
    held = Held(Claim("0", 2, CRASHES_MAX), Claim("1", 9, CRASHES_MAX + 1))
    both = records(0, 2) + records(1, 2)
    assert care(held).suspect(both) == both[2]
    assert care(held).suspect(records(0, 2)) is None

"""Leases: members on one file share partitions, hand over and take over. Time is the test's, and shared by all."""

import math
from typing import Any

import pytest

from faultproof.errors import InvalidInput, LeaseLost
from faultproof.ports.database import Database
from faultproof.primitives.leases import Leases, fair_share
from faultproof.signals import LOOP_LAG, STUCK, Signals
from tests.fakes import FixedRng, ManualClock, Recorder, env_of
from tests.files import Connect

pytestmark = pytest.mark.anyio

PARTITIONS = 8
TTL = 9.0


class Team:
    """Members with a database object each, which tend their leases whenever time passes."""

    def __init__(self, connect: Connect, *, share: bool = True) -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        self.members: dict[str, Leases] = {}
        self.databases: dict[str, Database] = {}
        self._connect = connect
        self._share = share

    async def join(self, *names: str, owner: str | None = None) -> None:
        for name in names:
            env = env_of(clock=self.clock, rng=FixedRng(0.5), signals=Signals(sinks=[self.recorder]))
            database = self.databases[name] = await self._connect(env)
            if len(self.databases) == 1:
                await database.install(database.claims.schema)
                await database.transact(database.claims.add("job", [str(n) for n in range(PARTITIONS)]))
            self.members[name] = Leases(database, "job", owner=owner or name, ttl=TTL, share=self._share)
            await self.members[name].tend()

    async def pass_time(self, seconds: float) -> None:
        for _ in range(math.ceil(seconds / 0.5)):
            self.clock.advance(0.5)
            for member in self.members.values():
                await member.tend()
            self.nobody_shares_a_partition()

    def held(self) -> dict[str, list[int]]:
        return {name: [int(claim.id) for claim in member.held()] for name, member in self.members.items()}

    def everything(self) -> list[int]:
        return sorted(partition for partitions in self.held().values() for partition in partitions)

    def sizes(self) -> list[int]:
        return sorted(len(partitions) for partitions in self.held().values())

    def nobody_shares_a_partition(self) -> None:
        everything = self.everything()
        assert len(everything) == len(set(everything)), self.held()


@pytest.fixture
def team(connect: Connect) -> Team:
    return Team(connect)


@pytest.mark.parametrize("ttl", [0, -1, math.inf, math.nan, "5", True], ids=repr)
async def test_a_lease_time_that_cannot_be_is_refused(db: Database, ttl: Any) -> None:
    with pytest.raises(InvalidInput, match="`ttl` must be"):
        Leases(db, "job", owner="a", ttl=ttl, share=True)


async def test_one_member_takes_everything_at_once(team: Team) -> None:
    await team.join("a")
    assert team.held() == {"a": list(range(8))}


@pytest.mark.parametrize(
    ("members", "sizes"),
    [
        ("ab", [4, 4]),
        ("abc", [2, 3, 3]),
        ("abcde", [1, 1, 2, 2, 2]),  # found: from five to seven members, four held two each and the rest none
        ("abcdef", [1, 1, 1, 1, 2, 2]),
        ("abcdefg", [1, 1, 1, 1, 1, 1, 2]),
        ("abcdefghi", [0] + [1] * 8),
    ],
)
async def test_members_share_fairly_and_completely(team: Team, members: str, sizes: list[int]) -> None:
    await team.join(*members)
    await team.pass_time(TTL)
    assert team.sizes() == sizes
    assert team.everything() == list(range(8))
    before = {name: member.held() for name, member in team.members.items()}
    await team.pass_time(3 * TTL)
    assert {name: member.held() for name, member in team.members.items()} == before  # nothing goes to and fro


@pytest.mark.parametrize("total", [0, 1, 7, 8, 1_024])
@pytest.mark.parametrize("names", ["a", "ab", "edcba", "abcdefghi"])
def test_parts_add_up_and_differ_by_one_at_most(total: int, names: str) -> None:
    parts = [fair_share(total, set(names), name) for name in names]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


async def test_parts_stay_fair_while_members_come_and_go(team: Team) -> None:
    await team.join(*"ace")
    await team.pass_time(TTL)
    await team.join("b", "d")  # between the others by name
    await team.pass_time(TTL)
    assert (team.sizes(), team.everything()) == ([1, 1, 2, 2, 2], list(range(8)))
    del team.members["a"]  # dies
    await team.pass_time(2.5 * TTL)
    assert (team.sizes(), team.everything()) == ([2, 2, 2, 2], list(range(8)))
    await team.members.pop("c").close()
    await team.pass_time(TTL)
    assert (team.sizes(), team.everything()) == ([2, 3, 3], list(range(8)))


async def test_members_of_one_owner_share_like_any_others(team: Team) -> None:
    """Found: two consumers of a group in one process counted as one, and took another process's part."""
    await team.join("a", "b", "c", owner="one process")
    await team.join("d")
    await team.pass_time(TTL)
    assert (team.sizes(), team.everything()) == ([2, 2, 2, 2], list(range(8)))
    await team.members.pop("b").close()
    await team.pass_time(TTL)
    assert (team.sizes(), team.everything()) == ([2, 3, 3], list(range(8)))


async def test_a_newcomer_gets_its_part_within_one_lease_time(team: Team) -> None:
    await team.join("a", "b")
    await team.pass_time(3 * TTL)
    await team.join("c")
    assert team.held()["c"] == []
    await team.pass_time(TTL)
    assert team.sizes() == [2, 3, 3]
    await team.pass_time(5 * TTL)
    assert team.sizes() == [2, 3, 3]  # and no partition wanders about
    assert team.recorder.values(STUCK) == []


async def test_who_stays_keeps_what_it_has(team: Team) -> None:
    await team.join("a", "b")
    await team.pass_time(TTL)
    before = {name: member.held() for name, member in team.members.items()}
    await team.pass_time(10 * TTL)
    assert {name: member.held() for name, member in team.members.items()} == before  # tokens and all


async def test_a_dead_member_s_part_is_taken_over_after_the_ttl_and_not_before(team: Team) -> None:
    await team.join("a", "b")
    await team.pass_time(TTL)
    del team.members["b"]  # it dies: nobody tends its leases any more
    await team.pass_time(TTL - 2.5)  # it had renewed up to a third of the ttl before
    assert team.sizes() == [4]
    assert team.recorder.values(STUCK) == []
    await team.pass_time(TTL)
    assert team.held() == {"a": list(range(8))}
    assert team.recorder.values(STUCK, kind="job") == [4]
    assert sorted(claim.attempts for claim in team.members["a"].held()) == [1] * 4 + [2] * 4


async def test_who_leaves_in_good_order_is_replaced_at_the_next_look(team: Team) -> None:
    await team.join("a", "b")
    await team.pass_time(TTL)
    await team.members.pop("b").close()
    await team.pass_time(0.4 * TTL)
    assert team.held() == {"a": list(range(8))}
    assert team.recorder.values(STUCK) == []
    assert all(claim.attempts == 1 for claim in team.members["a"].held())


async def test_a_loop_blocked_longer_than_its_lease_gives_up_and_says_for_how_long(team: Team) -> None:
    await team.join("a", "b")
    await team.pass_time(TTL)
    blocked = team.members.pop("b")
    before = blocked.held()
    asked_before_s = blocked._until - team.clock.now
    await team.pass_time(2 * TTL)  # `a` has taken everything over meanwhile
    assert team.held() == {"a": list(range(8))}
    with pytest.raises(LeaseLost):
        blocked.held()
    claims = await blocked.tend()
    assert team.recorder.values(LOOP_LAG, kind="job") == [pytest.approx(2 * TTL - asked_before_s)]
    assert claims == []
    with pytest.raises(LeaseLost):
        await team.databases["b"].transact(team.databases["b"].claims.guard("job", before))
    team.members["b"] = blocked
    await team.pass_time(TTL)
    assert team.sizes() == [4, 4]


async def test_leases_are_counted_from_before_they_were_asked_for(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    await team.join("a")
    member, database = team.members["a"], team.databases["a"]
    slow = database.transact

    async def transact(script: object) -> object:
        team.clock.advance(4.0)  # the way there …
        result = await slow(script)  # type: ignore[arg-type]
        team.clock.advance(4.0)  # … and back
        return result

    team.clock.advance(TTL / 3)
    monkeypatch.setattr(database, "transact", transact)
    await member.tend()
    assert len(member.held()) == 8
    team.clock.advance(TTL - 8.0)  # the database gives it 4 s more; who asked does not count on them
    with pytest.raises(LeaseLost):
        member.held()


async def test_without_sharing_the_first_works_and_the_second_stands_by(connect: Connect) -> None:
    team = Team(connect, share=False)
    await team.join("a", "b")
    await team.pass_time(3 * TTL)
    assert team.held() == {"a": list(range(8)), "b": []}
    del team.members["a"]
    await team.pass_time(1.5 * TTL)
    assert team.held() == {"b": list(range(8))}


async def test_to_absolve_a_partition_forgets_who_failed_before(team: Team) -> None:
    await team.join("a", "b")
    await team.pass_time(TTL)
    (other,) = set(team.members) - {"a"}
    partition = str(team.held()[other][0])
    del team.members[other]
    await team.pass_time(2 * TTL)
    member = team.members["a"]
    assert {claim.id: claim.attempts for claim in member.held()}[partition] == 2
    await member.absolve(partition)
    attempts = {claim.id: claim.attempts for claim in member.held()}
    assert attempts[partition] == 1
    assert sorted(attempts.values()) == [1] * 5 + [2] * 3


async def test_what_is_doubted_is_ours_again_at_the_next_look(team: Team) -> None:
    """Found: after each failed step a member waited for its own leases to run out, and counted as having died."""
    await team.join("a", "b")
    await team.pass_time(TTL)
    member = team.members["a"]
    before = member.held()
    member.doubt()
    assert member.held() == []
    assert await member.tend() == before
    assert team.recorder.values(STUCK) == []


async def test_what_is_doubted_and_was_taken_over_is_not_ours_again(team: Team) -> None:
    await team.join("a", "b")
    await team.pass_time(TTL)
    member = team.members.pop("a")
    member.doubt()
    await team.pass_time(2 * TTL)
    assert await member.tend() == []
    assert team.recorder.values(LOOP_LAG) == []  # it knew, and did nothing on their strength
    assert team.held() == {"b": list(range(8))}

"""What stepping has found, each under its name."""

from faultproof.patterns.outbox.proof_stepped_choices import FORGET_JOIN_AGAIN
from faultproof.patterns.outbox.proof_stepped_groups import DISCARD_TWICE, FORGET_JOIN, REPLAY_DISCARD
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.stepped.explore import explore
from faultproof.prove.stepped.world import World

THEN = {0: 1, 4: 1}
"""The tape with which it was found, as it reads without the locks: the joiner finds the group's cursors; the group is
forgotten, and that committed; the joiner adds leases."""


def test_a_group_that_is_forgotten_while_a_member_joins_leaves_no_leases_without_cursors(url: str) -> None:
    """Such a member held leases on partitions that it had no cursor in, saw nothing to do, and waited for ever."""
    with World(FORGET_JOIN, url) as world:
        world.break_by("nothing is held", None)
        run = world.run(Tape(THEN))
        assert run.wrong == ["half of the group is left: [(0,)] cursors and [(1,)] leases"], run.schedule
        report = explore(world)
        assert (report.violations, report.never) == ([], ())


def test_a_dead_letter_that_was_replayed_is_not_discarded_by_who_looked_before(url: str) -> None:
    """Both were told that they had decided, and the event was gone; of two that discarded it, one got an error of a lost
    lease instead of the answer that it is none."""
    with World(REPLAY_DISCARD, url) as world:
        world.break_by("nothing is held", None)
        run = world.run(Tape({3: 1}))
        assert run.wrong == ["['replay', 'discard'] were told that they did it, and parked is []"], run.schedule
        report = explore(world)
        assert (report.violations, report.never) == ([], ())
    with World(DISCARD_TWICE, url) as world:
        assert explore(world).violations == []


def test_a_group_that_is_forgotten_does_not_begin_anew_under_a_member_that_is_started_again(url: str) -> None:
    """It looked whether the group was there before it had the lock, and all that the log keeps was delivered again."""
    with World(FORGET_JOIN_AGAIN, url) as world:
        found = explore(world, plant="nothing is held").violations[0]
        assert found.sentences == ("the group was forgotten, and is there again from the first event on",)
        report = explore(world)
        assert (report.violations, report.never) == ([], ())

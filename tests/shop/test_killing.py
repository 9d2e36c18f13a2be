"""The killer: only the busy are killed, and only where it aims."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from faultproof.shop import killing
from faultproof.shop.board import Board, State
from faultproof.shop.killing import Killer, Struck, window
from faultproof.shop.messages import Role
from faultproof.shop.mistakes import BREAKAGES, DELAYED, Breakage

ROLES: tuple[Role, ...] = ("api", "sequencer", "consumer", "orchestrator")
NUMBER = len(ROLES)


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, tuple[Role, int]]]:
    """Four processes that do nothing, one of each role; the killer looks at each role just once."""
    monkeypatch.setattr(killing, "_PATIENCE_S", 0.001)
    monkeypatch.setattr(killing, "_GLANCE_S", 0.001)
    idle = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in ROLES]
    yield {slot: (role, process.pid) for slot, (role, process) in enumerate(zip(ROLES, idle, strict=True))}
    for process in idle:
        process.kill()
        process.communicate()


def killer(board: Board, target: Breakage | None = None, seed: int = 1) -> Killer:
    found = Killer(board, seed=seed, every_s=60.0, target=target)
    found.armed(True)
    return found


def test_nobody_is_killed_while_all_are_idle(pids: dict[int, tuple[Role, int]]) -> None:
    struck = killer(Board(NUMBER)).strike(pids)
    assert (struck.slot, sorted(struck.missed)) == (None, sorted(ROLES))
    assert all(os.waitpid(pid, os.WNOHANG) == (0, 0) for _, pid in pids.values())


@pytest.mark.parametrize("state", set(State) - {State.IDLE})
def test_the_busy_one_is_killed_and_its_last_state_reported(pids: dict[int, tuple[Role, int]], state: State) -> None:
    board = Board(NUMBER)
    board.flag(1).show(state)
    struck = killer(board).strike(pids)
    assert (struck.slot, struck.state) == (1, state)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[1][1], 0)


def test_roles_take_turns(pids: dict[int, tuple[Role, int]]) -> None:
    board = Board(NUMBER)
    for slot in pids:
        board.flag(slot).show(State.OPEN)
    one = killer(board)
    assert sorted(str(one.strike(pids).slot) for _ in ROLES) == ["0", "1", "2", "3"]


def test_a_role_whose_work_is_done_does_not_keep_the_others_alive(
    pids: dict[int, tuple[Role, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(NUMBER)
    board.flag(3).show(State.OPEN)
    one = killer(board)
    assert one.strike(pids).slot == 3
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert one.strike({**pids, 3: ("orchestrator", left.pid)}).slot == 3  # although the others have not had their turn
    left.communicate()
    monkeypatch.setattr(killing, "_GLANCE_S", 7.0)
    assert [one._patience_s(role) for role in ROLES] == [7.0, 7.0, 7.0, 0.001]
    board.flag(0).show(State.OPEN)
    assert one.strike(pids).slot == 0
    assert one._patience_s("api") == 0.001


def test_choice_among_the_busy_is_the_seed_s(pids: dict[int, tuple[Role, int]]) -> None:
    assert [killer(Board(1), seed=5)._order() for _ in range(3)] == [killer(Board(1), seed=5)._order()] * 3
    assert len({tuple(killer(Board(1), seed=seed)._order()) for seed in range(400)}) == 24


@pytest.mark.parametrize("mistake", [each for each in BREAKAGES if each not in DELAYED])
def test_aimed_kills_meet_nobody_outside_the_window(pids: dict[int, tuple[Role, int]], mistake: Breakage) -> None:
    board = Board(NUMBER)
    for slot in pids:
        board.flag(slot).show(State.OPEN)
    aimed = killer(board, mistake)
    assert aimed.strike(pids) == Struck(None, State.IDLE, [window(mistake).role], {})
    slot = ROLES.index(window(mistake).role)
    (state,) = window(mistake).states
    board.flag(slot).show(state)
    assert aimed.strike(pids) == Struck(slot, state, [], {})


@pytest.mark.parametrize("mistake", sorted(DELAYED))
def test_nobody_is_killed_where_orders_are_held_up_instead(mistake: Breakage) -> None:
    assert killer(Board(NUMBER)).due_in_s() <= 60
    assert killer(Board(NUMBER), mistake).due_in_s() > 1_000


def test_victim_that_leaves_the_window_is_let_go(
    pids: dict[int, tuple[Role, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, sent = Board(NUMBER), []
    board.flag(0).show(State.OPEN)
    kill = os.kill

    def slips_out(pid: int, number: int) -> None:
        sent.append(signal.Signals(number))
        board.flag(0).show(State.IDLE)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", slips_out)
    assert killer(board).strike(pids).slot is None
    assert sent == [signal.SIGSTOP, signal.SIGCONT]


def test_victim_that_had_ended_by_itself_is_no_kill(pids: dict[int, tuple[Role, int]]) -> None:
    board = Board(NUMBER)
    board.flag(0).show(State.OPEN)
    os.kill(pids[0][1], signal.SIGTERM)
    os.waitid(os.P_PID, pids[0][1], os.WEXITED | os.WNOWAIT)
    struck = killer(board).strike(pids)
    assert (struck.slot, struck.ended) == (None, {0: -signal.SIGTERM})

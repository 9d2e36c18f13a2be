"""The shop itself, in small: it holds under kills, each planted bug is caught, and only where kills meet its window."""

import json
import os
import signal
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

from faultproof.shop.mistakes import BREAKAGES, DELAYED
from tests.cli.executable import EXECUTABLE, faultproof
from tests.fakes import WAIT_S, eventually
from tests.shop.reading import rows

COUNTERS = (
    "lost_orders",
    "duplicate_orders",
    "unknown_orders",
    "wrong_items",
    "lost_events",
    "duplicate_events",
    "phantom_events",
    "out_of_order",
    "lost_effects",
    "duplicate_effects",
    "disordered_effects",
    "unfinished",
    "needs_attention",
    "charge_mismatches",
    "oversold",
    "orphan_holds",
    "damage",
)
CAUGHT_BY = {
    "dual-write": "lost_events",
    "no-inbox": "duplicate_effects",
    "ack-early": "lost_effects",
    "undo-after": "charge_mismatches",
    "no-idempotency-key": "charge_mismatches",
    "no-lock": "oversold",
    "confirm-after-expiry": "oversold",
}
NEVER_WRONG = {
    "lost_orders",
    "duplicate_orders",
    "unknown_orders",
    "wrong_items",
    "damage",
    "unfinished",
    "needs_attention",
}
WHERE = {"charge_mismatches": "order ", "oversold": "item '"}


def run(*args: object, status: int | Collection[int] = 0) -> dict[str, Any]:
    """A run's JSON document."""
    # What must survive here are processes: fewer syncs make the machine's other tests wait less.
    got = faultproof("shop", *map(str, args), "--synchronous", "normal", "--json", status=status)
    assert got.stderr == ""
    found: dict[str, Any] = json.loads(got.stdout)
    return found


def aimed(mistake: str) -> dict[str, Any]:
    """A run of the correct shop. On a busy machine the short windows of a few orders may all be missed: then of more."""
    for orders in (50, 200):
        found = run("--orders", orders, "--kill-every", 0.1, "--aim", mistake, status=(0, 3))
        if not found["vacuous"]:
            return found
    return run("--orders", 800, "--kill-every", 0.1, "--aim", mistake)


def wrong(found: dict[str, Any]) -> set[str]:
    return {name for name in COUNTERS if found[name]}


def test_shop_holds_while_processes_of_every_role_are_killed() -> None:
    found = run("--orders", 250, "--kill-every", 0.15)
    assert (found["held"], found["vacuous"], found["gave_up"], wrong(found)) == (True, None, None, set())
    assert found["accepted"] == 250
    assert found["kills"] == found["kills_while_busy"] == sum(found["kills_by_role"].values())
    assert min(found["kills_by_role"].values()) >= 1
    assert found["retries"] > 0
    assert found["fulfilled"] + found["compensated"] == 250
    assert found["compensated"] >= 25
    assert found["answers_lost"] >= 0.05 * found["answers"] > 20
    assert found["seconds"] > 0
    examined = {check["name"]: check["examined"] for check in found["checks"]}
    assert examined["lost_events"] > 500
    assert set(examined) == set(COUNTERS)
    assert found["durability"] == "SQLite WAL, synchronous=NORMAL"
    assert not Path(found["database"]).parent.exists()


def often(every_time: Collection[str], mistakes: Iterable[str]) -> list[Any]:
    """These in every run; the others, some seconds each, with `make soak`."""
    return [mistake if mistake in every_time else pytest.param(mistake, marks=pytest.mark.soak) for mistake in mistakes]


@pytest.mark.parametrize("mistake", BREAKAGES)
def test_planted_bug_is_caught_when_kills_meet_its_window(mistake: str) -> None:
    found = run("--orders", 60, "--kill-every", 0.1, "--break", mistake, status=1)
    assert not found["held"]
    assert CAUGHT_BY[mistake] in wrong(found)
    assert not NEVER_WRONG & wrong(found)
    if mistake in DELAYED:
        assert (found["kills"], found["delays"] >= 1) == (0, True)
    else:
        assert found["kills"] == found["kills_while_busy"] >= 1
    where = next(check["where"] for check in found["checks"] if check["name"] == CAUGHT_BY[mistake])
    assert WHERE.get(CAUGHT_BY[mistake], "'item ") in where[0]
    assert Path(found["database"]).exists()  # to be looked into


# Without a lock two may take the same thing whenever two come at the same time: it needs neither kill nor delay.
@pytest.mark.parametrize("mistake", often(["dual-write"], (mistake for mistake in BREAKAGES if mistake != "no-lock")))
def test_planted_bug_does_not_show_without_kills(mistake: str) -> None:
    found = run("--orders", 30, "--kill-every", 0, "--break", mistake)
    assert (found["held"], found["vacuous"], wrong(found)) == (True, None, set())
    assert (found["kill_every"], found["kills"], found["kills_while_busy"]) == (0, 0, 0)


# Each time where an event or an effect would be lost; at the other windows with `make soak`.
@pytest.mark.parametrize("mistake", often({"dual-write", "no-inbox"}, BREAKAGES))
def test_correct_shop_holds_under_the_same_aimed_kills(mistake: str) -> None:
    found = aimed(mistake)
    assert (found["held"], found["vacuous"], wrong(found)) == (True, None, set())
    if mistake in DELAYED:
        assert (found["kills"], found["delays"] >= 1) == (0, True)
    else:
        state = {"dual-write": "wrote", "no-inbox": "applied", "ack-early": "moved"}.get(mistake, "calling")
        assert found["kills_by_state"] == {state: found["kills"]}


def test_run_without_a_kill_is_vacuous() -> None:
    found = run("--orders", 5, "--kill-every", 60, status=3)
    assert found["held"] is True
    assert found["vacuous"].startswith("no process was killed while it was busy")


def test_people_get_a_table_and_a_verdict(tmp_path: Path) -> None:
    database = tmp_path / "it is ?our shop%20.db"
    got = faultproof("shop", "--orders", "20", "--kill-every", "0", "--seed", "3", "--db", str(database))
    assert got.stdout.endswith("\nheld\n")
    for said in (
        "committed events are in the stream",
        "seed 3",
        "synchronous=FULL",
        "Not tested: power loss",
        "faults: none; no kill was asked for",
    ):
        assert said in got.stdout
    assert rows(database, "SELECT count(*) FROM shop_order") == [(20,)]


def test_mistake_without_kills_is_not_passed_off_as_sound() -> None:
    said = faultproof("shop", "--orders", "20", "--kill-every", "0", "--break", "no-inbox").stdout
    assert "planted bug: no-inbox\n" in said
    assert "\nfaults: none; no kill was asked for\n" in said
    assert said.endswith("\nheld: no kill was asked for, and without kills no-inbox does no damage\n")


def test_help_teaches_with_commands_that_work() -> None:
    said = " ".join(faultproof("shop", "--help").stdout.split())
    for command in (
        "faultproof shop --break dual-write --kill-every 0 the mistake without kills",
        "faultproof shop --aim dual-write the correct shop",
        "Exit status: 0 held; 1 violated; 2 bad input; 3 vacuous",
    ):
        assert command in said


def test_orders_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "baskets.csv").write_text("milk,eggs\n\nmilk,milk\n")
    found = run("--orders", tmp_path / "baskets.csv", "--kill-every", 0, "--db", tmp_path / "shop.db")
    assert found["accepted"] == 2
    summary = rows(tmp_path / "shop.db", "SELECT item, units, orders FROM shop_summary ORDER BY item")
    assert summary == [("eggs", 1, 1), ("milk", 3, 2)]
    assert rows(tmp_path / "shop.db", "SELECT item, level FROM shop_stock ORDER BY item") == [
        ("eggs", 999_999),
        ("milk", 999_997),
    ]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak), (signal.SIGKILL, -9)],
)
def test_no_process_outlives_the_command(number: signal.Signals, status: int, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [EXECUTABLE, "shop", "--orders", "20000", "--kill-every", "0.3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert "orders" in process.stdout.readline()  # it is under way
    assert _processes_of(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (status, "")
    eventually(lambda: not _processes_of(tmp_path), "all that it started is gone")
    if number != signal.SIGKILL:
        # SQLite unlinks a temporary file as soon as it has made it: a kill in between leaves it.
        assert [path for path in tmp_path.iterdir() if not path.name.startswith("etilqs_")] == []


def _processes_of(directory: Path) -> list[str]:
    """Processes with a file in the directory open; they are the command and all that it started."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            names = [os.readlink(name) for name in (process / "fd").iterdir()]
        except OSError:  # no process, not ours, or gone
            continue
        found += [process.name] if any(name.startswith(str(directory)) for name in names) else []
    return found

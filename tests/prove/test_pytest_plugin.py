"""Simulated tests from outside: real pytest runs in processes of their own, as users start them."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ("-p", "faultproof_pytest")
"""Also where the environment was made before the plugin was there; where it was not, pytest takes both for one."""

SERVICE = """
async def install(database):
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE wallet (balance INTEGER)")
        await tx.execute("CREATE TABLE top_up (id TEXT PRIMARY KEY)")
        await tx.execute("INSERT INTO wallet VALUES (0)")


async def top_up(database, id, amount):
    async with database.transaction() as tx:
        if await tx.execute("INSERT INTO top_up VALUES (?) ON CONFLICT DO NOTHING", id):
            await tx.execute("UPDATE wallet SET balance = balance + ?", amount)


async def top_up_carelessly(database, id, amount):
    async with database.transaction() as tx:
        is_new = await tx.execute("INSERT INTO top_up VALUES (?) ON CONFLICT DO NOTHING", id)
    if is_new:
        async with database.transaction() as tx:
            await tx.execute("UPDATE wallet SET balance = balance + ?", amount)
"""

TESTS = """
import pytest
import wallet
from faultproof.testing import simulated


async def topped_up(world, top_up, amount=100):
    await wallet.install(world.database())

    async def client(process):
        await top_up(process.database(), "t-1", amount)

    world.spawn("client", client)
    await world.finished()
    ((balance,),) = world.fetch("SELECT balance FROM wallet")
    return balance


@pytest.fixture
def amount():
    return 250


@simulated(schedules=200)
async def test_once(world):
    assert await topped_up(world, wallet.top_up) == 100


class TestWallet:
    @pytest.mark.parametrize("factor", [1, 2])
    @simulated(schedules=25)
    async def test_amounts(self, factor, world, amount, tmp_path):
        assert tmp_path.is_dir()
        assert await topped_up(world, wallet.top_up, factor * amount) == factor * 250


@simulated
async def test_skipped(world):
    pytest.skip("not today")


@pytest.mark.xfail(strict=True, raises=AssertionError)
@simulated
async def test_known_bug(world):
    assert await topped_up(world, wallet.top_up_carelessly) == 100


def test_plain():
    pass


@pytest.mark.anyio
async def test_of_another_plugin():
    pass


@pytest.mark.anyio
@simulated(schedules=25)
async def test_marked_for_another_plugin(world):
    assert await topped_up(world, wallet.top_up) == 100
"""

FAILING = """
import pytest
import wallet
from faultproof.testing import simulated
from test_wallet import topped_up


@pytest.mark.parametrize("id", ["a b"])
@simulated
async def test_careless(world, id):
    assert await topped_up(world, wallet.top_up_carelessly) == 100


@simulated
async def test_vacuous(world):
    pass


@simulated
async def test_raising(world):
    async def client(process):
        async with process.database().transaction() as tx:
            await tx.execute("INSERT INTO nowhere VALUES (1)")

    world.spawn("client", client)
    await world.finished()
"""

ANYIO = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A user's project, warnings being errors there too."""
    pytester.makepyfile(wallet=SERVICE, test_wallet=TESTS, conftest=ANYIO)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config")
    return pytester


def test_fixtures_parameters_classes_and_other_plugins_work_as_ever(project: pytest.Pytester) -> None:
    got = project.runpytest_subprocess(*PLUGIN, "-v", "-n", "2")
    got.assert_outcomes(passed=6, skipped=1, xfailed=1)
    # In the workers of xdist, from which nothing but reports comes back.
    got.stdout.fnmatch_lines(
        [
            "*simulated tests*",
            "test_wallet.py::*: 200 schedules in * s: every one of 21 places struck by a fault, 177 schedules at random",
        ]
    )
    assert got.stdout.str().count(" schedules in ") == 4


def test_failure_prints_the_command_that_repeats_it(project: pytest.Pytester) -> None:
    directory = project.mkdir("tests")
    (directory / "test_failing.py").write_text(FAILING)
    got = project.runpytest_subprocess(*PLUGIN, "tests/test_failing.py", "-o", "pythonpath=.")
    got.assert_outcomes(failed=3)
    got.stdout.fnmatch_lines(
        [
            ">       assert await topped_up(world, wallet.top_up_carelessly) == 100",
            "E       assert 0 == 100",
            "E       faultproof: struck by crash after Commit in client.0 (schedule * of 200)",
            "E         0.000 s  client.0  [*][*][*] crash after commit",
            "E         0.020 s  client.1  *wallet.py:*  begin",
            "No fault could strike: no process did anything *",
        ]
    )
    got.stdout.fnmatch_lines(
        ["E  *OperationalError: no such table: nowhere", "tests/test_failing.py:*: OperationalError"]
    )
    assert not re.search("(prove|engines)/", got.stdout.str()), "nothing of ours in the traceback"
    (command,) = set(re.findall(r"replay: pytest (.*)", got.stdout.str()))  # in the summary too, where CI is set
    test, option = re.fullmatch(r"'(.*)' (--faultproof-tape=\S+)", command).groups()  # type: ignore[union-attr]
    assert test == "tests/test_failing.py::test_careless[a b]"

    again = project.runpytest_subprocess(*PLUGIN, test, option, "-o", "pythonpath=.")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(
        [
            "E       faultproof: struck by crash after Commit in client.0 (replayed)",
            "*Captured stdout call*",
            "0.000 s  client.0  [*][*][*] crash after commit",
        ]
    )
    mended = project.path / "wallet.py"
    mended.write_text(SERVICE.replace("top_up_carelessly", "_").replace("top_up(", "top_up_carelessly("))
    project.runpytest_subprocess(
        *PLUGIN, test, option, "-o", "pythonpath=.", "-p", "no:test_wallet"
    ).stdout.fnmatch_lines(["*1 passed*"])


def test_tape_that_cannot_be_meant_is_refused(project: pytest.Pytester) -> None:
    got = project.runpytest_subprocess(*PLUGIN, "--faultproof-tape=five", "-n", "2")
    assert got.ret == pytest.ExitCode.USAGE_ERROR
    got.stderr.fnmatch_lines(["ERROR: --faultproof-tape: a tape is position:answer*not 'five'"])

    got = project.runpytest_subprocess(*PLUGIN, "--faultproof-tape=5:1", "-k", "TestWallet or plain")
    got.assert_outcomes(failed=2, passed=1)
    got.stdout.fnmatch_lines(["--faultproof-tape repeats one test, and 2 with @simulated are selected"])


def test_it_costs_nothing_where_it_is_not_used(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_nothing="import sys\n\ndef test_plain():\n    assert not [name for name in sys.modules if name == 'faultproof']"
    )
    project.runpytest_subprocess(*PLUGIN, "-v", "test_nothing.py").assert_outcomes(passed=1)


def test_pytest_finds_it_by_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((name, module),) = project["entry-points"]["pytest11"].items()
    assert (name, module) == ("faultproof_pytest", "faultproof_pytest"), "equal, or `-p` would load it twice"
    assert hasattr(importlib.import_module(module), "pytest_pyfunc_call")

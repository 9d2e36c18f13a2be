"""The pytest plugin of faultproof: a failed `@simulated` test prints a command, and `--faultproof-tape` is a part of it.

pytest loads this for everybody who has faultproof installed. So it stands beside the package, whose import takes a third of
a second, and imports nothing of it before the first simulated test runs.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

_OPTION = "--faultproof-tape"
_PROPERTY = "faultproof"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option."""
    parser.getgroup("faultproof").addoption(
        _OPTION, metavar="TAPE", help="repeat one schedule of one @simulated test, as its failure has printed it"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse nonsense before anything runs."""
    _tape(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a simulated test; every other one is left to whoever runs it."""
    if not _is_simulated(pyfuncitem):
        return None
    from faultproof.prove.simulated.loop import StepLimit
    from faultproof.prove.testing.campaign import NothingShown, asked
    from faultproof.prove.testing.tracebacks import without_ours

    tape = _tape(pyfuncitem.config)
    simulated = sum(1 for item in pyfuncitem.session.items if _is_simulated(item))
    if tape is not None and simulated > 1:  # a tape means something in one of them
        pytest.fail(f"{_OPTION} repeats one test, and {simulated} with @simulated are selected", pytrace=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    why = None
    with asked(replay=_command(pyfuncitem), tape=tape) as wish:
        try:
            pyfuncitem.obj(**arguments)
        except (NothingShown, StepLimit) as error:
            why = "\n".join([str(error), *getattr(error, "__notes__", ())])
        except BaseException as error:
            if not pyfuncitem.config.getoption("fulltrace"):
                error.__traceback__ = without_ours(error.__traceback__)
            raise
        finally:
            pyfuncitem.user_properties += [(_PROPERTY, said) for said in wish.said]
    if why is not None:
        pytest.fail(why, pytrace=False)  # there is no line of the test that it could show
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was tried, with `-v`."""
    if terminalreporter.config.get_verbosity() < 1:
        return
    said = list(_said(terminalreporter))
    if said:
        terminalreporter.section("simulated tests")
    for line in said:
        terminalreporter.write_line(line)


def _said(terminalreporter: Any) -> Iterator[str]:
    for report in (each for several in terminalreporter.stats.values() for each in several):
        if getattr(report, "when", None) == "call":
            for name, said in report.user_properties:
                if name == _PROPERTY:
                    yield f"{report.nodeid}: {said}"


def _is_simulated(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and hasattr(item.obj, "faultproof_simulated")


def _tape(config: pytest.Config) -> dict[int, int] | None:
    text = config.getoption(_OPTION)
    if text is None:
        return None
    from faultproof.errors import InvalidInput
    from faultproof.prove.testing.words import read

    try:
        return read(text)
    except InvalidInput as error:
        raise pytest.UsageError(f"{_OPTION}: {error}") from error


def _command(item: pytest.Function) -> str:
    """What to type where pytest was called, up to the tape."""
    _, _, name = item.nodeid.partition("::")
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    return f"pytest {shlex.quote(f'{path}::{name}')} {_OPTION}="

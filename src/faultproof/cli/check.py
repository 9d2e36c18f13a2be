"""`faultproof check`: judge recorded histories, ours or Jepsen's."""

import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from faultproof import bounds
from faultproof.cli.judgements import WIDTH_PIPED, Checked, document, print_checked
from faultproof.cli.output import JsonOption, console, one_line, print_json
from faultproof.cli.proofs import imported
from faultproof.cli.prove import Progress
from faultproof.cli.rejudging import rejudge
from faultproof.cli.verdicts import WORST_FIRST, Status
from faultproof.errors import FaultproofError, InvalidInput
from faultproof.prove.checkers.history import read_history
from faultproof.prove.checkers.jepsen import read_jepsen_log
from faultproof.prove.checkers.linearizability import judge
from faultproof.prove.checkers.models import CasRegister, Counter, Lock, Model, Queue, Register
from faultproof.prove.checkers.search import Limits
from faultproof.prove.harness import HarnessError

EPILOG = """\
Try:

[bold]faultproof check run.jsonl --model register[/]  one event a line: {"type": "invoke", "process": "api-1", \
"op": "write", "value": 3, "key": "x"}, and later the same with "ok", "fail" (it had no effect) or "info" (nobody knows)

[bold]faultproof check etcd.log --format jepsen-log --model cas-register[/]  a log of Jepsen's

[bold]faultproof check runs/*.jsonl --model queue --timeout 300[/]  several, each with five minutes at most

[bold]faultproof check kept/*.jsonl[/]  runs that `faultproof prove --engine … --save kept` has kept, by their proofs

[bold]faultproof check run.jsonl --model mypkg.models:CART --json | jq '.[0].objects'[/]  a model of your own, and JSON

Models: register (write, read); cas-register (cas \\[old, new] too); counter (add, read); queue (enqueue, dequeue); lock \
(acquire, release). How they read values, and how to write one: docs/checking.md.

Exit status: 0 linearizable, or held; 1 not, with the few operations that contradict each other; 2 bad input; 3 unknown: \
time or memory ran out, or there was nothing to judge; 4 a model of your own failed. Of several files the worst counts.
"""

MODELS: dict[str, Model[Any]] = {
    "register": Register(),
    "cas-register": CasRegister(),
    "counter": Counter(),
    "queue": Queue(),
    "lock": Lock(),
}
_READERS = {"jsonl": read_history, "jepsen-log": read_jepsen_log}


def check(
    histories: Annotated[list[Path], typer.Argument(metavar="HISTORY…", help="Files with one event a line.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="register, cas-register, counter, queue, lock, or pkg.module:NAME. Without one: histories of proofs that "
            "were run live, which are judged as their proofs do.",
        ),
    ] = None,
    format: Annotated[
        Literal["jsonl", "jepsen-log"], typer.Option("--format", help="How the events are written.")
    ] = "jsonl",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds for a file; then it is unknown.")
    ] = 60.0,
    configurations: Annotated[
        int,
        typer.Option("--configurations", metavar="N", help="Remembered at most, 300 bytes each; then it is unknown."),
    ] = 1_000_000,
    json: JsonOption = False,
) -> None:
    """Judge recorded histories: by a model, whether each call took effect at one moment before its answer; without one, as
    the proof does that they belong to."""
    bounds.seconds("--timeout", timeout)
    bounds.count("--configurations", configurations, most=100_000_000)
    limits = Limits(seconds=timeout, configurations=configurations)
    out = console(width_piped=WIDTH_PIPED)
    if model is None:
        if format != "jsonl":
            raise InvalidInput("--format jepsen-log needs a --model to judge by")
        raise typer.Exit(rejudge(histories, None if json else out))
    try:
        judging = _model(model)
        done = []
        for path in histories:
            done.append(_checked(path, format, model, judging, limits))
            if not json:
                print_checked(done[-1], out)
    except HarnessError as error:
        print(f"{error}\nThe model {one_line(model)} failed, so this shows nothing.", file=sys.stderr)
        raise typer.Exit(Status.ERROR) from error
    if json:
        print_json([document(each) for each in done])
    raise typer.Exit(min((each.status for each in done), key=WORST_FIRST.index))


def _checked(path: Path, format: str, name: str, model: Model[Any], limits: Limits) -> Checked:
    began = time.monotonic()
    with Progress(one_line(f"reading {path}", 100), "lines") as progress:
        history = _READERS[format](path, tell=progress)
    with Progress(one_line(f"judging {path}", 100), "configurations") as progress:
        try:
            judgement = judge(history, model, limits, progress)
        except FaultproofError:
            raise
        except Exception:  # of the model, which may be anybody's
            raise HarnessError(traceback.format_exc().rstrip()) from None
    return Checked(path=path, model=name, history=history, judgement=judgement, seconds=time.monotonic() - began)


def _model(name: str) -> Model[Any]:
    if name in MODELS:
        return MODELS[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise InvalidInput(f"there is no model {name!r}; there are {', '.join(MODELS)}, and yours as pkg.module:NAME")
    found: Any = getattr(imported(module, f"model {name!r}"), attribute, None)
    if isinstance(found, type) or not hasattr(found, "initial") or not callable(getattr(found, "step", None)):
        raise InvalidInput(f"there is no model {name!r}: it must be an object with `initial` and `step(state, call)`")
    return found  # type: ignore[no-any-return]

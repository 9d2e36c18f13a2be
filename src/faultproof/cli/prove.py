"""`faultproof prove`: run proofs, and say what was claimed, what was tried, and whether it held."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from faultproof.cli.documents import document, report_of, shown
from faultproof.cli.output import JsonOption, console, print_json
from faultproof.cli.pages import HtmlOption, page_path, write
from faultproof.cli.proofs import proofs_of
from faultproof.cli.tapes import kept, writable
from faultproof.cli.verdicts import WIDTH_PIPED, WORST_FIRST, Elsewhere, Options, Outcome, Status, print_outcome
from faultproof.errors import InvalidInput, MissingExtra
from faultproof.prove.harness import HarnessError, carried_out
from faultproof.prove.proof import Proof
from faultproof.prove.reports.facts import Hunt
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer, explore
from faultproof.prove.simulated.retelling import retold


def prove(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME…]",
            help="Patterns, claim, log, idempotency, or pkg.module:NAME found from the current directory; all that are ready.",
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option("--depth", help="1: strike at every point. 2: at every pair of points (minutes).")
    ] = 1,
    random: Annotated[int, typer.Option("--random", metavar="N", help="N random schedules on top.")] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="The first of them.")] = 0,
    plants: Annotated[bool, typer.Option("--plants", help="Run the planted bugs too: each must be caught.")] = False,
    mutants: Annotated[
        bool,
        typer.Option("--mutants", help="Leave out everything that can be, in turn: each must be noticed (minutes)."),
    ] = False,
    stepped: Annotated[
        bool,
        typer.Option(
            "--stepped",
            help="Step two or three sessions of PostgreSQL through every interleaving, too: on the server that --engine "
            "names, or on one of our own. With --mutants: those that live, too.",
        ),
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help="Run live, too: processes of the operating system that are killed, on sqlite, postgresql (a server of our "
            "own) or a database's URL (in a schema of our own there).",
        ),
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker", metavar="CMD", help="Live: your own service, started for each process (docs/live.md)."
        ),
    ] = None,
    kills: Annotated[int, typer.Option("--kills", metavar="N", help="Live: runs with SIGKILLs at random times.")] = 6,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="Live: for all runs together.")] = 600.0,
    order: Annotated[
        list[str] | None, typer.Option("--order", metavar="ORDER", help="Live: only this one, as a violation names it.")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Live, stepped: use a database on another machine.")
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(
            "--save", metavar="DIR", help="Where tapes of violations go, planted ones too, and histories of live runs."
        ),
    ] = None,
    html: HtmlOption = None,
    json: JsonOption = False,
) -> None:
    """Run proofs in simulation and, if asked for, stepped and live.

    Exit: 0 held, 1 violated, 2 bad input, 3 inconclusive, 4 the proof itself failed.
    """
    options = Options(depth=depth, random=random, seed=seed, plants=plants, save=writable(save), html=page_path(html))
    outcomes = []
    out = console(width_piped=WIDTH_PIPED)
    proofs = _found(names or [])
    others = _others(
        stepped=stepped,
        engine=engine,
        worker=worker,
        kills=kills,
        seconds=seconds,
        seed=seed,
        orders=order or [],
        allow_remote=allow_remote,
        keep=options.save,
        out=None if json else out,
    )
    for proof in proofs:
        outcome = _proved(proof, options)
        if outcome.error is None:
            outcome.error = _elsewhere(outcome, others)
        outcomes.append(outcome)
        if not json:
            print_outcome(outcome, options, out)
        if outcome.error is not None:
            print(outcome.error, file=sys.stderr)
    documents = [document(outcome, options) for outcome in outcomes]
    statuses = [outcome.status for outcome in outcomes]
    hunts = list[Hunt]()
    if mutants:
        server = _server(engine, allow_remote) if stepped else None
        for status, described, hunt in _mutants(proofs, server, out=None if json else out):
            statuses.append(status)
            documents.append(described)
            hunts += [hunt] if hunt is not None else []
    if json:
        print_json(documents)
    if options.html is not None and not write([report_of(each, options) for each in outcomes], options.html, hunts):
        statuses.append(Status.ERROR)
    raise typer.Exit(min(statuses, key=WORST_FIRST.index))


World = Callable[[Proof, Callable[[int], None]], Elsewhere | None]
"""Another world than simulation; None: the proof has nothing to show there."""


def _others(*, stepped: bool, engine: str | None, out: Console | None, **given: Any) -> dict[str, World]:
    """The other worlds that were asked for, each checked before anything is run."""
    if not stepped and engine is None:
        if given["worker"] or given["orders"]:
            raise InvalidInput("--worker and --order belong to the live world: name its --engine")
        return {}
    try:
        from faultproof.cli import elsewhere
    except ImportError as missing:
        raise MissingExtra(
            "other worlds than simulation take PostgreSQL's driver: pip install 'faultproof[postgres]'"
        ) from missing
    return elsewhere.worlds(stepped=stepped, engine=engine, out=out, **given)


def _elsewhere(outcome: Outcome, others: dict[str, World]) -> str | None:
    """Try the proof there; what went wrong, if it could not be carried out."""
    proof = outcome.proof
    for name, world in others.items():
        try:
            with Progress(f"{proof.name.partition(':')[2]}, {name}", "runs") as progress:
                fared = world(proof, progress)
        except HarnessError as error:
            return (
                f"{error}\n{proof.name} could not be carried out in the {name} world, so that it shows nothing there."
            )
        if fared is not None:
            outcome.elsewhere.append(fared)
    return None


def _server(engine: str | None, allow_remote: bool) -> Callable[[], AbstractContextManager[str]]:
    from faultproof.cli.elsewhere import server_to_step_on  # as the stepped world itself, which was asked for

    return server_to_step_on(engine, allow_remote)


def _mutants(
    proofs: list[Proof],
    server: Callable[[], AbstractContextManager[str]] | None,
    *,
    out: Console | None,
) -> Iterator[tuple[Status, dict[str, object], Hunt | None]]:
    try:
        from faultproof.cli.mutants import hunt_of, hunted, mutants_document, print_mutants, status_of
        from faultproof.prove.mutants.groups import groups
    except ImportError as missing:
        raise MissingExtra("--mutants parses SQL: pip install 'faultproof[prove]'") from missing
    for group in groups(proofs):
        try:
            with Progress(f"mutants of {group.name}", "tried") as progress:
                verdict = hunted(group, progress, server)
        except HarnessError as error:
            print(f"{error}\nThe mutants of {group.name} could not be tried.", file=sys.stderr)
            yield Status.ERROR, {"mutants_of": group.name, "outcome": "error", "error": str(error)}, None
            continue
        if out is not None:
            print_mutants(group, verdict, out)
        yield status_of(verdict), mutants_document(group, verdict), hunt_of(group, verdict)


def _found(names: list[str]) -> list[Proof]:
    try:
        return proofs_of(names)
    except HarnessError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(Status.ERROR) from error


def _proved(proof: Proof, options: Options) -> Outcome:
    outcome = Outcome(proof=proof)
    try:
        _try(outcome, options, depths=(options.depth,))
        for plant in proof.plants if options.plants else ():
            planted = Outcome(proof=proof, plant=plant.name)
            # Most are caught by one fault; a pair costs a hundred times as much.
            _try(planted, options, depths=tuple(range(1, options.depth + 1)))
            outcome.plants.append(planted)
        if options.html is not None and outcome.violation is None:
            with carried_out():
                outcome.runs = shown(outcome)
    except HarnessError as error:
        outcome.error = f"{error}\n{proof.name} could not be carried out, so it shows nothing."
    return outcome


def _try(outcome: Outcome, options: Options, *, depths: tuple[int, ...]) -> None:
    proof, plant = outcome.proof, outcome.plant
    with Progress(f"{proof.name.partition(':')[2]} {plant or ''}".strip()) as progress:
        for depth in depths:
            outcome.exhaustive = explore(proof, depth=depth, plant=plant, progress=progress)
            if outcome.exhaustive.violations:
                break
        if options.random and not (plant and outcome.exhaustive.violations):
            seeds = range(options.seed, options.seed + options.random)
            outcome.sampled = explore(proof, seeds=seeds, plant=plant, progress=progress)
    violations = [*outcome.exhaustive.violations, *outcome.sampled.violations]
    if not violations:
        return
    # Processes report in any order; the same command must find the same.
    first = min(violations, key=lambda each: (len(each.faults), len(each.answers), sorted(each.answers.items())))
    with carried_out():
        explorer = Explorer(proof, plant)
        with no_escapes():
            outcome.violation = explorer.shrunk(first)
        outcome.story = retold(proof, outcome.violation.answers, plant=plant)
    if plant is None or options.save is not None:
        outcome.tape = kept(outcome.violation, proof=proof, plant=plant, directory=options.save or Path())
        outcome.is_unsaved = outcome.tape is None and options.save is not None


class Progress:
    """One line on a terminal that is rewritten, from the first second on. Call it with what has been done so far."""

    def __init__(self, what: str, unit: str = "schedules") -> None:
        self._what = what
        self._unit = unit
        self._began = time.monotonic()
        self._shown = False

    def __enter__(self) -> Callable[[int], None]:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _show(self, schedules: int) -> None:
        seconds = time.monotonic() - self._began
        if seconds >= 1 and sys.stderr.isatty():
            self._shown = True
            line = f"{self._what}: {schedules:,} {self._unit}, {seconds:.0f} s"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

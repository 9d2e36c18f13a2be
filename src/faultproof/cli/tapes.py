"""`faultproof replay`: a saved run once more; and where runs are saved."""

import os
import re
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.text import Text

from faultproof.cli.output import JsonOption, console, one_line, print_json
from faultproof.cli.pages import HtmlOption, environment, page_path, told, write
from faultproof.cli.proofs import plant_called, proof_called
from faultproof.errors import InvalidInput
from faultproof.prove.harness import HarnessError, carried_out
from faultproof.prove.proof import Proof
from faultproof.prove.reports.facts import ProofReport, Run, WorldVerdict
from faultproof.prove.reports.lines import operations, struck
from faultproof.prove.saved import SavedRun, load, save
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer, Violation
from faultproof.prove.simulated.retelling import retold
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.simulated.world import World
from faultproof.prove.story import Story

_WIDTH_PIPED = 200
_TRACE_LINES = 15
_OPERATIONS_MAX = 8


def replay(
    tape: Annotated[Path, typer.Argument(metavar="TAPE", help="A file that `faultproof prove` has saved.")],
    unplanted: Annotated[
        bool, typer.Option("--unplanted", help="Without the planted bug that the tape was found with.")
    ] = False,
    html: HtmlOption = None,
    json: JsonOption = False,
) -> None:
    """Repeat one run of a proof as it was found, fault by fault, planted bug included.

    Exit: 0 held, 1 violated, 2 bad input, 4 the proof itself failed.
    """
    saved, page = load(tape), page_path(html)
    plant = None if unplanted else saved.plant
    try:
        proof = proof_called(saved.proof)
        if saved.plant is not None:
            plant_called(proof, saved.plant)
        world, wrong = again(saved, proof, plant)
        story = _retold(saved, proof, plant)
    except HarnessError as error:
        print(f"{error}\n{saved.proof} could not be carried out, so this shows nothing.", file=sys.stderr)
        raise typer.Exit(4) from error
    trace = list(world.lines())[-_TRACE_LINES:]
    if json:
        print_json(
            {
                "proof": saved.proof,
                "plant": plant,
                "found_with": saved.plant,
                "store": saved.store,
                "granularity": saved.granularity,
                "violated": bool(wrong),
                "seen": wrong,
                "faults": world.faults,
                "trace": trace,
                **told(story),
                "environment": environment(),
            }
        )
    else:
        _print_run(saved, plant, wrong, trace, story)
    if page is not None and not write([_report(saved, proof, plant, story, tape)], page):
        raise typer.Exit(4)
    raise typer.Exit(1 if wrong else 0)


def again(saved: SavedRun, proof: Proof, plant: str | None) -> tuple[World, list[str]]:
    """The run once more, in the world that it was found in: as it ended, and what is wrong with it."""
    with TemporaryDirectory(prefix="faultproof-replay-") as directory, carried_out():
        explorer = Explorer(proof, plant, granularity=saved.granularity)
        with no_escapes():
            return explorer.run(
                Tape(dict(saved.answers)),
                faults_max=len(saved.answers),  # each fault is one answer on the tape, so there are no more than those
                files=Path(directory) if saved.store == "files" else None,
            )


def _retold(saved: SavedRun, proof: Proof, plant: str | None) -> Story:
    with TemporaryDirectory(prefix="faultproof-replay-") as directory, carried_out():
        files = Path(directory) if saved.store == "files" else None
        return retold(proof, dict(saved.answers), plant=plant, granularity=saved.granularity, files=files)


def _report(saved: SavedRun, proof: Proof, plant: str | None, story: Story, tape: Path) -> ProofReport:
    run = Run(
        title="The run on the tape",
        why=f"planted: {_planted(saved, plant)}",
        story=story,
        answers=saved.answers,
        plant=None,
        replay=replay_command(Path(tape.name)) + (" --unplanted" if saved.plant and plant is None else ""),
    )
    return ProofReport(
        name=proof.name + (f" with {plant!r} planted" if plant else ""),
        verdict="violated" if story.broken else "held",
        claim=proof.claim,
        faults=proof.faults,
        assumptions=proof.assumptions,
        not_tested=("everything else: this is one run, once more", *proof.not_tested),
        worlds=[
            WorldVerdict(
                world="simulated",
                verdict="violated" if story.broken else "held",
                scope=[f"one run, {saved.granularity} by {saved.granularity}, the database in {saved.store}"],
                numbers={},
            )
        ],
        runs=[run],
    )


def _print_run(saved: SavedRun, plant: str | None, wrong: list[str], trace: list[str], story: Story) -> None:
    out = console(width_piped=_WIDTH_PIPED)
    for line in trace:
        out.print(Text(one_line(line, 300), style="dim"), soft_wrap=True)
    for number, line in enumerate(operations(story, _OPERATIONS_MAX) if story.faults else ()):
        out.print(Text(f"{'' if number else 'operations':11}{one_line(line, 300)}"), soft_wrap=True)
    for where in filter(None, (where for _, where in struck(story))):
        out.print(Text(f"at         {one_line(where, 300)}"), soft_wrap=True)
    out.print(Text(f"planted    {_planted(saved, plant)}"), soft_wrap=True)
    out.print(Text(f"struck by  {', '.join(story.faults) or 'no fault at all'}"), soft_wrap=True)
    for sentence in wrong:
        out.print(Text(f"seen       {one_line(sentence)}", style="red"), soft_wrap=True)
    planted = f" with {plant!r} planted" if plant else ""
    out.print(Text(f"{saved.proof}{planted}: {'VIOLATED' if wrong else 'held'}"), soft_wrap=True)


def _planted(saved: SavedRun, plant: str | None) -> str:
    if plant:
        return f"{plant!r}, which the tape was found with"
    return f"nothing, although the tape was found with {saved.plant!r}" if saved.plant else "nothing"


def writable(name: str | None) -> Path | None:
    """The directory, which must be there: to learn after an hour that the tape cannot be saved would be late."""
    # Not Path(name), which takes "" for the directory we are in; `os.path.isdir` is False for every name that is none.
    if name is not None and not (os.path.isdir(name) and os.access(name, os.W_OK)):
        raise InvalidInput(f"tapes cannot be saved in {name!r}: name a directory that exists and is writable")
    return None if name is None else Path(name)


def kept(violation: Violation, *, proof: Proof, plant: str | None, directory: Path) -> Path | None:
    """Save the violation's tape, replacing an earlier one of this proof; None if that fails, which is said on stderr."""
    module, _, name = proof.name.partition(":")
    room = module.split(".")[-2:][0]
    path = directory / (re.sub(r"[^\w]+", "-", "-".join(filter(None, (room, name.lower(), plant)))) + ".tape")
    try:
        save(path, violation.answers, proof=proof.name, plant=plant)
    except OSError as error:
        print(f"the tape could not be saved as {path}: {error.strerror}; give --save DIR", file=sys.stderr)
        return None
    return path


def replay_command(tape: Path) -> str:
    """What to type."""
    return shlex.join(["faultproof", "replay", str(tape)])

"""`faultproof replay`: a saved run once more; and where runs are saved."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from faultproof.cli.output import JsonOption, console, one_line, print_json
from faultproof.cli.proofs import plant_called, proof_called
from faultproof.errors import InvalidInput
from faultproof.prove.escapes import no_escapes
from faultproof.prove.explore import Explorer, HarnessError, Violation, carried_out
from faultproof.prove.proof import Proof
from faultproof.prove.tape import Tape, load

_WIDTH_PIPED = 200
_TRACE_LINES = 15


def replay(
    tape: Annotated[Path, typer.Argument(metavar="TAPE", help="A file that `faultproof prove` has saved.")],
    plant: Annotated[str | None, typer.Option("--plant", help="With this planted bug.")] = None,
    json: JsonOption = False,
) -> None:
    """Repeat one run of a proof, fault by fault. Exit: 0 it holds, 1 violated, 2 bad input, 4 the proof itself failed."""
    name, given = load(tape)
    try:
        proof = proof_called(name)
        if plant is not None:
            plant_called(proof, plant)
        with carried_out():
            explorer = Explorer(proof, plant)
            with no_escapes():
                # Each fault is one answer on the tape, so there are no more than those.
                world, wrong = explorer.run(given, faults_max=len(given.given))
            trace = list(world.lines())[-_TRACE_LINES:]
    except HarnessError as error:
        print(f"{error}\n{name} could not be carried out, so this shows nothing.", file=sys.stderr)
        raise typer.Exit(4) from error
    if json:
        print_json(
            {
                "proof": name,
                "plant": plant,
                "violated": bool(wrong),
                "seen": wrong,
                "faults": world.faults,
                "trace": trace,
            }
        )
    else:
        out = console(width_piped=_WIDTH_PIPED)
        for line in trace:
            out.print(Text(one_line(line, 300), style="dim"), soft_wrap=True)
        out.print(Text(f"struck by  {', '.join(world.faults) or 'no fault at all'}"), soft_wrap=True)
        for sentence in wrong:
            out.print(Text(f"seen       {one_line(sentence)}", style="red"), soft_wrap=True)
        out.print(Text(f"{name}{f' with {plant!r} planted' if plant else ''}: {'VIOLATED' if wrong else 'holds'}"))
    raise typer.Exit(1 if wrong else 0)


def writable(directory: Path | None) -> Path | None:
    """The directory, which must be there: to learn after an hour that the tape cannot be saved would be late."""
    if directory is not None and not (directory.is_dir() and os.access(directory, os.W_OK)):
        raise InvalidInput(f"tapes cannot be saved in {str(directory)!r}: name a directory that exists and is writable")
    return directory


def kept(violation: Violation, *, proof: Proof, plant: str | None, directory: Path) -> Path | None:
    """Save the violation's tape, replacing an earlier one of this proof; None if that fails, which is said on stderr."""
    module, _, name = proof.name.partition(":")
    room = module.split(".")[-2:][0]
    path = directory / (re.sub(r"[^\w]+", "-", "-".join(filter(None, (room, name.lower(), plant)))) + ".tape")
    try:
        Tape(answers=dict(violation.answers)).save(path, proof=proof.name)
    except OSError as error:
        print(f"the tape could not be saved as {path}: {error.strerror}; give --save DIR", file=sys.stderr)
        return None
    return path


def replay_command(tape: Path, plant: str | None) -> str:
    """What to type."""
    return shlex.join(["faultproof", "replay", str(tape), *(["--plant", plant] if plant else [])])

"""A saved run of a live proof, judged once more: without its database, from what its history has kept of it."""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from faultproof.cli.output import one_line, print_json
from faultproof.cli.proofs import proof_called
from faultproof.cli.verdicts import WORST_FIRST, Status
from faultproof.errors import FaultproofError, InvalidInput
from faultproof.prove.harness import HarnessError
from faultproof.prove.live.history import load_evidence

_SEEN_MAX = 5


class _Run(msgspec.Struct, frozen=True):
    proof: str
    order: str
    plant: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejudged:
    """One history."""

    path: Path
    proof: str
    plant: str | None
    order: str
    broken: dict[str, list[str]]
    """Claim -> what was seen instead."""

    @property
    def status(self) -> Status:
        return Status.VIOLATED if self.broken else Status.HELD


def rejudge(paths: Sequence[Path], out: Console | None) -> Status:
    """Print what each history shows (a JSON document without `out`); the worst of them.

    :raises InvalidInput: for what is no history of a live run, or lacks what its proof asks for.
    """
    done = []
    for path in paths:
        try:
            done.append(rejudged(path))
        except HarnessError as error:
            print(f"{error}\n{path} could not be judged, so it shows nothing.", file=sys.stderr)
            return Status.ERROR
        if out is not None:
            _print(done[-1], out)
    if out is None:
        print_json(
            [
                {
                    "history": str(each.path),
                    "proof": each.proof,
                    "plant": each.plant,
                    "order": each.order,
                    "outcome": each.status.name.lower(),
                    "broken": each.broken,
                }
                for each in done
            ]
        )
    return min((each.status for each in done), key=WORST_FIRST.index)


def rejudged(path: Path) -> Rejudged:
    """The proof's `eventually`, over what the history has kept."""
    evidence = load_evidence(path)
    try:
        run = msgspec.convert(evidence.run, _Run)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{str(path)!r} is not a history of a live run: {error}") from error
    proof = proof_called(run.proof)
    try:
        broken = {each.claim: wrong for each in proof.eventually if (wrong := each.wrong(evidence))}
    except FaultproofError:
        raise
    except Exception:  # of the proof, which may be anybody's
        raise HarnessError(traceback.format_exc().rstrip()) from None
    return Rejudged(path=path, proof=proof.name, plant=run.plant, order=run.order, broken=broken)


def _print(judged: Rejudged, out: Console) -> None:
    planted = f" with {judged.plant!r} planted" if judged.plant else ""
    out.print(Text(f"{judged.path}: {judged.proof}{planted}, struck by {judged.order}"), soft_wrap=True)
    for claim, seen in judged.broken.items():
        out.print(Text(f"expected  {claim}"), soft_wrap=True)
        for sentence in seen[:_SEEN_MAX]:
            out.print(Text(f"seen      {one_line(sentence, 200)}", style="red"), soft_wrap=True)
    out.print(Text("result    " + ("VIOLATED" if judged.broken else "held")), soft_wrap=True)

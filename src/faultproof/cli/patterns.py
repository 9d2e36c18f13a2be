"""`faultproof patterns`: the table of all patterns."""

from rich.table import Table
from rich.text import Text

from faultproof.catalogue import PATTERNS, Pattern, Status
from faultproof.cli.output import JsonOption, console, print_json

# One pattern a line in a pipe: with room to spare for names of proofs still to come.
_WIDTH_PIPED = 150


def patterns(json: JsonOption = False) -> None:
    """List the patterns: number, name, primitives, guarantee, status, proof."""
    if json:
        print_json([_row(pattern) for pattern in PATTERNS])
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("pattern", style="bold", no_wrap=True)
    table.add_column("primitives")
    table.add_column("guarantee")
    table.add_column("status")
    table.add_column("proof", overflow="fold")
    for pattern in PATTERNS:
        table.add_row(
            str(pattern.number),
            pattern.name,
            "+".join(pattern.primitives),
            pattern.guarantee,
            Text(pattern.status, style="green" if pattern.status is Status.READY else "dim"),
            pattern.proof or "-",
        )
    console(width_piped=_WIDTH_PIPED).print(table)


def _row(pattern: Pattern) -> dict[str, object]:
    return {
        "number": pattern.number,
        "name": pattern.name,
        "primitives": pattern.primitives,
        "guarantee": pattern.guarantee,
        "status": pattern.status,
        "proof": pattern.proof,
    }

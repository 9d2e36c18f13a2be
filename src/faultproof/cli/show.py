"""`faultproof show NAME`: one pattern in full."""

from collections.abc import Iterable
from importlib.resources import files
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.padding import Padding

from faultproof.catalogue import Sheet, describe, find
from faultproof.cli.output import JsonOption, console, print_json

# Prose, so narrower than the table: 100 columns read well and fit a mail.
_WIDTH_PIPED = 100


def show(
    name: Annotated[str, typer.Argument(help="A pattern: outbox, event-sourcing, 'Event Sourcing' …", metavar="NAME")],
    json: JsonOption = False,
) -> None:
    """Print one pattern in full: problem, guarantee, primitives, checklist, cost, advice, proof."""
    sheet = describe(find(name))
    if json:
        print_json(_document(sheet))
    else:
        _print_sheet(sheet, console(width_piped=_WIDTH_PIPED))


def _document(sheet: Sheet) -> dict[str, object]:
    """One flat object: the pattern's own fields, its primitives spelled out, the tables' rows added."""
    document: dict[str, object] = msgspec.to_builtins(sheet.pattern)
    document["primitives"] = sheet.primitives
    document["performance"] = sheet.performance
    document["selection"] = sheet.selection
    document["anti_patterns"] = sheet.anti_patterns
    document["readme"] = _readme_path(sheet)
    return document


def _print_sheet(sheet: Sheet, out: Console) -> None:
    pattern = sheet.pattern
    out.print(f"[bold]{pattern.number}. {pattern.name}[/]  ({pattern.status})", soft_wrap=True)
    _section(out, "Problem", [pattern.problem])
    _section(out, "Guarantee, in the specification's words (under which conditions: README)", [pattern.guarantee])
    _section(out, "In full", pattern.guarantees, bullet="- ")
    _section(out, "Primitives", [f"{p.id} {p.name}: {p.provides}" for p in sheet.primitives])
    _section(out, "What the proof must show", [pattern.must_show])
    if row := pattern.table:
        _section(
            out,
            "In the specification's table",
            [
                f"Problem solved: {row.problem_solved}",
                f"Guarantees: {row.guarantees}",
                f"Implementation: {row.implementation}",
                f"Proof: {row.proof}",
            ],
        )
    _section(out, "Implementation checklist", pattern.checklist, bullet="- ")
    _section(out, "Scale variants", [f"{v.name}: {v.means}" for v in pattern.scale_variants])
    _section(out, "Variants", [f"{v.name}: {v.means}" for v in pattern.variants])
    _section(out, "Architecture", [f"{v.name}: {v.means}" for v in pattern.architecture])
    _section(out, "Use cases", pattern.use_cases, bullet="- ")
    if cost := sheet.performance:
        _section(
            out,
            "Performance, as the specification expects it (measured: README)",
            [
                f"Latency: {cost.latency}",
                f"Throughput: {cost.throughput}",
                f"Consistency: {cost.consistency}",
                f"Complexity: {cost.complexity}",
            ],
        )
    _section(
        out,
        "Choose it for",
        [f"{s.requirement} (alternative: {s.alternative}; avoid: {s.avoid})" for s in sheet.selection],
    )
    _section(
        out,
        "It mends",
        [f"{a.name}: {a.mistake}. Detection: {a.detection}. Fix: {a.fix}." for a in sheet.anti_patterns],
    )
    _section(out, "Proof", [pattern.proof or "none yet"])
    _section(out, "README", [_readme_path(sheet) or "none yet"])


def _section(out: Console, title: str, lines: Iterable[str], *, bullet: str = "") -> None:
    """Print a titled block, or nothing where the specification has nothing to say."""
    lines = [bullet + line for line in lines]
    if lines:
        out.print(f"\n[bold]{title}[/]")
    for line in lines:
        # A folded line continues under its own text, and a path stays whole for copying.
        out.print(Padding(line, (0, 0, 0, 2), expand=False), markup=False, soft_wrap=" " not in line)


def _readme_path(sheet: Sheet) -> str | None:
    """Where the pattern's README lies in this installation."""
    if sheet.pattern.readme is None:
        return None
    return str(files("faultproof").joinpath(sheet.pattern.readme.removeprefix("faultproof/")))

"""Mutants on the page: who was killed by what, who was not, and why that may be."""

from __future__ import annotations

from collections.abc import Sequence

from faultproof.pages import text
from faultproof.prove.reports.facts import Hunt, Mutant

_MEANING = "The same proof on code with something broken in it: if it held there too, it could not fail."
_HEAD = "<tr><th>mutant</th><th>what it breaks</th><th></th><th>killed by, or why it was not</th></tr>"
KILLED_SHOWN_MAX = 500
"""Of one hunt; the others are counted, and `--json` has them all."""


def mutants(planted: Sequence[Mutant]) -> str:
    """Those of one proof; nothing if there are none."""
    if not planted:
        return ""
    killed = sum(each.killed_by is not None for each in planted)
    return (
        f'<h3>Mutants: {killed} of {len(planted)} killed</h3><p class="small">{_MEANING}</p>'
        f'<div class="scroll"><table>{_HEAD}{"".join(_row(each) for each in planted)}</table></div>'
    )


def hunt(each: Hunt) -> str:
    """Those that several proofs share: whoever was not killed first, the many that were on demand."""
    killed = [mutant for mutant in each.mutants if mutant.killed_by is not None]
    others = [mutant for mutant in each.mutants if mutant.killed_by is None]
    verdict = "violated" if each.complaints else "held"
    complaints = "".join(f'<li class="violated">{text(complaint)}</li>' for complaint in each.complaints)
    more = len(killed) - KILLED_SHOWN_MAX
    parts = [
        f'<section><div class="head"><h2>Mutants of {text(each.name)}</h2>'
        f'<span class="badge {verdict}">{len(killed)} of {len(each.mutants)} killed</span></div>',
        f'<p class="small">{_MEANING} Derived from its scripts, and tried in {text(", ".join(each.proofs))}.</p>',
        f"<ul>{complaints}</ul>" if complaints else "",
        f'<div class="scroll"><table>{_HEAD}{"".join(_row(mutant) for mutant in others)}</table></div>'
        if others
        else "",
        f'<details class="all"><summary>All that were killed</summary><div class="scroll"><table>{_HEAD}'
        f"{''.join(_row(mutant) for mutant in killed[:KILLED_SHOWN_MAX])}</table></div>"
        f"{f'<p class=small>and {more:,} more</p>' if more > 0 else ''}</details>",
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _row(each: Mutant) -> str:
    fate: str = each.fate
    why = f"<td>{text(each.reason or 'nobody says why')}</td>"
    if each.killed_by is not None:
        fate, why = "killed", f'<td class="small long">{text(each.killed_by)}</td>'
    colour = {"killed": "held", "survived": "survived"}.get(fate, "not")
    return (
        f'<tr><td>{text(each.name)}<br><span class="small">{text(each.kind)}</span></td><td>{text(each.breaks)}</td>'
        f'<td class="v {colour}">{fate}</td>{why}</tr>'
    )

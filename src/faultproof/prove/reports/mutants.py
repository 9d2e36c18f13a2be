"""Mutants on the page: who was killed by what, who was not, and why that may be."""

from __future__ import annotations

from collections.abc import Sequence

from faultproof.pages import text
from faultproof.prove.reports.facts import Hunt, Mutant

_MEANING = "The same proof on code with something broken in it: if it held there too, it could not fail."
SHOWN_MAX = 500
"""Of one hunt and one fate; the others are counted, and `--json` has them all."""


def mutants(planted: Sequence[Mutant]) -> str:
    """Those of one proof; nothing if there are none."""
    if not planted:
        return ""
    killed = sum(each.killed_by is not None for each in planted)
    return f'<h3>Mutants: {killed} of {len(planted)} killed</h3><p class="small">{_MEANING}</p>{_table(planted)}'


def hunt(each: Hunt) -> str:
    """Those that several proofs share: the survivors, with the reason, and all others on demand."""
    by_fate = {fate: [mutant for mutant in each.mutants if _fate(mutant) == fate] for fate in _FATES}
    killed, verdict = len(by_fate["killed"]), "violated" if each.complaints else "held"
    complaints = "".join(f'<li class="violated">{text(complaint)}</li>' for complaint in each.complaints)
    parts = [
        f'<section><div class="head"><h2>Mutants of {text(each.name)}</h2>'
        f'<span class="badge {verdict}">{killed} of {len(each.mutants)} killed</span></div>',
        f'<p class="small">{_MEANING} Derived from its scripts, and tried in {text(", ".join(each.proofs))}.</p>',
        f"<ul>{complaints}</ul>" if complaints else "",
        _table(by_fate["survived"]),
        *(
            f'<details class="all"><summary>{title}: {len(by_fate[fate])}</summary>{_table(by_fate[fate])}</details>'
            for fate, title in _FATES.items()
            if title and by_fate[fate]
        ),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


_FATES = {
    "survived": "",
    "idle": "Those whose guard never came up",
    "dearer": "Those that only cost more",
    "killed": "Those that were killed",
}


def _fate(mutant: Mutant) -> str:
    return mutant.fate if mutant.killed_by is None else "killed"


def _table(mutants: Sequence[Mutant]) -> str:
    if not mutants:
        return ""
    has_words = any(each.breaks for each in mutants)  # what is derived is called what it leaves out
    head = (
        f"<tr><th>mutant</th>{'<th>what it breaks</th>' * has_words}<th></th><th>killed by, or why it was not</th></tr>"
    )
    rows = "".join(_row(each, has_words) for each in mutants[:SHOWN_MAX])
    more = f'<p class="small">and {len(mutants) - SHOWN_MAX:,} more</p>' if len(mutants) > SHOWN_MAX else ""
    return f'<div class="scroll"><table>{head}{rows}</table></div>{more}'


def _row(each: Mutant, has_words: bool) -> str:
    why = f"<td>{text(each.reason or 'nobody says why')}</td>"
    if each.killed_by is not None:
        why = f'<td class="small long">{text(each.killed_by)}</td>'
    fate = _fate(each)
    colour = {"killed": "held", "survived": "survived"}.get(fate, "not")
    breaks = f"<td>{text(each.breaks)}</td>" if has_words else ""
    return (
        f'<tr><td>{text(each.name)}<br><span class="small">{text(each.kind)}</span></td>{breaks}'
        f'<td class="v {colour}">{fate}</td>{why}</tr>'
    )

"""Proofs as one HTML file that needs nothing else; its words need no script to be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files

from faultproof.pages import data, document, text
from faultproof.prove.reports.facts import Document, ProofReport, Property, WorldVerdict
from faultproof.prove.reports.lines import expected_and_seen, operations, struck
from faultproof.prove.reports.mutants import hunt, mutants
from faultproof.prove.reports.runs import Shown, history, panel, statements_of
from faultproof.prove.reports.timeline import key
from faultproof.prove.story import Story

PAGE_BYTES_MAX = 1_900_000
"""Runs are left out, the less important first, rather than that a page cannot be sent by mail."""
_OPERATIONS_MAX = 10
_WORLDS = ("simulated", "stepped", "live")


def page(document_: Document) -> str:
    """The whole page."""
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    hunts = [hunt(each) for each in document_.hunts]
    shown = _within_bounds(document_.proofs, sum(len(each.encode()) for each in hunts))
    names = ", ".join(proof.name for proof in document_.proofs)
    contents = _contents(document_.proofs) if len(document_.proofs) > 1 else ""
    body = [
        f"<header><h1>{_title(document_.proofs)}</h1>"
        f'<p class="small">faultproof, {text(document_.when)}</p>{contents}</header>',
        *(_proof(proof, n, shown[n]) for n, proof in enumerate(document_.proofs)),
        *hunts,
        _environment(document_),
    ]
    return document(f"faultproof: {names}", style, body, script=script)


def _title(proofs: Sequence[ProofReport]) -> str:
    if len(proofs) == 1:
        return "Proof report"
    held = sum(proof.verdict == "held" for proof in proofs)
    return f"{held} of {len(proofs)} proofs held"


def _short(proof: ProofReport) -> str:
    return proof.name.rpartition(":")[2]


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict.split()[0]}">{verdict}</span>'


def _contents(proofs: Sequence[ProofReport]) -> str:
    links = "".join(
        f'<li><a href="#p{n}">{text(proof.name)}</a> {_badge(proof.verdict)}</li>' for n, proof in enumerate(proofs)
    )
    return f"<ul>{links}</ul>"


def _within_bounds(proofs: Sequence[ProofReport], others: int) -> list[list[Shown]]:
    """Of each proof the runs that the page has room for beside `others` bytes: first everybody's first, then everybody's
    second …"""
    shown: list[list[Shown]] = [[] for _ in proofs]
    left = PAGE_BYTES_MAX - 60_000 - sum(len(_words(proof).encode()) for proof in proofs) - others
    for n in range(max((len(proof.runs) for proof in proofs), default=0)):
        for p, proof in enumerate(proofs):
            if n < len(proof.runs):
                made = panel(proof.runs[n], f"p{p}r{n}", f"p{p}")
                if made.size <= left:
                    left -= made.size
                    shown[p].append(made)
    return shown


def _words(proof: ProofReport) -> str:
    """A proof without its runs, for its size."""
    return _proof(proof, 0, [])


def _proof(proof: ProofReport, n: int, shown: Sequence[Shown]) -> str:
    parts = [
        f'<section id="p{n}"><div class="head"><h2>{text(proof.name)}</h2>{_badge(proof.verdict)}</div>',
        f'<p class="claim">{text(proof.claim)}</p>',
        _failure(proof),
        _violation(proof),
        _runs(proof, n, shown) if proof.verdict == "violated" else "",
        "<h3>Where it was tried</h3>",
        f'<div class="plates">{"".join(_world(proof, world) for world in _WORLDS)}</div>',
        "<h3>Under which conditions</h3>",
        '<div class="plates">',
        _list("Faults", proof.faults),
        _list("Assumed", proof.assumptions),
        _list("Not tested", proof.not_tested),
        "</div>",
        _properties(proof.properties),
        _runs(proof, n, shown) if proof.verdict != "violated" else "",
        mutants(proof.mutants),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _failure(proof: ProofReport) -> str:
    if proof.error is None:
        return ""
    return (
        '<div class="wrong"><h3>It could not be carried out, so it shows nothing</h3>'
        f'<pre class="scroll">{text(proof.error)}</pre></div>'
    )


def _violation(proof: ProofReport) -> str:
    run = next((run for run in proof.runs if run.story.broken and run.plant is None), None)
    if run is None:
        return ""
    return f'<div class="wrong"><h3>What went wrong</h3>{_explained(run.story, run.replay)}</div>'


def _explained(story: Story, replay: str | None) -> str:
    rows = [
        ("struck by", f'<b class="violated">{text(what)}</b><br><code>{text(where)}</code>')
        for what, where in struck(story) or [("no fault at all", "")]
    ]
    steps = "".join(
        f'<li class="{"fault" if "***" in line else ""}">{text(line)}</li>'
        for line in operations(story, _OPERATIONS_MAX)
    )
    rows.append(("operations", f'<ul class="steps code">{steps}</ul>'))
    for expected, seen in expected_and_seen(story):
        rows.append(("expected", text(expected)))
        rows.append(("seen", "<br>".join(f'<span class="violated">{text(sentence)}</span>' for sentence in seen)))
    if replay is not None:
        rows.append(("replay", f"<code>{text(replay)}</code>"))
    return f'<dl class="facts">{"".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in rows)}</dl>'


def _world(proof: ProofReport, world: str) -> str:
    tried = next((each for each in proof.worlds if each.world == world), None)
    if tried is None:
        return f'<div class="plate"><h4>{world} <span class="not">not tried</span></h4></div>'
    scope = "".join(f"<p>{text(sentence)}</p>" for sentence in tried.scope)
    return (
        f'<div class="plate"><h4>{world} <span class="{tried.verdict}">{tried.verdict}</span></h4>{scope}'
        f'<p class="small">{_numbers(tried)}</p></div>'
    )


def _numbers(tried: WorldVerdict) -> str:
    return " · ".join(f"{f'{value:,.1f}'.removesuffix('.0')} {text(name)}" for name, value in tried.numbers.items())


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{text(line)}</li>" for line in lines) or '<li class="not">none</li>'
    return f'<div class="plate"><h4>{title}</h4><ul>{items}</ul></div>'


def _properties(properties: Sequence[Property]) -> str:
    if not properties:
        return ""
    rows = "".join(_property(each) for each in properties)
    return f'<h3>Properties</h3><div class="scroll"><table>{rows}</table></div>'


def _property(each: Property) -> str:
    seen = "".join(f'<br><span class="violated">{text(sentence)}</span>' for sentence in each.seen)
    shown = f' <span class="small">(shown below: {text(each.shown)})</span>' if each.shown else ""
    verdict = {"not broken": "not broken in the run shown", "never": "never happened"}.get(each.verdict, each.verdict)
    return (
        f'<tr><td class="k">{each.kind}</td><td class="long">{text(each.claim)}{shown}{seen}</td>'
        f'<td class="v {each.verdict.split()[0]}">{verdict}</td></tr>'
    )


def _runs(proof: ProofReport, n: int, shown: Sequence[Shown]) -> str:
    if not shown:
        return ""
    missing = len(proof.runs) - len(shown)
    left_out = f'<p class="small">Not shown, or the page would be too large: {missing} more.</p>'
    chosen = "".join(each.html(is_first=i == 0) for i, each in enumerate(shown))
    raw = {
        "proof": proof.name,
        "claim": proof.claim,
        "verdict": proof.verdict,
        "statements": statements_of(each.run.story for each in shown),
        "runs": [history(each.run) for each in shown],
    }
    return "\n".join(
        [
            "<h3>Runs</h3>",
            key(),
            f'<div class="runs">{chosen}</div>',
            left_out if missing else "",
            f'<p class="noscript-off"><button data-saves="p{n}raw" data-name="{text(_short(proof).lower())}.json">'
            "Save these histories as JSON</button></p>",
            data(f"p{n}raw", raw),
        ]
    )


def _environment(document_: Document) -> str:
    rows: Iterator[str] = (
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in document_.environment.items()
    )
    return (
        f'<footer><h3>Environment</h3><dl class="facts">{"".join(rows)}</dl>'
        '<p class="small">A verdict is about what was tried: the claim, under these faults and assumptions, in the worlds that'
        " are named; what was not tested is listed.</p></footer>"
    )

"""The page is complete in itself, tells everything without a script, stays small, and lets nobody else's words be more."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from faultproof.prove.reports.mutants import SHOWN_MAX
from faultproof.prove.reports.page import PAGE_BYTES_MAX, page
from faultproof.prove.reports.runs import EVENTS_SHOWN_MAX
from tests.prove.reports.stories import crashed, document, hunt, report

NASTY = """</script></style><script>alert(1)</script><img src=x onerror=alert(2)> "' onload='x' & <!-- ]]> \u202e\x1b[31m\x00"""
VOID = {"meta", "input", "br"}


class Parsed(HTMLParser):
    """What a browser makes of it: elements with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.scripts: dict[str, str] = {}
        self.policy = ""
        self._open: list[str] = []
        self._script: str | None = None
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        given = dict(attrs)
        if tag == "meta" and "http-equiv" in given:
            self.policy = given["content"] or ""
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self._script = (given.get("id") or "") if tag == "script" else None
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = data
        elif "style" not in self._open:
            self.words.append(data)


def test_everything_is_there_to_be_read_without_a_script():
    words = " ".join(" ".join(Parsed(page(document(report()))).words).split())
    for part in (
        "shop.proofs:TILL violated",
        "What was paid is booked once.",
        "struck by crash after writer in till.0",
        "src/till.py:12 in Till.book: await db.transact(book())",
        "expected it is booked once seen it is booked twice",
        "replay faultproof replay x",
        "simulated violated every point, once 8 schedules",
        "live not tried",
        "Assumed what was committed stays Not tested two tills",
        "sometimes a receipt is given (shown below: Run 0) happened",
        "Mutants: 1 of 2 killed",
        "deaf derived no wake-up survived it looks anyway",
        "0.020 s till.1 transaction book : book committed",
        "book n=1 → 1 changed src/till.py:12 in Till.book",
        "till.book UPDATE till SET n = 1",
        "Python 3.11",
    ):
        assert part in words, part


def test_every_event_can_be_clicked_and_leads_to_what_is_told_of_it():
    parsed = Parsed(page(document(report(runs=2))))
    assert len(parsed.links) == 2 * len(crashed().events)
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_nothing_is_fetched_and_only_our_script_runs():
    text = page(document(report()))
    parsed = Parsed(text)
    assert all(link.startswith("#") for link in parsed.links)
    assert not re.search(r"@import|url\(|//[a-z]", text.replace("// Everything", ""))
    # The policy would stop it even if something had slipped through: no source at all, but for this one script.
    assert parsed.policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    )
    (digest,) = re.findall(r"script-src 'sha256-(.*)'$", parsed.policy)
    assert b64decode(digest) == sha256(parsed.scripts[""].encode()).digest()
    assert not any(name.startswith("on") for _, names in parsed.elements for name in names)


def test_words_of_others_stay_words():
    """The same elements with the same attributes, whatever the names and messages are."""

    def nastily(words: str) -> str:
        return f"{words} {NASTY}"

    harmless = Parsed(page(document(report(runs=2), report(), hunts=[hunt()])))
    nasty = Parsed(
        page(document(report(runs=2, say=nastily), report(say=nastily), say=nastily, hunts=[hunt(say=nastily)]))
    )
    assert nasty.elements == harmless.elements
    assert nasty.policy == harmless.policy
    assert nasty.ids == harmless.ids
    # What turns the line around or steers a terminal is shown as what it is: nothing that can be read.
    assert not {"\u202e", "\x1b", "\x00"} & set("".join(nasty.words))
    assert "\N{REPLACEMENT CHARACTER}[31m" in "".join(nasty.words)


def test_histories_travel_with_the_page_as_they_were():
    told = report(say=lambda words: f"{words} {NASTY}")
    raw = Parsed(page(document(told))).scripts["p0raw"]
    assert not set("<>&") & set(raw)
    saved = json.loads(raw)
    assert saved["claim"] == told.claim
    (run,) = saved["runs"]
    assert run["answers"] == [[3, 1]]
    assert run["events"][3] == {
        "at": 0.0,
        "who": f"till {NASTY}.0",
        "kind": "fault",
        "what": told.runs[0].story.events[3].what,
        "site": str(told.runs[0].story.events[3].site),
    }
    (statement,) = run["events"][2]["statements"]
    assert saved["statements"][statement["name"]] == f"UPDATE till SET n = 1 {NASTY}"


def test_page_stays_small_and_says_what_it_leaves_out():
    long = replace(crashed(), events=list(crashed().events) * 100)
    text = page(document(*[report(runs=4, story=long)] * 4))
    assert PAGE_BYTES_MAX / 3 < len(text.encode()) < PAGE_BYTES_MAX
    words = " ".join(Parsed(text).words)
    assert f"{len(long.events) - EVENTS_SHOWN_MAX:,} more events are not shown" in words
    assert "Not shown, or the page would be too large: " in words
    # Everybody's first run comes before anybody's second.
    assert words.count("Run 0") >= 4


def test_mutants_that_were_not_killed_come_with_why_and_what_nobody_explains_is_complained_about():
    words = " ".join(" ".join(Parsed(page(document(report(), hunts=[hunt(killed=SHOWN_MAX + 2)]))).words).split())
    for part in (
        f"Mutants of till {SHOWN_MAX + 2} of {SHOWN_MAX + 5} killed",
        "tried in shop.proofs:TILL",
        "survived, and nobody says why: condition fence",
        "order condition survived the index keeps it too",
        "Those that only cost more: 1 mutant killed by, or why it was not limit condition dearer 3 more statements",
        "Those whose guard never came up: 1",
        "fence condition idle nobody says why",
        "where 0 condition killed one crash: booked twice",
        "and 2 more",
    ):
        assert part in words, part


@pytest.mark.parametrize("verdict", ["held", "inconclusive", "failed"])
def test_proof_without_runs_mutants_or_faults_has_a_page(verdict):
    bare = replace(
        report(), verdict=verdict, runs=[], mutants=[], properties=[], faults=(), worlds=[], error=None, assumptions=()
    )
    words = " ".join(" ".join(Parsed(page(document(bare))).words).split())
    assert f"shop.proofs:TILL {verdict}" in words
    assert "Faults none Assumed none" in words
    assert "violated" not in words

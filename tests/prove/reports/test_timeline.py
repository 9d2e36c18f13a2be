"""Lanes and bands: who lived when, who was frozen, who was dead."""

import re
from dataclasses import replace

from faultproof.prove.reports.timeline import timeline
from faultproof.prove.story import Happening, Judged
from tests.prove.reports.stories import crashed


def drawn(story, **more):
    events = len(story.events)
    return timeline(story, more.get("shown", events), lambda n: f"#e{n}", more.get("first"))


def bands(picture, kind):
    """Of each band: from where to where, and in which row."""
    found = re.findall(rf'<rect class="{kind}" x="(\d+)" y="(\d+)" width="(\d+)"', picture)
    return [(int(x), int(x) + int(width), (int(y) - 34) // 34) for x, y, width in found if y != "0"]


def place(picture, event):
    """Where an event is: the middle of what can be clicked."""
    x = re.search(rf'href="#e{event}".*?<rect x="(\d+)"', picture)
    return int(x[1]) + 8


def names(picture):
    return re.findall(r'<div class="(?:again)?" title="[^"]*">([^<]*)</div>', picture)


def test_who_was_killed_is_dead_until_the_next_life_which_shares_its_lane():
    picture = drawn(crashed())
    assert names(picture) == ["till", "door"]
    ((begin, end, row),) = bands(picture, "down")
    assert (abs(begin - place(picture, 4)) <= 1, abs(end - place(picture, 6)) <= 1, row) == (True, True, 0)
    assert bands(picture, "away") == []


def test_who_was_frozen_has_a_band_until_it_is_back_and_its_replacement_a_lane_of_its_own():
    def event(at: float, life: int, kind: str, what: str) -> Happening:
        return Happening(at=at, process="till", life=life, kind=kind, what=what)  # type: ignore[arg-type]

    events = [
        event(0.0, 0, "start", "starts"),
        event(0.0, 0, "fault", "freeze before transaction book"),
        event(0.02, 1, "start", "starts again"),
        event(0.02, 1, "operation", "transaction book"),
        event(1.5, 0, "wakes", "is back, and goes on"),
        event(1.5, 0, "operation", "transaction book"),
    ]
    picture = drawn(replace(crashed(), events=events))
    assert names(picture) == ["till", "life 2"]
    ((begin, end, row),) = bands(picture, "away")
    assert (abs(begin - place(picture, 1)) <= 1, abs(end - place(picture, 4)) <= 1, row) == (True, True, 0)
    assert bands(picture, "down") == []
    # The clock is written where it moves.
    assert re.findall(r">(\d\.\d+ s)</text>", picture) == ["0.000 s", "0.020 s", "1.500 s"]


def test_who_never_wakes_is_frozen_to_the_end():
    story = crashed()
    events = [*story.events[:3], replace(story.events[3], what="freeze after transaction book"), story.events[5]]
    ((begin, end, row),) = bands(drawn(replace(story, events=events)), "away")
    assert (begin < end, row) == (True, 0)


def test_commits_failures_and_what_only_looked_are_told_apart():
    story = crashed()
    looked = replace(story.events[2], commits=False)
    picture = drawn(replace(story, events=[story.events[2], looked, replace(looked, failed=True)]))
    assert re.findall(r'<circle class="(\w+)"', picture) == ["commit", "op", "fails"]


def test_moment_at_which_a_property_broke_is_marked():
    story = crashed()
    assert 'class="broken"' not in drawn(story)
    broken = Judged(kind="always", claim="never twice", wrong=("twice",), event=7)
    picture = drawn(replace(story, judged=[broken]), first=3)
    (x,) = re.findall(r'class="broken" x1="(\d+)"', picture)
    assert abs(int(x) - place(picture, 7)) <= 1
    assert re.findall(r'href="#e(\d+)" class=first', picture) == ["3"]
    assert 'class="broken"' not in drawn(replace(story, judged=[broken]), shown=5)


def test_a_run_in_which_nothing_happened_has_no_picture():
    assert drawn(replace(crashed(), events=[])) == '<p class="small">Nothing happened.</p>'

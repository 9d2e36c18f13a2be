"""The README's table of patterns and the rooms' checklists say what the catalogue says."""

from pathlib import Path

import pytest

from faultproof.catalogue import PATTERNS, find
from tests.docs.markdown import REPOSITORY, ROOMS, named, rows, section


def test_readme_lists_the_patterns_of_the_catalogue() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert list(rows(section(readme, "The patterns"))) == [
        [
            str(pattern.number),
            f"[{pattern.name}](src/{pattern.readme})" if pattern.readme else pattern.name,
            pattern.guarantee,
            str(pattern.status),
            f"`{pattern.proof}`" if pattern.proof else "-",
        ]
        for pattern in PATTERNS
    ]


@pytest.mark.parametrize("readme", ROOMS, ids=named)
def test_checklist_has_every_item_of_the_specification(readme: Path) -> None:
    pattern = find(readme.parent.name)
    items = {cells[0].removeprefix("*Guarantee:* ").casefold() for cells in rows(_checklist(readme))}
    # Where the specification has no detailed part, its guarantee is one word of a table.
    wanted = [*pattern.checklist, *(pattern.guarantees if pattern.checklist else ())]
    assert [item for item in wanted if item.casefold() not in items] == []


@pytest.mark.parametrize("readme", ROOMS, ids=named)
def test_checklist_says_for_each_item_where_it_is_done_and_what_shows_it(readme: Path) -> None:
    assert [cells[0] for cells in rows(_checklist(readme)) if len(cells) != 3 or not all(cells)] == []


def _checklist(readme: Path) -> str:
    return section(readme.read_text(encoding="utf-8"), "Checklist")

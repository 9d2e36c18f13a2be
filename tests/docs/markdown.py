"""Reading Markdown as the tests of the documents need it: sections, tables, code spans."""

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = sorted(REPOSITORY.glob("src/faultproof/patterns/*/README.md"))
DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "ARCHITECTURE.md",
    REPOSITORY / "STYLE.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted(REPOSITORY.glob("docs/**/*.md")),
    *ROOMS,
]
"""Everything that people read; the tests of names and links look at all of it."""

_CELL = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"`([^`\n]+)`")


def named(path: Path) -> str:
    """A document's path from the repository's root, for the ids of tests."""
    return str(path.relative_to(REPOSITORY))


def section(text: str, heading: str) -> str:
    """What stands below `## heading`, up to the next heading of that level."""
    _, found, rest = f"\n{text}".partition(f"\n## {heading}\n")
    assert found, f"there is no section {heading!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row, without heads and rules."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if not line.startswith("|") or set(line) <= set("|-: "):
            continue
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if following.startswith("|-"):
            continue  # the head
        yield [cell.strip() for cell in _CELL.split(line)[1:-1]]


def code_spans(text: str) -> list[str]:
    """What stands between single backticks."""
    return _CODE.findall(text)

"""Every verb with arguments that nobody means: exit status 2 and one sentence that steers no terminal."""

from pathlib import Path

import pytest

from tests.cli.executable import EXECUTABLE, refusals, run

NONSENSE = (
    "",
    " ",
    "\udcff",  # how a byte reaches Python that is in no encoding: $'\\xff' in a shell
    "x\udcff:Y",
    "\n",
    "\x1b[31mred",
    "\x7f\x85\u202e",
    "http://[::1",
    "sqlite://",
    "sqlite:///",
    "sqlite:///%00",
    "sqlite://[::1/x",
    "postgresql://[::1",
    "://",
    ":",
    "..",
    "/",
    "[red]",
    "{0}%s",
    "a" * 5_000,
    "9" * 5_000,
    "\N{GRINNING FACE}",
)
ANYTHING = {
    "show": ["show"],
    "prove": ["prove"],
    "prove --save": ["prove", "batch", "--save"],
    "replay": ["replay"],
    "check": ["check", "--model", "register"],
    "check --model": ["check", "DB", "--model"],
    "shop --orders": ["shop", "--orders"],
    "lag --db": ["outbox", "lag", "--db"],
    "lag --name": ["outbox", "lag", "--db", "DB", "--name"],
    "dead --group": ["outbox", "dead", "--db", "DB", "--group"],
    "replay ID": ["outbox", "replay", "--db", "DB", "--group", "post"],
    "discard ID": ["outbox", "discard", "--yes", "--db", "DB", "--group", "post"],
    "forget": ["outbox", "forget", "--yes", "--db", "DB"],
}
"""Verbs to which all of it is nonsense."""
GOOD_DIRECTORIES = ("..", "/")
NO_DATABASES = (*(text for text in NONSENSE if "://" in text), "", "\udcff", "/")
"""A new database may have the strangest name, but not these."""


@pytest.mark.parametrize("verb", ANYTHING)
def test_nonsense_is_refused_in_one_sentence(verb: str, installed: Path) -> None:
    before = installed.read_bytes()
    call = [str(installed) if each == "DB" else each for each in ANYTHING[verb]]
    texts = [text for text in NONSENSE if not (verb == "prove --save" and text in GOOD_DIRECTORIES)]
    said = refusals(*([*call, text] for text in texts))
    assert [sentence for sentence in said if not sentence.isprintable() or not 10 < len(sentence) <= 1_000] == []
    assert installed.read_bytes() == before


def test_shop_opens_no_nonsense() -> None:
    said = refusals(*(["shop", "--orders", "3", "--db", text] for text in NO_DATABASES))
    assert [sentence for sentence in said if not sentence.isprintable()] == []


def test_bytes_of_no_encoding_reach_the_verbs_through_a_shell() -> None:
    got = run(["/bin/sh", "-c", """exec "$0" show "$(printf '\\377')" """, EXECUTABLE], status=2)
    assert got.stderr == "There is no pattern named '\\udcff'; `faultproof patterns` lists them.\n"
